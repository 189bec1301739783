/** A backend that does not accept the handshake: the client is told in one clean Close, or by HTTP. */
import type { Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { DialFailure } from "../../src/upstream/dial.ts";
import { CLIENT_KINDS, oneClose } from "../support/clients.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, readSeries, titled } from "../support/outcome.ts";
import { RawClient } from "../support/raw-client.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

const ONE_DIAL = "retry: { connect: { attempts: 1 } }\n";
const SHORT_DIAL = "{ connectTimeout: 100ms, backends";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

interface Row {
  readonly title: string;
  readonly behaviour?: Behaviour;
  readonly onConnect?: (socket: Socket) => void;
  readonly code: number;
  readonly reason: string;
  readonly cause: "upstreamUnreachable" | "upstreamRejected";
  readonly outcome: DialFailure["outcome"];
  readonly detail: string;
}

const UNREACHABLE = {
  code: 1013,
  reason: "upstream is unreachable; retry-after=1",
  cause: "upstreamUnreachable",
} as const;
const FALSE_101 = {
  code: 1014,
  reason: "upstream did not answer with a valid 101",
  cause: "upstreamRejected",
  outcome: "rejected",
} as const;

function answers(status: number, code: number): Row {
  return {
    title: `answers ${status}`,
    behaviour: (peer) => peer.write(`HTTP/1.1 ${status} No\r\nContent-Length: 2\r\n\r\nno`),
    code,
    reason: `upstream answered ${status}`,
    cause: "upstreamRejected",
    outcome: "rejected",
    detail: `upstream answered ${status}`,
  };
}

function endlessHead(peer: UpstreamPeer): void {
  const { socket } = peer;
  const write = (): void => {
    while (socket.writable && socket.write(`X-More: ${"x".repeat(1000)}\r\n`));
  };
  socket.on("drain", write);
  peer.write("HTTP/1.1 101 Switching Protocols\r\n");
  write();
}

const rows: readonly Row[] = [
  {
    title: "accepts the connection and says nothing",
    behaviour: () => undefined,
    ...UNREACHABLE,
    outcome: "timeout",
    detail: "no answer to the handshake within 100 ms",
  },
  {
    title: "resets the connection at once",
    onConnect: (socket) => socket.resetAndDestroy(),
    ...UNREACHABLE,
    outcome: "reset",
    detail: "ECONNRESET during the handshake",
  },
  {
    title: "ends the connection at once",
    onConnect: (socket) => socket.end(),
    ...UNREACHABLE,
    outcome: "reset",
    detail: "upstream closed the connection during the handshake",
  },
  {
    title: "ends the connection inside its answer",
    behaviour: (peer) => {
      peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: webs");
      peer.end();
    },
    ...UNREACHABLE,
    outcome: "reset",
    detail: "upstream closed the connection during the handshake",
  },
  answers(200, 1014),
  answers(301, 1014),
  answers(400, 1008),
  answers(401, 1008),
  answers(403, 1008),
  answers(404, 1008),
  answers(426, 1008),
  answers(429, 1013),
  answers(500, 1014),
  answers(502, 1014),
  answers(503, 1013),
  answers(504, 1014),
  {
    title: "answers 404 by HTTP/1.0",
    behaviour: (peer) => peer.write("HTTP/1.0 404 Not Found\r\n\r\nno"),
    code: 1008,
    reason: "upstream answered 404",
    cause: "upstreamRejected",
    outcome: "rejected",
    detail: "upstream answered 404",
  },
  {
    title: "answers 101 with a wrong accept",
    behaviour: (peer) => peer.accept({ "Sec-WebSocket-Accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" }),
    ...FALSE_101,
    detail: "101 with a wrong Sec-WebSocket-Accept",
  },
  {
    title: "answers 101 without an accept",
    behaviour: (peer) => peer.accept({ "Sec-WebSocket-Accept": "" }),
    ...FALSE_101,
    detail: "101 with a wrong Sec-WebSocket-Accept",
  },
  {
    title: "answers 101 without Upgrade",
    behaviour: (peer) => peer.accept({ Upgrade: "" }),
    ...FALSE_101,
    detail: "101 without Upgrade: websocket",
  },
  {
    title: "answers 101 with another Upgrade",
    behaviour: (peer) => peer.accept({ Upgrade: "h2c" }),
    ...FALSE_101,
    detail: "101 without Upgrade: websocket",
  },
  {
    title: "answers 101 without Connection",
    behaviour: (peer) => peer.accept({ Connection: "" }),
    ...FALSE_101,
    detail: "101 without Connection: Upgrade",
  },
  {
    title: "answers 101 with a subprotocol that was not offered",
    behaviour: (peer) => peer.accept({ "Sec-WebSocket-Protocol": "chat" }),
    ...FALSE_101,
    detail: "101 with a subprotocol that was not offered",
  },
  {
    title: "answers 101 with an extension that was not offered",
    behaviour: (peer) => peer.accept({ "Sec-WebSocket-Extensions": "x-webkit-deflate-frame" }),
    ...FALSE_101,
    detail: "101 with an extension that was not offered",
  },
  {
    title: "answers 101 with permessage-deflate, which was not offered",
    behaviour: (peer) => peer.accept({ "Sec-WebSocket-Extensions": "permessage-deflate" }),
    ...FALSE_101,
    detail: "101 with permessage-deflate parameters that were not offered",
  },
  {
    title: "answers 101 by HTTP/1.0",
    behaviour: (peer) => peer.write("HTTP/1.0 101 Switching Protocols\r\n\r\n"),
    ...FALSE_101,
    detail: "answer is not HTTP/1.1: malformed status line",
  },
  {
    title: "answers with something that is not HTTP",
    behaviour: (peer) => peer.write("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ...FALSE_101,
    detail: "answer is not HTTP/1.1: malformed status line",
  },
  {
    title: "sends a head without end",
    behaviour: endlessHead,
    ...FALSE_101,
    detail: "answer head larger than 16384 bytes",
  },
];

/** Short dials only where one must run out, so that no other row can. */
function yamlFor(row: Pick<Row, "outcome">, more = ""): string {
  const yaml = onePool([upstream.url], `${ONE_DIAL}${more}`);
  return row.outcome === "timeout" ? yaml.replace("{ backends", SHORT_DIAL) : yaml;
}

describe.each(CLIENT_KINDS)("with %s", (_name, open) => {
  it.each(titled(rows))("closes the client cleanly when the backend %s", async (_title, row) => {
    upstream = await RawUpstream.start(row.behaviour, row.onConnect);
    gateway = await startGateway(yamlFor(row));
    const client = open(gateway.port);
    expect(await client.ended()).toEqual(oneClose(row.code, row.reason));
    expect(client.log.frames).toHaveLength(1);
    await expectOutcome(gateway, {
      cause: row.cause,
      refused: true,
      client: { sent: row.code, received: row.code },
      detail: row.detail,
    });
    const series = await readSeries(gateway);
    expect(series("softclose_dials_total")).toEqual({
      [`pool="main",backend="${upstream.url}",outcome="${row.outcome}"`]: 1,
    });
    await upstream.peers[0]?.ended();
    expect(upstream.peers).toHaveLength(1);
  });

  it("closes the client with 1013 when nothing listens on the backend's port", async () => {
    upstream = await RawUpstream.start();
    await upstream.stop();
    gateway = await startGateway(onePool([upstream.url], ONE_DIAL));
    const client = open(gateway.port);
    expect(await client.ended()).toEqual(oneClose(1013, UNREACHABLE.reason));
    await expectOutcome(gateway, {
      cause: "upstreamUnreachable",
      refused: true,
      client: { sent: 1013, received: 1013 },
      detail: "ECONNREFUSED during the handshake",
    });
  });
});

describe("with refuse: http", () => {
  it.each(
    titled([
      {
        title: "the backend's own answer",
        answer:
          "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nContent-Length: 5\r\n\r\nlogin",
        status: 401,
        headers: { "www-authenticate": "Bearer", "content-length": "5" },
        body: "login",
      },
      {
        title: "a chunked answer",
        answer:
          "HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nfor\r\n5\r\nbidde\r\n1\r\nn\r\n0\r\n\r\n",
        status: 403,
        headers: { "content-length": "9" },
        body: "forbidden",
      },
      {
        title: "503 with the backend's own Retry-After",
        answer: "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy",
        status: 503,
        headers: { "retry-after": "7" },
        body: "busy",
      },
      {
        title: "502 for a 200",
        answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        status: 502,
        headers: {},
        body: "upstream answered 200\n",
      },
      {
        title: "502 for what is not HTTP",
        answer: "hello\r\n\r\n",
        status: 502,
        headers: {},
        body: "upstream did not answer with a valid 101\n",
      },
    ]),
  )("shows the client %s and closes", async (_title, { answer, status, headers, body }) => {
    upstream = await RawUpstream.start((peer) => peer.write(answer));
    gateway = await startGateway(onePool([upstream.url], `${ONE_DIAL}refuse: http\n`));
    const client = new RawClient(gateway.port);
    await client.ended();
    expect(client.status).toBe(status);
    expect(client.body.toString()).toBe(body);
    expect(client.header("connection")).toBe("close");
    for (const [name, value] of Object.entries(headers)) expect(client.header(name)).toBe(value);
    await expectOutcome(gateway, {
      cause: "upstreamRejected",
      refused: true,
      client: { sent: null, received: null },
    });
  });

  it("shows the client 503 with Retry-After when no backend can be reached", async () => {
    upstream = await RawUpstream.start(undefined, (socket) => socket.resetAndDestroy());
    gateway = await startGateway(onePool([upstream.url], `${ONE_DIAL}refuse: http\n`));
    const client = new RawClient(gateway.port);
    await client.ended();
    expect(client.status).toBe(503);
    expect(client.header("retry-after")).toBe("1");
    await expectOutcome(gateway, {
      cause: "upstreamUnreachable",
      refused: true,
      client: { sent: null, received: null },
    });
  });

  it.each(
    titled([
      { title: "resets inside the body", does: (peer: UpstreamPeer) => peer.reset() },
      { title: "ends inside the body", does: (peer: UpstreamPeer) => peer.end() },
      { title: "never finishes the body", does: () => undefined },
    ]),
  )("keeps the verdict of a backend that %s", async (_title, { does }) => {
    upstream = await RawUpstream.start((peer) => {
      peer.socket.write(
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\nlogin",
        "latin1",
        () => does(peer),
      );
    });
    const more = "retry: { connect: { attempts: 3 }, backoff: { initial: 1ms } }\nrefuse: http\n";
    const yaml = onePool([upstream.url], more).replace("{ backends", SHORT_DIAL);
    gateway = await startGateway(yaml);
    const client = new RawClient(gateway.port);
    await client.ended();
    expect(client.status).toBe(401);
    await expectOutcome(gateway, {
      cause: "upstreamRejected",
      refused: true,
      client: { sent: null, received: null },
      detail: "upstream answered 401",
    });
  });
});
