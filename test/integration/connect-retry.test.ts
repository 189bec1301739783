/** A dial that fails goes on to the next backend, unseen by the client; and the client that leaves meanwhile. */
import type { Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { oneClose, PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, readSeries, titled } from "../support/outcome.ts";
import { RawClient } from "../support/raw-client.ts";
import { type Behaviour, RawUpstream } from "../support/raw-upstream.ts";

const upstreams: RawUpstream[] = [];
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await Promise.all(upstreams.splice(0).map((upstream) => upstream.stop()));
});

async function startUpstream(
  behaviour?: Behaviour,
  onConnect?: (socket: Socket) => void,
): Promise<RawUpstream> {
  const upstream = await RawUpstream.start(behaviour, onConnect);
  upstreams.push(upstream);
  return upstream;
}

/** In the order of the list, so that the first dial goes to the first backend. */
function inOrder(backends: readonly RawUpstream[], more = "", connectTimeout = "5s"): string {
  return onePool(
    backends.map(({ url }) => url),
    more,
  ).replace("{ backends", `{ balance: roundRobin, connectTimeout: ${connectTimeout}, backends`);
}

const accepting: Behaviour = (peer) => peer.answersClose().accept();
const silent: Behaviour = () => undefined;
const resetting = (socket: Socket): void => void socket.resetAndDestroy();

const retried: readonly {
  readonly title: string;
  readonly outcome: string;
  readonly behaviour?: Behaviour;
  readonly onConnect?: (socket: Socket) => void;
  readonly gone?: true;
}[] = [
  { title: "refuses the connection", outcome: "refused", gone: true },
  { title: "accepts it and says nothing", outcome: "timeout", behaviour: silent },
  { title: "resets it", outcome: "reset", onConnect: resetting },
  { title: "ends it", outcome: "reset", onConnect: (socket) => void socket.end() },
  ...[502, 503, 504].map((status) => ({
    title: `answers ${status}`,
    outcome: "rejected",
    behaviour: ((peer) => peer.write(`HTTP/1.1 ${status} No\r\n\r\n`)) satisfies Behaviour,
  })),
];

it.each(titled(retried))("goes on to the next backend when one %s", async (_title, row) => {
  const first = await startUpstream(row.behaviour, row.onConnect);
  if (row.gone) await first.stop();
  const second = await startUpstream(accepting);
  gateway = await startGateway(
    inOrder([first, second], "", row.outcome === "timeout" ? "100ms" : "5s"),
  );
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await second.peer();
  peer.sendText("welcome");
  await client.log.received(1);
  client.sendClose(1000);
  expect(await client.ended()).toEqual(oneClose(1000));
  const record = await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
    dials: 2,
  });
  expect(record.backend).toBe(second.url);
  const series = await readSeries(gateway);
  expect(series("softclose_dials_total")).toEqual({
    [`pool="main",backend="${first.url}",outcome="${row.outcome}"`]: 1,
    [`pool="main",backend="${second.url}",outcome="connected"`]: 1,
  });
});

function withoutKey(head: string): string {
  return head.replace(/Sec-WebSocket-Key: .*\r\n/, "");
}

it("sends the same request again, with a key of its own", async () => {
  const first = await startUpstream((peer) => peer.write("HTTP/1.1 503 Busy\r\n\r\n"));
  const second = await startUpstream(accepting);
  gateway = await startGateway(inOrder([first, second]));
  const client = new PoliteRawClient(gateway.port, "/chat?room=1", {
    headers: { Cookie: "a=b", "Sec-WebSocket-Protocol": "chat" },
  });
  await client.opened();
  const [one, other] = [await first.peer(), await second.peer()];
  expect(withoutKey(other.head)).toBe(withoutKey(one.head));
  expect(other.head).toContain("GET /chat?room=1 HTTP/1.1\r\n");
  expect(other.header("cookie")).toBe("a=b");
  expect(other.header("sec-websocket-key")).not.toBe(one.header("sec-websocket-key"));
  client.sendClose(1000);
  await client.ended();
});

