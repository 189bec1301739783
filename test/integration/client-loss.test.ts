/** A client that vanishes: the upstream is told with 1001, and nothing is left behind. */
import { afterEach, describe, expect, it } from "vitest";
import { LibraryClient, oneClose, PoliteRawClient } from "../support/clients.ts";
import { buildFrame, hex } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, expectWellFormed, readSeries, titled } from "../support/outcome.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

const HEARTBEAT =
  "heartbeat: { client: { interval: 100ms, timeout: 100ms }, upstream: { interval: 0s } }\n";
/** Longer than a stall of a busy machine, shorter than the test. */
const PATIENT_HEARTBEAT = HEARTBEAT.replace("timeout: 100ms", "timeout: 300ms");

const rows: readonly {
  readonly title: string;
  readonly leave: (client: PoliteRawClient) => void;
  readonly detail: string;
}[] = [
  {
    title: "ends TCP without a Close",
    leave: ({ raw }) => raw.socket.end(),
    detail: "connection ended without a Close",
  },
  { title: "resets TCP", leave: ({ raw }) => raw.reset(), detail: "ECONNRESET" },
  {
    title: "ends TCP inside a frame",
    leave: ({ raw }) => {
      const frame = buildFrame({ opcode: 1, mask: hex("01 02 03 04"), payload: "hello world" });
      raw.socket.end(frame.subarray(0, 9));
    },
    detail: "connection ended without a Close",
  },
  {
    title: "ends TCP inside a frame header",
    leave: ({ raw }) => raw.socket.end(hex("81")),
    detail: "connection ended without a Close",
  },
];

describe("a client that goes without a Close", () => {
  it.each(titled(rows))(
    "costs the upstream a 1001 when it %s",
    async (_title, { leave, detail }) => {
      upstream = await RawUpstream.start();
      gateway = await startGateway(onePool([upstream.url]));
      const client = new PoliteRawClient(gateway.port);
      await client.opened();
      const peer = (await upstream.peer()).answersClose();
      client.sendText("before");
      await peer.log.received(1);
      leave(client);
      await peer.ended();
      expectWellFormed(peer);
      expect(peer.log.messages.map(String)).toEqual(["before"]);
      expect(peer.log.closes).toEqual([{ code: 1001, reason: "client connection lost" }]);
      await expectOutcome(gateway, {
        cause: "clientLost",
        client: { sent: null, received: null },
        upstream: { sent: 1001, received: 1001 },
        detail,
      });
      expect(client.log.frames).toEqual([]);
    },
  );

  it("costs the upstream a 1001 when a ws client terminates", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url]));
    const client = new LibraryClient(gateway.port);
    await client.opened();
    const peer = (await upstream.peer()).answersClose();
    client.socket.terminate();
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client connection lost" }]);
    await expectOutcome(gateway, {
      cause: "clientLost",
      client: { sent: null, received: null },
      upstream: { sent: 1001, received: 1001 },
    });
  });

  it("does not take with it what it had sent whole", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url]));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = (await upstream.peer()).answersClose();
    for (let i = 0; i < 100; i += 1) client.sendText(`message ${i}`);
    client.raw.socket.end();
    await peer.ended();
    expect(peer.log.messages).toHaveLength(100);
    expectWellFormed(peer);
    const [record] = await gateway.recorded();
    expect(record?.messages.clientToUpstream).toBe(100);
  });

  it("counts what the upstream still sends as dropped", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url]));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.raw.reset();
    await peer.log.frame(8);
    peer.sendText("too late");
    peer.sendText("too late, too");
    peer.sendClose(1001);
    peer.end();
    const record = await expectOutcome(gateway, {
      cause: "clientLost",
      client: { sent: null, received: null },
      upstream: { sent: 1001, received: 1001 },
    });
    expect(record.dropped).toEqual({ clientToUpstream: 0, upstreamToClient: 2 });
    expect(record.messages).toEqual({ clientToUpstream: 0, upstreamToClient: 0 });
    const series = await readSeries(gateway);
    expect(series("softclose_dropped_messages_total")).toEqual({
      'route="all",direction="upstreamToClient"': 2,
    });
  });

  it("is not waited for by an upstream that ignores the Close: close.timeout ends it", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], "close: { timeout: 100ms }\n"));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.raw.reset();
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toHaveLength(1);
    await expectOutcome(gateway, {
      cause: "clientLost",
      client: { sent: null, received: null },
      upstream: { sent: 1001, received: null },
    });
  });
});

describe("a client that answers no ping", () => {
  it.each([
    ["a ws client", (port: number) => new LibraryClient(port, "/", { autoPong: false })],
    ["a raw client", (port: number) => new PoliteRawClient(port)],
  ] as const)("gets 1001 and is destroyed: %s", async (_name, open) => {
    upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
    gateway = await startGateway(onePool([upstream.url], HEARTBEAT));
    const client = open(gateway.port);
    // Its answer may meet a socket that is gone.
    expect(await client.ended()).toEqual({
      ...oneClose(1001, "no pong in time"),
      tcp: expect.any(String),
    });
    expect(client.log.frames.map(({ opcode }) => opcode)).toContain(9);
    const peer = await upstream.peer();
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client sent no pong in time" }]);
    await expectOutcome(gateway, {
      cause: "clientUnresponsive",
      client: { sent: 1001 },
      upstream: { sent: 1001, received: 1001 },
    });
  });

  it("is kept while it sends anything at all", async () => {
    upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
    gateway = await startGateway(onePool([upstream.url], PATIENT_HEARTBEAT));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    // No pong, but a message for every ping.
    let answered = 0;
    await new Promise<void>((resolve) => {
      client.raw.socket.on("data", () => {
        const pings = client.log.frames.filter(({ opcode }) => opcode === 9).length;
        for (; answered < pings; answered += 1) client.sendText("still here");
        if (answered >= 6) resolve();
      });
    });
    client.sendClose(1000);
    await client.ended();
    const peer = await upstream.peer();
    await peer.ended();
    expect(peer.log.messages.length).toBeGreaterThanOrEqual(6);
    await expectOutcome(gateway, {
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
  });
});
