/** Session retry at its limits: a death inside a message, a client that goes on sending, caps, deaths in a row. */
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { buildFrame, type FrameSpec } from "../support/frames.ts";
import type { Behaviour, UpstreamPeer } from "../support/raw-upstream.ts";
import { answersPings, RetrySetting, texts } from "../support/retry-setting.ts";

const MASK = Buffer.from([9, 8, 7, 6]);

let retry: RetrySetting;

beforeEach(() => {
  retry = new RetrySetting();
});

afterEach(() => retry.stop());

describe("A death inside a message towards the client", () => {
  it.each<[string, FrameSpec]>([
    ["a fragmented one", { opcode: 1, fin: false, payload: "first half" }],
    [
      "a long frame of which a part has been passed on",
      { opcode: 2, payload: Buffer.alloc(100_000), announcedLength: 200_000 },
    ],
  ])("closes between frames and never resumes: %s", async (_title, frame) => {
    const started = await retry.start();
    const client = await retry.open();
    const peer = await retry.serving();
    peer.send(frame);
    await eventually(() => expect(client.log.frames.length).toBeGreaterThan(0));
    peer.reset();
    const ending = await client.ended();
    expect(ending).toMatchObject({ closes: [{ code: 1014, reason: "mid-message" }], tornBytes: 0 });
    const [record] = await started.recorded();
    // The operator reads both: how the loss showed, and why it was not made good.
    const detail = expect.stringMatching(/^mid-message: (?:ECONNRESET|connection ended)/);
    expect(record).toMatchObject({ cause: "upstreamLost", detail, resumes: 0, dials: 1 });
    expect(retry.handshakes).toHaveLength(1);
  });

  it("says so as well where the upstream has fallen silent", async () => {
    const heartbeat = "heartbeat: { upstream: { interval: 100ms, timeout: 300ms } }";
    const started = await retry.start({ more: `${heartbeat}\nclose: { timeout: 200ms }` });
    const client = await retry.open();
    (await retry.serving()).send({ opcode: 1, fin: false, payload: "first half" });
    const { closes } = await client.ended();
    expect(closes).toEqual([{ code: 1014, reason: "mid-message" }]);
    const [record] = await started.recorded();
    expect(record).toMatchObject({ cause: "upstreamUnresponsive", detail: "mid-message" });
  });

  it("resumes where the torn frame had not reached the client at all", async () => {
    await retry.start();
    const client = await retry.open();
    const first = await retry.serving();
    const frame = buildFrame({ opcode: 1, payload: "never whole" });
    first.socket.write(frame.subarray(0, 7));
    first.sendText("");
    first.end();
    const second = await retry.serving(2);
    second.sendText("whole");
    expect(texts(await client.log.received(1))).toEqual(["whole"]);
    await retry.leave(client);
  });
});

