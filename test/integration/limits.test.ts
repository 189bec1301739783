/** What one client may do, and what happens at the exact bound. */
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { closePayload } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

interface Ends {
  readonly client: RawClient;
  readonly peer: UpstreamPeer;
}

async function open(more: string): Promise<Ends> {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], more));
  return await connectClient();
}

async function connectClient(): Promise<Ends> {
  const index = upstream.peers.length;
  const client = new RawClient(gateway.port);
  expect(await client.answered()).toBe(101);
  return { client, peer: await upstream.peer(index) };
}

/** Both ends get their Close and answer it; the session's record. */
async function closedWith({ client, peer }: Ends, clientCode: number, upstreamCode: number) {
  await eventually(() => expect(client.log.closes).toMatchObject([{ code: clientCode }]));
  await eventually(() => expect(peer.log.closes).toMatchObject([{ code: upstreamCode }]));
  client.sendClose(clientCode);
  peer.sendClose(upstreamCode);
  peer.end();
  await client.ended();
  expect(client.log.torn).toHaveLength(0);
  expect(peer.log.torn).toHaveLength(0);
  const [record] = await gateway.recorded();
  return record;
}

async function closeCleanly({ client, peer }: Ends): Promise<void> {
  client.sendClose(1000);
  await peer.log.frame(8);
  peer.sendClose(1000);
  peer.end();
  await client.ended();
  expect(client.log.closes).toMatchObject([{ code: 1000 }]);
}

async function connectLight(): Promise<RawClient> {
  const client = new RawClient(gateway.port);
  expect(await client.answered()).toBe(101);
  return client;
}

