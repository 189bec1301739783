/** An upstream that dies inside a frame or a message: what reached the client is whole frames all the same. */
import { afterEach, describe, expect, it } from "vitest";
import { CLIENT_KINDS, oneClose, PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { buildFrame, type FrameSpec } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, titled } from "../support/outcome.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

const MIB = 1024 * 1024;
const WAYS_TO_DIE = [
  { title: "ends", die: (peer: UpstreamPeer) => peer.end() },
  { title: "resets", die: (peer: UpstreamPeer) => peer.reset() },
];

interface Row {
  readonly title: string;
  readonly whole: readonly FrameSpec[];
  readonly cut: Buffer;
}

function part(frame: FrameSpec, bytes: number): Buffer {
  return buildFrame(frame).subarray(0, bytes);
}

const held: readonly Row[] = [
  {
    title: "after the first byte of a header",
    whole: [],
    cut: part({ opcode: 1, payload: "hi" }, 1),
  },
  {
    title: "inside a small frame",
    whole: [{ opcode: 1, payload: "before" }],
    cut: part({ opcode: 1, payload: "hello world" }, 6),
  },
  {
    title: "inside a frame of 64 KiB",
    whole: [],
    cut: part({ opcode: 2, payload: Buffer.alloc(65_536) }, 60_000),
  },
  {
    title: "between the fragments of a message",
    whole: [{ opcode: 1, fin: false, payload: "begun " }],
    cut: Buffer.alloc(0),
  },
  {
    title: "inside a later fragment of a message",
    whole: [
      { opcode: 1, fin: false, payload: "begun " },
      { opcode: 0, fin: false, payload: "and gone on " },
    ],
    cut: part({ opcode: 0, payload: "to the end" }, 5),
  },
  {
    title: "inside a ping between two fragments",
    whole: [{ opcode: 2, fin: false, payload: "begun" }],
    cut: part({ opcode: 9, payload: "ping" }, 4),
  },
];

describe.each(CLIENT_KINDS)("with %s", (_name, open) => {
  describe.each(titled(WAYS_TO_DIE))("when the upstream %s", (_way, { die }) => {
    it.each(titled(held))("closes the client cleanly %s", async (_title, { whole, cut }) => {
      upstream = await RawUpstream.start();
      gateway = await startGateway(onePool([upstream.url]));
      const client = open(gateway.port);
      await client.opened();
      const peer = await upstream.peer();
      for (const frame of whole) peer.send(frame);
      peer.socket.write(cut, () => die(peer));
      expect(await client.ended()).toEqual(oneClose(1014, "upstream connection lost"));
      // Exactly the whole frames, then the Close.
      expect(client.log.frames.map(({ opcode, fin }) => [opcode, fin])).toEqual([
        ...whole.map(({ opcode, fin }) => [opcode, fin ?? true]),
        [8, true],
      ]);
      await expectOutcome(gateway, {
        cause: "upstreamLost",
        client: { sent: 1014, received: 1014 },
      });
    });

    it("closes the client between fragments inside a frame of 10 MiB", async () => {
      upstream = await RawUpstream.start();
      gateway = await startGateway(onePool([upstream.url]));
      const client = open(gateway.port);
      await client.opened();
      const peer = await upstream.peer();
      const payload = Buffer.alloc(10 * MIB, "0123456789abcdef");
      peer.socket.write(part({ opcode: 2, payload }, 4 * MIB));
      await eventually(() => expect(client.log.frames.length).toBeGreaterThan(10));
      die(peer);
      expect(await client.ended()).toEqual(oneClose(1014, "upstream connection lost"));
      const frames = client.log.frames.slice(0, -1);
      expect(frames.map(({ opcode, fin }) => opcode > 2 || fin)).not.toContain(true);
      expect(frames[0]?.opcode).toBe(2);
      const relayed = Buffer.concat(frames.map((frame) => frame.payload));
      expect(relayed.equals(payload.subarray(0, relayed.length))).toBe(true);
      const record = await expectOutcome(gateway, {
        cause: "upstreamLost",
        client: { sent: 1014, received: 1014 },
      });
      expect(record.messages.upstreamToClient).toBe(0);
    });
  });
});

describe("a slow client whose upstream dies", () => {
  it.each(
    titled([
      { title: "without a Close", end: (peer: UpstreamPeer) => peer.end(), code: 1014 },
      {
        title: "with a Close",
        end: (peer: UpstreamPeer) => {
          peer.sendClose(1011);
          peer.end();
        },
        code: 1011,
      },
    ]),
  )("gets all data and then the Close, however long that takes, %s", async (_title, row) => {
    upstream = await RawUpstream.start();
    // The client takes far longer than this for what lies before the Close.
    gateway = await startGateway(onePool([upstream.url], "close: { timeout: 50ms }\n"));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    const { socket } = client.raw;
    socket.pause();
    const message = { opcode: 2, payload: Buffer.alloc(MIB, "slow") };
    const count = 16;
    for (let i = 0; i < count; i += 1) peer.send(message);
    row.end(peer);
    // Reads a little, then nothing for several times close.timeout, until the Close is there.
    let reads = 0;
    socket.on("data", () => {
      reads += 1;
      if (reads % 60 !== 0) return;
      socket.pause();
      setTimeout(() => socket.resume(), 150);
    });
    socket.resume();
    const reason = row.code === 1014 ? "upstream connection lost" : "";
    expect(await client.ended()).toEqual(oneClose(row.code, reason));
    expect(client.log.messages).toHaveLength(count);
    expect(client.log.messages.every((data) => data.equals(message.payload))).toBe(true);
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({
      client: { sent: row.code },
      messages: { upstreamToClient: count },
    });
  });

  it("gets its Close even if it takes nothing for longer than close.timeout", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], "close: { timeout: 50ms }\n"));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.raw.socket.pause();
    // More than all buffers on the way hold: the gateway stops reading, and bytes wait for the client.
    const message = buildFrame({ opcode: 2, payload: Buffer.alloc(60_000, "slow") });
    for (let i = 0; i < 600; i += 1) peer.socket.write(message);
    let relayed = -1;
    await eventually(() => {
      const before = relayed;
      relayed = gateway.gateway.sessions(1)[0]?.messages.upstreamToClient ?? 0;
      expect(relayed).toBeGreaterThan(0);
      expect(relayed).toBe(before);
    });
    const [session] = gateway.gateway.sessions(1);
    gateway.gateway.closeSession(session?.session ?? "");
    // It does not answer its Close, so that its end says that close.timeout is over.
    await peer.ended();
    client.raw.socket.resume();
    expect(await client.ended()).toEqual(oneClose(1012, "closed by an administrator"));
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "adminClosed", client: { sent: 1012, received: 1012 } });
    expect(client.log.messages).toHaveLength(record?.messages.upstreamToClient ?? -1);
  });

  it("is destroyed when it takes nothing for limits.slowConsumerTimeout", async () => {
    upstream = await RawUpstream.start();
    const limits = "close: { timeout: 50ms }\nlimits: { slowConsumerTimeout: 200ms }\n";
    gateway = await startGateway(onePool([upstream.url], limits));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.raw.socket.pause();
    const message = buildFrame({ opcode: 2, payload: Buffer.alloc(60_000, "slow") });
    for (let i = 0; i < 600; i += 1) peer.socket.write(message);
    await expectOutcome(gateway, {
      cause: "slowConsumer",
      client: { sent: 1008, received: null },
      upstream: { sent: 1001, received: null },
    });
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client takes data too slowly" }]);
  });
});