describe("A death inside a message of the client", () => {
  /** 300 KiB in frames of 10,000 bytes: less than half of it before the death. */
  const payload = randomBytes(300 * 1024);
  function send(client: PoliteRawClient, from: number, to: number): void {
    const PIECE = 10_000;
    for (let at = from; at < to; at += PIECE) {
      const piece = payload.subarray(at, Math.min(at + PIECE, to));
      client.raw.send({
        opcode: at === 0 ? 2 : 0,
        fin: to === at + piece.length && to === payload.length,
        payload: piece,
      });
    }
  }

  it("is resumed where the buffer holds it: it arrives whole, once", async () => {
    await retry.start({ session: "buffer: 512KiB" });
    const client = await retry.open();
    const first = await retry.serving();
    client.sendText("before");
    send(client, 0, 120_000);
    await eventually(() => expect(first.log.frames.length).toBeGreaterThanOrEqual(13));
    first.reset();
    const second = await retry.serving(2);
    send(client, 120_000, payload.length);
    client.sendText("after");
    const [whole, after] = await second.log.received(2);
    expect(whole?.equals(payload)).toBe(true);
    expect(after?.toString()).toBe("after");
    expect(second.log.messages).toHaveLength(2);
    await retry.leave(client);
  });

  it("is resumed in one long frame, too", async () => {
    await retry.start({ session: "buffer: 512KiB" });
    const client = await retry.open();
    const first = await retry.serving();
    const frame = buildFrame({ opcode: 2, mask: MASK, payload });
    client.raw.socket.write(frame.subarray(0, 150_000));
    await eventually(() => expect(first.log.frames.length).toBeGreaterThan(0));
    first.reset();
    const second = await retry.serving(2);
    client.raw.socket.write(frame.subarray(150_000));
    const [whole] = await second.log.received(1);
    expect(whole?.equals(payload)).toBe(true);
    await retry.leave(client);
  });

  it.each([
    ["of many frames", false],
    ["of one long frame", true],
  ])("closes with reason buffer where it has outgrown the buffer: %s", async (_title, inOne) => {
    await retry.start({ session: "buffer: 64KiB" });
    const client = await retry.open();
    const first = await retry.serving();
    if (inOne) {
      client.raw.socket.write(buildFrame({ opcode: 2, mask: MASK, payload }).subarray(0, 250_000));
    } else {
      send(client, 0, 250_000);
    }
    await eventually(() => {
      const bytes = first.log.frames.reduce((sum, frame) => sum + frame.payload.length, 0);
      expect(bytes).toBeGreaterThan(200_000);
    });
    first.reset();
    await client.log.frame(8);
    expect(client.log.closes).toEqual([{ code: 1014, reason: "buffer" }]);
    // Its answer would lie inside its own frame.
    client.raw.socket.end();
    expect((await retry.gateway.recorded())[0]).toMatchObject({
      cause: "upstreamLost",
      resumes: 0,
    });
  });

  it.each(["none", "unconfirmed"])(
    "can be resumed again once the message that outgrew the buffer has ended: resend %s",
    async (resend) => {
      await retry.start({
        session: `buffer: 64KiB, resend: ${resend}`,
        backends: [answersPings, answersPings],
      });
      const client = await retry.open();
      const first = await retry.serving();
      send(client, 0, payload.length);
      client.sendText("small");
      const [whole] = await first.log.received(2);
      expect(whole?.equals(payload)).toBe(true);
      // The pong to a ping behind both confirms them.
      await eventually(() => {
        const last = first.log.frames.findLastIndex(({ opcode }) => opcode === 1);
        const confirming = first.log.frames.slice(last).some(({ opcode }) => opcode === 9);
        expect(confirming || resend === "none").toBe(true);
      });
      first.sendText("seen");
      await client.log.received(1);
      first.reset();
      const second = await retry.serving(2);
      client.sendText("next");
      expect(texts(await second.log.received(1))).toEqual(["next"]);
      await retry.leave(client);
    },
  );
});

describe("A client that goes on sending in the gap", () => {
  const SIZE = 16 * 1024;
  const COUNT = 1280;

  it.each(["none", "unconfirmed"])(
    "is paused at about the buffer, and all of it arrives in order: resend %s",
    async (resend) => {
      let mayAccept = false;
      const held: UpstreamPeer[] = [];
      await retry.start({
        session: `buffer: 256KiB, resend: ${resend}`,
        backends: [
          (peer) => {
            if (mayAccept || retry.upstreams[0]?.peers.length === 1) answersPings(peer);
            else held.push(peer);
          },
        ],
      });
      const client = await retry.open();
      (await retry.serving()).reset();
      await eventually(() => expect(held).toHaveLength(1));
      for (let i = 0; i < COUNT; i += 1) {
        const payload = Buffer.alloc(SIZE, i & 255);
        payload.writeUInt32BE(i);
        client.raw.send({ opcode: 2, payload });
      }
      const taken = await settled(
        () => retry.gateway.gateway.sessions(1)[0]?.bytes.clientToUpstream ?? 0,
      );
      expect(taken).toBeGreaterThanOrEqual(256 * 1024);
      expect(taken).toBeLessThan(256 * 1024 + 2 * 64 * 1024);
      mayAccept = true;
      for (const peer of held) answersPings(peer);
      const second = await retry.serving(2);
      const messages = await eventually(() => {
        expect(numbered(second)).toBe(COUNT);
        return second.log.messages;
      }, 20_000);
      expect(messages.every((message, i) => message.readUInt32BE(0) === i)).toBe(true);
      expect(messages.every(({ length }) => length === SIZE)).toBe(true);
      await retry.leave(client);
    },
    30_000,
  );
});

const numbered = (peer: UpstreamPeer): number =>
  peer.log.frames.filter(({ opcode, fin }) => opcode < 8 && fin).length;