/** Until the gateway reads no more from the upstream. */
async function flood(peer: UpstreamPeer): Promise<void> {
  const payload = Buffer.alloc(60_000, 9);
  while (peer.socket.writableLength < 4 * 2 ** 20) {
    for (let i = 0; i < 32; i += 1) peer.send({ opcode: 2, payload });
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Answers every ping, as a library does. */
function answerPings(end: RawClient | UpstreamPeer): void {
  let answered = 0;
  end.socket.on("data", () => {
    const pings = end.log.frames.filter(({ opcode }) => opcode === 9);
    for (const { payload } of pings.slice(answered)) end.send({ opcode: 10, payload });
    answered = pings.length;
  });
}

describe("limits.maxMessageSize", () => {
  const yaml = "limits: { maxMessageSize: 1000 }\n";

  it("lets a message of exactly that size pass, both ways, whole and in fragments", async () => {
    const ends = await open(yaml);
    const { client, peer } = ends;
    client.send({ opcode: 2, payload: Buffer.alloc(1000, 1) });
    peer.send({ opcode: 2, payload: Buffer.alloc(1000, 2) });
    for (const end of [client, peer]) {
      end.send({ opcode: 2, fin: false, payload: Buffer.alloc(600, 3) });
      // A control frame between them is no part of the message.
      end.send({ opcode: 9, payload: Buffer.alloc(125) });
      end.send({ opcode: 0, fin: true, payload: Buffer.alloc(400, 3) });
    }
    expect((await peer.log.received(2)).map(({ length }) => length)).toEqual([1000, 1000]);
    expect((await client.log.received(2)).map(({ length }) => length)).toEqual([1000, 1000]);
    await closeCleanly(ends);
  });

  it("closes both with 1009 and 1001 when the client sends one byte more", async () => {
    const ends = await open(yaml);
    ends.client.send({ opcode: 2, payload: Buffer.alloc(1001) });
    const record = await closedWith(ends, 1009, 1001);
    expect(record).toMatchObject({ cause: "messageTooBig" });
    expect(ends.peer.log.messages).toEqual([]);
  });

  it("closes both with 1009 when the upstream sends one byte more", async () => {
    const ends = await open(yaml);
    ends.peer.send({ opcode: 2, payload: Buffer.alloc(1001) });
    const record = await closedWith(ends, 1009, 1009);
    expect(record).toMatchObject({ cause: "messageTooBig" });
    expect(ends.client.log.messages).toEqual([]);
  });

  it.each(["client", "peer"] as const)(
    "counts all fragments of a message together, from the %s",
    async (side) => {
      const ends = await open(yaml);
      ends[side].send({ opcode: 2, fin: false, payload: Buffer.alloc(600) });
      ends[side].send({ opcode: 0, fin: false, payload: Buffer.alloc(400) });
      ends[side].send({ opcode: 0, fin: true, payload: Buffer.alloc(1) });
      const record = await closedWith(ends, 1009, side === "client" ? 1001 : 1009);
      expect(record).toMatchObject({ cause: "messageTooBig" });
    },
  );

  it("begins anew with each message", async () => {
    const ends = await open(yaml);
    for (let i = 0; i < 5; i += 1) ends.client.send({ opcode: 2, payload: Buffer.alloc(900) });
    expect(await ends.peer.log.received(5)).toHaveLength(5);
    await closeCleanly(ends);
  });

  it("judges a long message by its header, before its payload has come", async () => {
    const ends = await open(yaml);
    ends.client.socket.write(Buffer.from([0x82, 0xff, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4]));
    expect(await closedWith(ends, 1009, 1001)).toMatchObject({ cause: "messageTooBig" });
  });

  it("of 0 sets no limit", async () => {
    const ends = await open("limits: { maxMessageSize: 0 }\n");
    ends.client.send({ opcode: 2, payload: Buffer.alloc(17 * 2 ** 20, 7) });
    const [message] = await ends.peer.log.received(1);
    expect(message?.length).toBe(17 * 2 ** 20);
    await closeCleanly(ends);
  });
});

describe("limits.messageRate", () => {
  it("lets a burst pass and closes with 1008 at the message above it", async () => {
    const ends = await open("limits: { messageRate: 0.01, messageBurst: 5 }\n");
    for (let i = 0; i < 6; i += 1) ends.client.sendText(`message ${i}`);
    const record = await closedWith(ends, 1008, 1001);
    expect(record).toMatchObject({ cause: "rateLimited", messages: { clientToUpstream: 5 } });
    expect(ends.peer.log.messages).toHaveLength(5);
  });

  it("counts messages, not fragments and not control frames", async () => {
    const ends = await open("limits: { messageRate: 0.01, messageBurst: 2 }\n");
    for (let i = 0; i < 2; i += 1) {
      ends.client.send({ opcode: 1, fin: false, payload: "a" });
      for (let j = 0; j < 10; j += 1) {
        ends.client.send({ opcode: 0, fin: false, payload: "b" });
        ends.client.send({ opcode: 9, payload: "still here" });
      }
      ends.client.send({ opcode: 0, payload: "c" });
    }
    expect(await ends.peer.log.received(2)).toHaveLength(2);
    await closeCleanly(ends);
  });

  it("without messageBurst allows as many at once as in a second", async () => {
    const ends = await open("limits: { messageRate: 3 }\n");
    // In one segment, so that no time passes that would earn another.
    const frame = Buffer.from([0x81, 0x80, 1, 2, 3, 4]);
    ends.client.socket.write(Buffer.concat(Array.from({ length: 4 }, () => frame)));
    const record = await closedWith(ends, 1008, 1001);
    expect(record).toMatchObject({ messages: { clientToUpstream: 3 } });
  });

  it("does not judge what the upstream sends", async () => {
    const ends = await open("limits: { messageRate: 0.01, messageBurst: 1 }\n");
    for (let i = 0; i < 50; i += 1) ends.peer.sendText("news");
    expect(await ends.client.log.received(50)).toHaveLength(50);
    await closeCleanly(ends);
  });
});

describe("limits.idleTimeout", () => {
  it("closes a session over which nothing goes with 1001, heartbeats or not", async () => {
    const ends = await open(
      `limits: { idleTimeout: 600ms }
heartbeat: { client: { interval: 100ms }, upstream: { interval: 100ms } }
`,
    );
    answerPings(ends.client);
    answerPings(ends.peer);
    const record = await closedWith(ends, 1001, 1001);
    expect(record).toMatchObject({ cause: "idle", client: { sent: 1001 } });
    expect(ends.client.log.closes).toMatchObject([{ reason: "idle for too long" }]);
    expect(ends.client.log.frames.filter(({ opcode }) => opcode === 9).length).toBeGreaterThan(1);
    expect(record?.durationMs).toBeGreaterThanOrEqual(600);
  });

  it("is put off by what is relayed, pings between the ends included", async () => {
    const ends = await open("limits: { idleTimeout: 400ms }\n");
    for (let i = 1; i <= 8; i += 1) {
      if (i % 2 === 0) ends.client.send({ opcode: 9, payload: `${i}` });
      else ends.peer.send({ opcode: 9, payload: `${i}` });
      const other = i % 2 === 0 ? ends.peer : ends.client;
      await eventually(() => {
        const { frames } = other.log;
        expect(frames.filter(({ payload }) => payload.toString() === `${i}`)).toHaveLength(1);
      });
      await eventually(() => expect(gateway.gateway.sessions(1)[0]?.idleMs).toBeGreaterThan(120));
    }
    const [session] = gateway.gateway.sessions(1);
    expect(session?.ageMs).toBeGreaterThan(800);
    await closedWith(ends, 1001, 1001);
  });
});

describe("limits.maxConnectionAge", () => {
  it("closes sessions with 1012 in the last tenth of that age, not all at once", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], "limits: { maxConnectionAge: 1s }\n"));
    const all = await Promise.all(Array.from({ length: 30 }, () => connectLight()));
    for (const client of all) {
      await eventually(() => expect(client.log.closes).toMatchObject([{ code: 1012 }]));
      client.sendClose(1012);
    }
    for (const peer of upstream.peers) {
      expect((await peer.log.frame(8)).payload.readUInt16BE()).toBe(1001);
      peer.sendClose(1001);
      peer.end();
    }
    const records = await gateway.recorded(30);
    expect(new Set(records.map(({ cause }) => cause))).toEqual(new Set(["maxAge"]));
    const ages = records.map(({ durationMs }) => durationMs);
    expect(Math.min(...ages)).toBeGreaterThanOrEqual(900);
    expect(Math.max(...ages) - Math.min(...ages)).toBeGreaterThan(10);
  });
});

