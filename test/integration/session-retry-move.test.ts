/** A session that leaves its backend, or is told its start again, while either side goes on talking. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { buildFrame } from "../support/frames.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";
import { answersPings, RetrySetting, SLOW_BACKOFF, texts } from "../support/retry-setting.ts";

const silent: Behaviour = (peer) => peer.accept();
/** Takes its time. */
const slow: Behaviour = (peer) => setTimeout(() => peer.answersClose().accept(), 300);

let retry: RetrySetting;

beforeEach(() => {
  retry = new RetrySetting();
});

afterEach(() => retry.stop());

/** The session's upstream, after it was told that it is left. */
async function left(): Promise<UpstreamPeer> {
  const old = await retry.serving();
  retry.gateway.gateway.drainBackend(`ws://127.0.0.1:${old.socket.localPort}`);
  await eventually(() => expect(old.log.frames.map(({ opcode }) => opcode)).toContain(8));
  return old;
}

/** The upstream that the session has gone on to. */
function after(old: UpstreamPeer): Promise<UpstreamPeer> {
  return eventually(() => {
    const peer = retry.handshakes.find((one) => one !== old);
    if (peer === undefined) throw new Error("no next one");
    return peer;
  });
}

describe("An upstream that is being left", () => {
  it.each<[string, (peer: UpstreamPeer) => void]>([
    ["ends TCP", (peer) => peer.end()],
    ["breaks", (peer) => peer.reset()],
    ["closes", (peer) => peer.sendClose(1001)],
  ])("and %s inside a message ends the session between two frames", async (_title, end) => {
    const started = await retry.start({ backends: [silent, silent] });
    const client = await retry.open();
    const old = await left();
    old.send({ opcode: 1, fin: false, payload: "first half" });
    await eventually(() => expect(client.raw.log.frames).toHaveLength(1));
    end(old);
    const { closes, tcp, tornBytes } = await client.ended();
    const close = { code: 1014, reason: "mid-message" };
    expect([closes, tcp, tornBytes]).toEqual([[close], "fin", 0]);
    old.end();
    const detail = expect.stringMatching(/^mid-message/);
    expect(await started.recorded()).toMatchObject([{ cause: "upstreamLost", resumes: 0, detail }]);
  });

  it("may take its time over a message as long as it goes on", async () => {
    await retry.start({ backends: [silent, silent], more: "close: { timeout: 300ms }" });
    const client = await retry.open();
    const old = await left();
    for (let piece = 0; piece < 10; piece += 1) {
      old.send({ opcode: piece === 0 ? 1 : 0, fin: piece === 9, payload: `${piece}` });
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    await eventually(() => expect(texts(client.raw.log.messages)).toEqual(["0123456789"]));
    old.answersClose();
    const next = await after(old);
    next.answersClose().sendText("from the next");
    await eventually(() => expect(client.raw.log.messages).toHaveLength(2));
    await retry.leave(client);
  });

  it("is left by a client of which every read ends inside a message, too", async () => {
    const started = await retry.start({ session: "timeout: 10s" });
    const client = await retry.open();
    const old = await retry.serving();
    const payload = Buffer.alloc(70_000, 1);
    const frame = buildFrame({ opcode: 2, mask: Buffer.from([1, 2, 3, 4]), payload });
    const half = 45_000;
    const seam = Buffer.concat([frame.subarray(half), frame.subarray(0, half)]);
    client.raw.socket.write(frame.subarray(0, half));
    const sending = setInterval(() => client.raw.socket.write(seam), 20);
    await eventually(() => expect(old.log.messages.length).toBeGreaterThan(3));
    started.gateway.drainBackend(`ws://127.0.0.1:${old.socket.localPort}`);
    const next = await after(old);
    try {
      await eventually(() => expect(next.log.messages.length).toBeGreaterThan(3), 3_000);
    } finally {
      clearInterval(sending);
    }
    client.raw.socket.write(frame.subarray(half));
    for (const peer of [old, next]) {
      for (const message of peer.log.messages) expect(message.equals(payload)).toBe(true);
    }
    await retry.leave(client);
    expect(started.records).toMatchObject([{ cause: "clientClosed", resumes: 1 }]);
  });

  it("has read what it was sent only if it answers a ping: its Close may have crossed that", async () => {
    const started = await retry.start({
      backends: [silent, silent],
      session: "resend: unconfirmed",
    });
    const client = await retry.open();
    const old = await retry.serving();
    old.socket.pause();
    client.sendText("one");
    await eventually(() =>
      expect(started.gateway.sessions(1)[0]?.messages.clientToUpstream).toBe(1),
    );
    started.gateway.drainBackend(`ws://127.0.0.1:${old.socket.localPort}`);
    await eventually(() => expect(started.gateway.sessions(1)[0]?.state).toBe("moving"));
    old.sendClose(1001);
    const next = await after(old);
    await eventually(() => expect(texts(next.log.messages)).toEqual(["one"]));
    next.answersClose();
    old.socket.destroy();
    await retry.leave(client);
  });

  it("gets no message twice that it has confirmed with its last pong", async () => {
    const started = await retry.start({
      backends: [answersPings, answersPings],
      session: "resend: unconfirmed",
    });
    const client = await retry.open();
    const old = await retry.serving();
    client.sendText("one");
    await eventually(() => expect(texts(old.log.messages)).toEqual(["one"]));
    started.gateway.drainBackend(`ws://127.0.0.1:${old.socket.localPort}`);
    const next = await after(old);
    client.sendText("two");
    await eventually(() => expect(texts(next.log.messages)).toContain("two"));
    expect(texts(next.log.messages)).toEqual(["two"]);
    await retry.leave(client);
  });
});

describe("A drained backend that goes before its sessions have left it", () => {
  async function leaving(): Promise<UpstreamPeer> {
    const started = await retry.start({ backends: [silent], session: "on: [drained]" });
    const next = await RawUpstream.start(slow);
    retry.upstreams.push(next);
    const [first] = retry.upstreams;
    const urls = [first?.url, next.url].map((url) => `{ url: "${url}" }`).join(", ");
    const client = await retry.open();
    clients.push(client);
    const old = await retry.serving();
    await started.reload(`
routes: [{ name: all, pool: main }]
pools: { main: { backends: [${urls}] } }
retry: { session: { enabled: true, on: [drained] } }
`);
    started.gateway.drainBackend(`ws://127.0.0.1:${old.socket.localPort}`);
    await eventually(() => expect(next.peers).toHaveLength(1));
    return old;
  }

  let clients: PoliteRawClient[] = [];

  afterEach(() => {
    clients = [];
  });

  it.each<[string, (peer: UpstreamPeer) => void]>([
    ["a Close 1001", (peer) => peer.sendClose(1001)],
    ["a Close 1012", (peer) => peer.sendClose(1012)],
    ["a reset", (peer) => peer.reset()],
  ])("with %s is replaced as if it were only left", async (_title, go) => {
    const old = await leaving();
    go(old);
    const [client] = clients;
    client?.sendText("still here");
    const next = await after(old);
    await eventually(() => expect(texts(next.log.messages)).toEqual(["still here"]));
    old.end();
    if (client !== undefined) await retry.leave(client);
  });

  it("has the last word where it speaks to the client", async () => {
    const old = await leaving();
    old.sendClose(4001, "kicked");
    expect(await clients[0]?.ended()).toMatchObject({ closes: [{ code: 4001, reason: "kicked" }] });
    old.end();
    await retry.gateway.recorded();
  });
});

describe("A client that is lost while it waits", () => {
  it("has in its record how", async () => {
    const started = await retry.start({ backends: [answersPings], backoff: SLOW_BACKOFF });
    const client = await retry.open();
    (await retry.serving()).reset();
    await retry.waiting();
    client.raw.socket.end();
    const detail = "connection ended without a Close";
    expect(await started.recorded()).toMatchObject([{ cause: "clientLost", detail }]);
  });
});

describe("A replay", () => {
  it("goes on with one of the first messages that the client sends meanwhile", async () => {
    const started = await retry.start({ session: "replay: { first: 2, swallow: 1 }" });
    const client = await retry.open();
    const first = await retry.serving();
    client.sendText("init");
    await eventually(() => expect(texts(first.log.messages)).toEqual(["init"]));
    first.sendText("ack");
    await eventually(() => expect(texts(client.raw.log.messages)).toEqual(["ack"]));
    first.reset();
    const next = await retry.serving(2);
    await eventually(() => expect(texts(next.log.messages)).toEqual(["init"]));
    client.sendText("subscribe");
    client.sendText("third");
    await eventually(() => expect(started.gateway.sessions(1)[0]?.bytes.clientToUpstream).toBe(36));
    next.sendText("ack");
    await eventually(() =>
      expect(texts(next.log.messages)).toEqual(["init", "subscribe", "third"]),
    );
    expect(texts(client.raw.log.messages)).toEqual(["ack"]);
    await retry.leave(client);
  });
});