/** The value once it has not changed for a while. */
async function settled(read: () => number): Promise<number> {
  let last = Number.NaN;
  let since = 0;
  return await eventually(() => {
    const now = read();
    since = now === last ? since + 1 : 0;
    last = now;
    expect(since).toBeGreaterThan(40);
    return now;
  });
}

describe("Caps", () => {
  it("a full backend is no candidate, and the cap holds for those who resume", async () => {
    const started = await retry.start({
      perBackend: ", maxConnections: 2",
      session: "timeout: 20s, attempts: 100",
    });
    const clients = await Promise.all([retry.open(), retry.open(), retry.open(), retry.open()]);
    await eventually(() => expect(retry.handshakes).toHaveLength(4));
    const [first, second] = retry.upstreams;
    let most = 0;
    const watch = setInterval(() => {
      for (const { backends } of started.gateway.status().pools) {
        for (const { connections } of backends) most = Math.max(most, connections);
      }
    }, 1);
    for (const peer of first?.peers ?? []) peer.reset();
    // Only the first has room, as its own slots are free again.
    await eventually(() => expect(first?.peers.length).toBe(4));
    expect(second?.peers).toHaveLength(2);
    await eventually(() => expect(started.slots).toBe(4));
    clearInterval(watch);
    expect(most).toBe(2);
    for (const client of clients) client.sendClose(1000);
    await started.recorded(4);
  });

  it("gives up with 1013 where every backend stays full", async () => {
    const started = await retry.start({
      perBackend: ", maxConnections: 1",
      session: "timeout: 400ms, attempts: 100",
    });
    const clients = [await retry.open(), await retry.open()];
    await eventually(() => expect(retry.handshakes).toHaveLength(2));
    const lost = retry.upstreams[0];
    const peer = lost?.peers[0];
    await lost?.stop();
    const [record] = await started.recorded();
    expect(peer).toBeDefined();
    expect(record).toMatchObject({ cause: "retryExhausted" });
    expect(retry.upstreams[1]?.peers).toHaveLength(1);
    await eventually(() => {
      expect(clients.flatMap(({ log }) => log.closes)).toMatchObject([{ code: 1013 }]);
    });
    for (const client of clients) client.sendClose(1000);
    await started.recorded(2);
  });
});

const diesAfterTheFirst: Behaviour = (peer) => {
  peer.accept();
  if (retry.handshakes.length > 1) peer.end();
};

describe("Backends that accept and die at once", () => {
  it.each([1, 2, 3])("are not dialled in a tight loop: %i of them", async (count) => {
    const started = await retry.start({
      backends: Array.from({ length: count }, () => diesAfterTheFirst),
      session: "attempts: 6, timeout: 20s",
      backoff: "backoff: { initial: 100ms, max: 400ms, jitter: 0 }",
    });
    const client = await retry.open();
    const before = performance.now();
    (await retry.serving()).reset();
    expect(await client.ended()).toMatchObject({ closes: [{ code: 1013 }] });
    // 100 + 200 + 400 + 400 + 400 ms between six dials; one may have come at once.
    expect(performance.now() - before).toBeGreaterThan(1_000);
    expect((await started.recorded())[0]).toMatchObject({ cause: "retryExhausted", dials: 7 });
  });
});

it("an upstream that answers no ping is left when the client waits for one, heartbeat or not", async () => {
  const started = await retry.start({
    backends: [answersPings, answersPings],
    session: "resend: unconfirmed, buffer: 1KiB, timeout: 300ms",
    more: "heartbeat: { upstream: { interval: 0s } }",
  });
  const client = await retry.open();
  const first = await retry.serving();
  // From here on it sends now and then, and answers nothing.
  first.socket.removeAllListeners("data");
  first.socket.resume();
  const chatter = setInterval(() => first.sendText("still here"), 50);
  const messages = Array.from({ length: 20 }, (_, number) => `${number}`.padEnd(100, "."));
  for (const message of messages) client.sendText(message);
  const second = await retry.serving(2);
  clearInterval(chatter);
  expect(texts(await second.log.received(20))).toEqual(messages);
  await retry.leave(client);
  expect((await started.recorded())[0]).toMatchObject({ cause: "clientClosed", resumes: 1 });
});