describe("limits.slowConsumerTimeout", () => {
  const yaml = `limits: { slowConsumerTimeout: 500ms, maxMessageSize: 64MiB }
close: { timeout: 600ms }
`;

  it("closes a client that takes nothing, then destroys it", async () => {
    const { client, peer } = await open(yaml);
    client.socket.pause();
    await flood(peer);
    const close = await peer.log.frame(8);
    expect(close.payload).toEqual(closePayload(1001, "client takes data too slowly"));
    peer.socket.destroy();
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "slowConsumer", client: { sent: 1008, received: null } });
    client.socket.resume();
    await client.ended();
  });

  it("closes it with 1008 behind all that was sent, if it takes that after all", async () => {
    const { client, peer } = await open(yaml);
    client.socket.pause();
    await flood(peer);
    await peer.log.frame(8);
    client.socket.resume();
    await client.ended();
    expect(client.log.closes).toEqual([{ code: 1008, reason: "takes data too slowly" }]);
    expect(client.log.torn).toHaveLength(0);
    expect(client.log.frames.at(-1)?.opcode).toBe(8);
    peer.socket.destroy();
  });

  it("lets a client stay that takes slowly", async () => {
    const { client, peer } = await open(yaml);
    // All the time less than what waits: the upstream is stopped again and again.
    const sending = setInterval(() => {
      if (peer.socket.writableLength < 2 ** 20) {
        for (let i = 0; i < 32; i += 1) {
          peer.send({ opcode: 2, payload: Buffer.alloc(60_000, 9) });
        }
      }
    }, 5);
    let taken = 0;
    client.socket.removeAllListeners("data");
    client.socket.on("data", (chunk: Buffer) => {
      taken += chunk.length;
      client.socket.pause();
      setTimeout(() => client.socket.resume(), 1);
    });
    await eventually(() => {
      expect(gateway.gateway.sessions(1)[0]?.ageMs).toBeGreaterThan(2_000);
    });
    clearInterval(sending);
    expect(taken).toBeGreaterThan(0);
    expect(gateway.records).toEqual([]);
    client.socket.destroy();
    await peer.log.frame(8);
    peer.socket.destroy();
    await gateway.recorded();
    expect(gateway.records).toMatchObject([{ cause: "clientLost" }]);
  });
});

describe("limits.handshakeTimeout", () => {
  it.each([
    { what: "says nothing", bytes: "" },
    { what: "stops in the middle of its request", bytes: "GET / HTTP/1.1\r\nHost: a\r\nUpgr" },
  ])("ends a connection that $what", async ({ bytes }) => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], "limits: { handshakeTimeout: 300ms }\n"));
    const socket = connect({ host: "127.0.0.1", port: gateway.port });
    const ended = new Promise((resolve) => socket.on("close", resolve));
    socket.on("error", () => undefined);
    socket.resume();
    if (bytes !== "") socket.write(bytes);
    await ended;
    expect(upstream.peers).toEqual([]);
  });

  it("bounds the dialling, too, where a route sets it", async () => {
    upstream = await RawUpstream.start(() => undefined);
    gateway = await startGateway(
      `routes: [{ name: all, pool: main, limits: { handshakeTimeout: 300ms } }]
pools: { main: { backends: [{ url: "${upstream.url}" }] } }
`,
    );
    const client = new RawClient(gateway.port);
    await eventually(() => expect(client.log.closes).toMatchObject([{ code: 1013 }]));
    client.sendClose(1013);
    await client.ended();
    expect(await gateway.recorded()).toMatchObject([{ cause: "upstreamUnreachable" }]);
  });
});
