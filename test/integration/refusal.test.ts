/** Clients that are turned away: by Close, which a browser can read, and by HTTP status. */
import { afterEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;
const clients: RawClient[] = [];

async function start(
  more = "",
  behaviour: (peer: UpstreamPeer) => void = (peer) => peer.accept(),
  listener = "",
): Promise<void> {
  upstream = await RawUpstream.start(behaviour);
  gateway = await startGateway(
    `listeners: [{ name: test, bind: "127.0.0.1:0"${listener} }]\n${onePool([upstream.url], more)}`,
  );
}

function open(headers: Record<string, string> = {}): RawClient {
  const client = new RawClient(gateway.port, { headers });
  clients.push(client);
  return client;
}

/** As an application in a browser sees its end. */
async function told(subprotocols: string[] = []) {
  const socket = new WebSocket(gateway.url(), subprotocols);
  const errors: string[] = [];
  socket.on("error", ({ message }) => errors.push(message));
  const [code, reason] = await new Promise<[number, string]>((resolve) => {
    socket.on("close", (closeCode, why) => resolve([closeCode, why.toString()]));
  });
  return { code, reason, subprotocol: socket.protocol, errors };
}

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await gateway.stopClean();
  await upstream.stop();
});

/** Nobody listens there: a port that was free a moment ago. */
async function startUnreachable(more = ""): Promise<void> {
  await start(`retry: { connect: { attempts: 1 } }\n${more}`);
  await upstream.stop();
}

describe("refuse: close", () => {
  it.each([
    ["without subprotocols", [], ""],
    ["with subprotocols, the first of which it gets", ["v2", "v1"], "v2"],
  ])("tells a client %s code and reason", async (_title, subprotocols, subprotocol) => {
    await startUnreachable();
    const { reason, ...rest } = await told(subprotocols);
    expect(rest).toEqual({ code: 1013, subprotocol, errors: [] });
    expect(reason).toMatch(/^upstream is unreachable; retry-after=\d+$/);
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({
      route: "all",
      backend: upstream.url,
      cause: "upstreamUnreachable",
      refused: true,
      dials: 1,
      client: { sent: 1013, received: 1013 },
      upstream: { sent: null, received: null },
    });
    expect(
      await gateway.metric('softclose_refusals_total{route="all",cause="upstreamUnreachable"}'),
    ).toBe(1);
    expect(
      await gateway.metric(
        'softclose_close_frames_total{side="client",direction="sent",code="1013"}',
      ),
    ).toBe(1);
  });

  it.each([
    [401, 1008],
    [403, 1008],
    [404, 1008],
    [426, 1008],
    [429, 1013],
    [503, 1013],
    [200, 1014],
    [302, 1014],
    [500, 1014],
    [502, 1014],
  ])("passes the upstream's %i on as %i, without a retry-after of ours", async (status, code) => {
    await start("retry: { connect: { attempts: 1 } }", (peer) =>
      peer.write(`HTTP/1.1 ${status} Something\r\nContent-Length: 2\r\n\r\nno`),
    );
    expect(await told()).toMatchObject({ code, reason: `upstream answered ${status}`, errors: [] });
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "upstreamRejected", refused: true });
  });

  it("takes code and reason from close.causes, and keeps the retry-after behind it", async () => {
    await startUnreachable(
      'close: { causes: { upstreamUnreachable: { code: 4013, reason: "later" } } }',
    );
    const { code, reason } = await told();
    expect(code).toBe(4013);
    expect(reason).toMatch(/^later; retry-after=\d+$/);
  });

  it("says 1001 in place of 1013 with legacyCodes", async () => {
    await startUnreachable("close: { legacyCodes: true }");
    expect((await told()).code).toBe(1001);
  });

  it("spreads the return of a herd between retryAfter.min and max", async () => {
    await startUnreachable("retryAfter: { min: 3s, max: 40s, acceptRate: 2 }");
    const herd = await Promise.all(Array.from({ length: 80 }, () => told()));
    const seconds = herd.map(({ reason }) => Number(/retry-after=(\d+)$/.exec(reason)?.[1]));
    expect(Math.min(...seconds)).toBeGreaterThanOrEqual(3);
    expect(Math.max(...seconds)).toBeLessThanOrEqual(40);
    expect(new Set(seconds).size).toBeGreaterThan(10);
    expect(Math.max(...seconds)).toBeGreaterThan(20);
  });

  it("has its hands off a client that never answers the Close: TCP ends after close.timeout", async () => {
    await startUnreachable("close: { timeout: 100ms }");
    const client = open();
    await client.log.frame(8);
    await client.ended();
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ client: { sent: 1013, received: null } });
  });

  it.each([
    ["small frames", Buffer.alloc(1000)],
    ["a frame above all bounds", Buffer.alloc(1024 * 1024)],
  ])("drops what a refused client floods us with: %s", async (_title, payload) => {
    await startUnreachable("close: { timeout: 200ms }");
    const client = open();
    const flood = setInterval(() => client.send({ opcode: 2, payload }), 1);
    await client.log.frame(8);
    await client.ended();
    clearInterval(flood);
    expect(client.log.closes[0]?.code).toBe(1013);
    expect(await gateway.recorded()).toHaveLength(1);
  });

  it("survives a refused client that breaks the protocol or leaves", async () => {
    await startUnreachable("close: { timeout: 200ms }");
    const rude = open();
    rude.send({ opcode: 3, rsv2: true, payload: "?" });
    const gone = open();
    await gone.log.frame(8);
    gone.reset();
    await rude.ended();
    const records = await gateway.recorded(2);
    for (const { client } of records) expect(client.received).toBe(null);
  });
});