it.each([401, 404, 429, 500])("takes an answer of %i for final", async (status) => {
  const first = await startUpstream((peer) => peer.write(`HTTP/1.1 ${status} No\r\n\r\n`));
  const second = await startUpstream(accepting);
  gateway = await startGateway(inOrder([first, second]));
  await new PoliteRawClient(gateway.port).ended();
  await expectOutcome(gateway, { cause: "upstreamRejected", refused: true, client: {}, dials: 1 });
  expect(second.peers).toEqual([]);
});

it("tries the same backend again after its back-off", async () => {
  let connections = 0;
  const backend = await startUpstream(accepting, (socket) => {
    connections += 1;
    if (connections < 3) socket.resetAndDestroy();
  });
  gateway = await startGateway(inOrder([backend], "retry: { backoff: { initial: 1ms } }\n"));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  client.sendClose(1000);
  expect(await client.ended()).toEqual(oneClose(1000));
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
    dials: 3,
  });
});

it("gives up after retry.connect.attempts", async () => {
  const backends = [
    await startUpstream(undefined, resetting),
    await startUpstream(undefined, resetting),
  ];
  const retry = "retry: { connect: { attempts: 5 }, backoff: { initial: 1ms } }\n";
  gateway = await startGateway(inOrder(backends, retry));
  expect((await new PoliteRawClient(gateway.port).ended()).told.code).toBe(1013);
  await expectOutcome(gateway, {
    cause: "upstreamUnreachable",
    refused: true,
    client: { sent: 1013, received: 1013 },
    dials: 5,
  });
  expect(backends.map(({ peers }) => peers.length)).toEqual([3, 2]);
});

it("gives up at retry.connect.timeout", async () => {
  const backends = [await startUpstream(silent), await startUpstream(silent)];
  gateway = await startGateway(inOrder(backends, "retry: { connect: { timeout: 100ms } }\n"));
  expect((await new PoliteRawClient(gateway.port).ended()).told.code).toBe(1013);
  await expectOutcome(gateway, {
    cause: "upstreamUnreachable",
    refused: true,
    client: { sent: 1013, received: 1013 },
    dials: 1,
  });
});

describe("a client that leaves while the gateway", () => {
  const ways: readonly { readonly title: string; readonly leave: (client: RawClient) => void }[] = [
    { title: "ends TCP", leave: (client) => client.socket.end() },
    { title: "resets TCP", leave: (client) => client.reset() },
  ];

  it.each(titled(ways))("dials: aborts the dial when it %s", async (_title, { leave }) => {
    const backend = await startUpstream(silent);
    gateway = await startGateway(inOrder([backend], "", "60s"));
    const client = new RawClient(gateway.port);
    const peer = await backend.peer();
    expect(gateway.slots).toBe(1);
    leave(client);
    await peer.ended();
    await expectOutcome(gateway, {
      cause: "clientLost",
      refused: true,
      client: { sent: null, received: null },
      detail: "client left before its handshake was answered",
    });
    const series = await readSeries(gateway);
    expect(series("softclose_dials_total")).toEqual({
      [`pool="main",backend="${backend.url}",outcome="aborted"`]: 1,
    });
  });

  it.each(titled(ways))("backs off: dials no more when it %s", async (_title, { leave }) => {
    const backend = await startUpstream(undefined, resetting);
    const retry = "retry: { backoff: { initial: 8s, jitter: 0 } }\n";
    gateway = await startGateway(inOrder([backend], retry));
    const client = new RawClient(gateway.port);
    await eventually(async () => {
      const series = await readSeries(gateway);
      expect(Object.keys(series("softclose_dials_total"))).toHaveLength(1);
    });
    leave(client);
    await expectOutcome(gateway, {
      cause: "clientLost",
      refused: true,
      client: { sent: null, received: null },
    });
    expect(backend.peers).toHaveLength(1);
  });

  it.each(titled(ways))("reads a refusal's body: stops when it %s", async (_title, { leave }) => {
    const backend = await startUpstream((peer) =>
      peer.write("HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\nhalf"),
    );
    gateway = await startGateway(inOrder([backend], "refuse: http\n", "60s"));
    const client = new RawClient(gateway.port);
    const peer = await backend.peer();
    leave(client);
    await peer.ended();
    expect(client.status).toBeNull();
    await expectOutcome(gateway, {
      cause: "clientLost",
      refused: true,
      client: { sent: null, received: null },
    });
  });
});