describe("refuse: http", () => {
  it("answers 503 with Retry-After and closes", async () => {
    await startUnreachable("refuse: http");
    const client = open();
    expect(await client.answered()).toBe(503);
    expect(client.header("retry-after")).toMatch(/^\d+$/);
    expect(client.header("connection")).toBe("close");
    expect(await client.ended()).toBe("fin");
    expect(client.body.toString()).toMatch(/^upstream is unreachable; retry-after=\d+\n$/);
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({
      cause: "upstreamUnreachable",
      refused: true,
      client: { sent: null, received: null },
    });
  });

  it.each([
    ["with a length", "Content-Length: 4", "nope"],
    ["in chunks", "Transfer-Encoding: chunked", "2\r\nno\r\n2\r\npe\r\n0\r\n\r\n"],
    ["until the end", "X: y", "nope"],
  ])("shows the upstream's own status, headers and body %s", async (_title, framing, body) => {
    await start("refuse: http", (peer) => {
      peer.write(
        `HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n` +
          `Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n${framing}\r\n\r\n${body}`,
      );
      if (framing === "X: y") peer.end();
    });
    const client = open();
    expect(await client.answered()).toBe(401);
    await client.ended();
    expect(client.head?.split("\r\n")).toEqual([
      "HTTP/1.1 401 Unauthorized",
      "WWW-Authenticate: Bearer",
      "Set-Cookie: a=1",
      "Set-Cookie: b=2",
      ...(framing === "X: y" ? ["X: y"] : []),
      "Content-Length: 4",
      "Connection: close",
    ]);
    expect(client.body.toString()).toBe("nope");
  });

  it.each([
    ["with a length", `Content-Length: ${1024 * 1024}\r\n\r\n${"x".repeat(1024 * 1024)}`],
    [
      "in chunks",
      `Transfer-Encoding: chunked\r\n\r\n${`1000\r\n${"x".repeat(4096)}\r\n`.repeat(100)}0\r\n\r\n`,
    ],
    ["without an end", `\r\n${"x".repeat(200 * 1024)}`],
  ])("cuts a large body of the upstream at 64 KiB: %s", async (_title, answer) => {
    await start("refuse: http", (peer) => peer.write(`HTTP/1.1 403 Forbidden\r\n${answer}`));
    const client = open();
    expect(await client.answered()).toBe(403);
    expect(await client.ended()).toBe("fin");
    expect(client.header("content-length")).toBe(String(64 * 1024));
    expect(client.body).toEqual(Buffer.alloc(64 * 1024, "x"));
  });

  it.each([
    [
      "426 that speaks of an upgrade",
      "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\r\nx",
      426,
      "x",
    ],
    ["302", "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", 302, ""],
    ["304 without a body", "HTTP/1.1 304 Not Modified\r\n\r\n", 304, ""],
    [
      "a body that breaks off",
      "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nhalf",
      404,
      "half",
    ],
    [
      "broken chunks",
      "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      404,
      "",
    ],
  ])("shows an answer of %s", async (title, answer, status, body) => {
    await start("refuse: http", (peer) => {
      peer.write(answer);
      if (title.endsWith("breaks off")) peer.end();
    });
    const client = open();
    expect(await client.answered()).toBe(status);
    await client.ended();
    expect(client.body.toString()).toBe(body);
  });

  it("calls an answer that is no refusal a bad gateway", async () => {
    await start("refuse: http", (peer) =>
      peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    );
    const client = open();
    expect(await client.answered()).toBe(502);
    await client.ended();
    expect(client.body.toString()).toBe("upstream answered 200\n");
  });

  it("answers 403 where there is no route", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(
      `refuse: http\nroutes: [{ name: ws, match: { path: /ws }, pool: main }]\npools: { main: { backends: [{ url: "${upstream.url}" }] } }`,
    );
    const client = open();
    expect(await client.answered()).toBe(403);
    await client.ended();
    expect(client.body.toString()).toBe("no route for this host and path\n");
    expect(await gateway.metric('softclose_refusals_total{route="-",cause="forbidden"}')).toBe(1);
  });

  it("holds for its route alone", async () => {
    upstream = await RawUpstream.start();
    const { url } = upstream;
    gateway = await startGateway(
      `routes:\n  - { name: api, match: { path: /api }, pool: main, refuse: http }\n  - { name: web, pool: main }\n` +
        `pools: { main: { backends: [{ url: "${url}" }] } }\nretry: { connect: { attempts: 1 } }`,
    );
    await upstream.stop();
    const api = new RawClient(gateway.port, { path: "/api/x" });
    const web = new RawClient(gateway.port, { path: "/web" });
    expect(await api.answered()).toBe(503);
    expect(await web.answered()).toBe(101);
    await web.log.frame(8);
    web.sendClose(1013);
    await Promise.all([api.ended(), web.ended()]);
  });
});

describe("a cap", () => {
  const PROXY = ', trustedProxies: ["127.0.0.1"]';

  it.each([
    ["a listener's maxConnections", "", ", maxConnections: 2", "listener"],
    ["a route's limits.maxConnections", "limits: { maxConnections: 2 }", "", "route"],
    ["limits.maxConnectionsPerClient", "limits: { maxConnectionsPerClient: 2 }", "", "client"],
  ])(
    "of %s refuses the next client with 1013 until one leaves",
    async (_title, more, listener, word) => {
      await start(`close: { timeout: 100ms }\n${more}`, undefined, listener);
      const first = open();
      await first.answered();
      await open().answered();
      await eventually(() => expect(gateway.gateway.placesTaken).toBe(2));
      const { code, reason } = await told();
      expect(code).toBe(1013);
      expect(reason).toMatch(/^at capacity; retry-after=\d+$/);
      const [record] = await gateway.recorded();
      expect(record).toMatchObject({ route: "all", cause: "capacity", refused: true, dials: 0 });
      expect(record?.detail).toContain(word);
      expect(await gateway.metric('softclose_refusals_total{route="all",cause="capacity"}')).toBe(
        1,
      );
      expect(upstream.peers).toHaveLength(2);
      first.reset();
      await eventually(() => expect(gateway.gateway.placesTaken).toBe(1));
      const next = open();
      await next.answered();
      await eventually(() => expect(gateway.gateway.sessions(9)).toHaveLength(2));
    },
  );

  it("counts handshakes that are still being dialled", async () => {
    await start("close: { timeout: 100ms }\nlimits: { maxConnections: 1 }", () => undefined);
    const first = open();
    await upstream.peer();
    expect((await told()).code).toBe(1013);
    first.reset();
    await gateway.recorded(2);
    const second = open();
    await upstream.peer(1);
    second.reset();
  });

  it("of a client counts by the address that a trusted proxy vouches for, an IPv6 one by its /64", async () => {
    await start(
      "close: { timeout: 100ms }\nlimits: { maxConnectionsPerClient: 1 }",
      undefined,
      PROXY,
    );
    const admitted = async (address: string): Promise<boolean> => {
      const client = open({ "X-Forwarded-For": address });
      await client.answered();
      const before = gateway.records.length;
      return await eventually(() => {
        if (client.log.closes.length > 0) return false;
        if (gateway.gateway.sessions(99).some(({ clientIp }) => clientIp === address)) return true;
        throw new Error(`neither in nor out (${before} records)`);
      });
    };
    expect(await admitted("203.0.113.7")).toBe(true);
    expect(await admitted("203.0.113.8")).toBe(true);
    expect(await admitted("2001:db8:1:2::a")).toBe(true);
    expect(await admitted("2001:db8:1:3::a")).toBe(true);
    expect(await admitted("2001:db8:1:2:ffff::b")).toBe(false);
    const again = open({ "X-Forwarded-For": "203.0.113.7" });
    await again.log.frame(8);
    expect(again.log.closes[0]?.code).toBe(1013);
  });

  it("with refuse: http answers 503", async () => {
    await start("close: { timeout: 100ms }\nrefuse: http\nlimits: { maxConnections: 1 }");
    await open().answered();
    const client = open();
    expect(await client.answered()).toBe(503);
    expect(client.header("retry-after")).toMatch(/^\d+$/);
    await client.ended();
  });
});

it("gives a refused client no place in any cap", async () => {
  await start(
    "retry: { connect: { attempts: 1 } }\nclose: { timeout: 100ms }\nlimits: { maxConnections: 1 }",
    (peer) => peer.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"),
  );
  const lingering = open();
  await lingering.log.frame(8);
  expect(gateway.gateway.placesTaken).toBe(0);
  expect((await told()).code).toBe(1008);
});
