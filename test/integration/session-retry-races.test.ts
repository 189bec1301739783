/** Session retry where two things happen at once, where bytes come one by one, and where a client is behind. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { buildFrame, closePayload } from "../support/frames.ts";
import type { Behaviour, UpstreamPeer } from "../support/raw-upstream.ts";
import { accepts, answersPings, RetrySetting, texts } from "../support/retry-setting.ts";

const MASK = Buffer.from([9, 8, 7, 6]);

let retry: RetrySetting;

beforeEach(() => {
  retry = new RetrySetting();
});

afterEach(() => retry.stop());

/** Sends bytes one at a time, each in a segment of its own. */
async function trickle(client: PoliteRawClient, bytes: Buffer): Promise<void> {
  for (const byte of bytes) {
    client.raw.socket.write(Buffer.from([byte]));
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("A client's Close and the loss of its upstream in one moment", () => {
  const SESSIONS = 20;
  it.each<[string, (peer: UpstreamPeer) => void]>([
    ["reset", (peer) => peer.reset()],
    ["end of TCP", (peer) => peer.end()],
    ["Close with 1012", (peer) => peer.sendClose(1012)],
  ])("gives each client the echo of its own, and one record: %s", async (_title, lose) => {
    const started = await retry.start();
    const clients = await Promise.all(Array.from({ length: SESSIONS }, () => retry.open()));
    await eventually(() => expect(retry.handshakes).toHaveLength(SESSIONS));
    const peers = retry.handshakes;
    for (const [index, client] of clients.entries()) {
      const say = (): void => client.sendClose(4001, "mine");
      // Who is first changes from one to the next; nothing waits in between.
      if (index % 2 === 0) say();
      for (const peer of peers.splice(0, 1)) lose(peer);
      if (index % 2 === 1) say();
    }
    for (const client of clients) {
      const { closes, tcp, tornBytes } = await client.ended();
      expect([closes, tcp, tornBytes]).toEqual([[{ code: 4001, reason: "mine" }], "fin", 0]);
    }
    const records = await started.recorded(SESSIONS);
    expect(records.map(({ cause }) => cause)).toEqual(clients.map(() => "clientClosed"));
  });
});

describe("Bytes that come one by one", () => {
  const MESSAGES = ["a", "", "bc".repeat(30), "d".repeat(130), "e", "f".repeat(20)];
  const CLIENTS = 12;

  it("are whole messages to the next upstream wherever the loss has cut them", async () => {
    const started = await retry.start({
      backends: [answersPings, answersPings],
      session: "resend: unconfirmed",
    });
    const clients = await Promise.all(Array.from({ length: CLIENTS }, () => retry.open()));
    await eventually(() => expect(retry.handshakes).toHaveLength(CLIENTS));
    const stream = Buffer.concat(
      MESSAGES.map((payload) => buildFrame({ opcode: 1, mask: MASK, payload })),
    );
    const cuts = clients.map((_, index) => Math.floor(((index + 0.5) * stream.length) / CLIENTS));
    await Promise.all(clients.map((one, i) => trickle(one, stream.subarray(0, cuts[i]))));
    const lost = retry.handshakes;
    for (const peer of lost) peer.reset();
    await Promise.all(clients.map((one, i) => trickle(one, stream.subarray(cuts[i]))));
    await eventually(() => {
      const next = retry.handshakes.filter((peer) => !lost.includes(peer));
      expect(next).toHaveLength(CLIENTS);
      for (const peer of next) expect(peer.log.messages.at(-1)?.toString()).toBe(MESSAGES.at(-1));
    });
    for (const peer of retry.handshakes.filter((one) => !lost.includes(one))) {
      const id = peer.header("softclose-session");
      const before = lost.find((one) => one.header("softclose-session") === id);
      const [had, got] = [texts(before?.log.messages ?? []), texts(peer.log.messages)];
      // What comes again is the end of what went before, and nothing is missing.
      const from = MESSAGES.length - got.length;
      expect(got).toEqual(MESSAGES.slice(from));
      expect(had).toEqual(MESSAGES.slice(0, had.length));
      expect(from).toBeLessThanOrEqual(had.length);
    }
    for (const client of clients) client.sendClose(1000);
    await started.recorded(CLIENTS);
  });
});

describe("A next upstream that ends with its 101", () => {
  const FIRST: Behaviour = accepts;
  it.each<[string, Buffer, boolean]>([
    ["with a Close", buildFrame({ opcode: 8, payload: closePayload(1012) }), false],
    ["with half a frame", buildFrame({ opcode: 1, payload: "torn" }).subarray(0, 4), true],
    ["with nothing", Buffer.alloc(0), true],
  ])("is replaced in its turn: %s", async (_title, behind, ends) => {
    const sequence: Behaviour = (peer) => {
      if (retry.handshakes.length !== 2) {
        FIRST(peer);
        return;
      }
      peer.answersClose().accept({}, behind);
      if (ends) peer.end();
    };
    const started = await retry.start({ backends: [sequence, sequence] });
    const client = await retry.open();
    (await retry.serving()).reset();
    const third = await retry.serving(3);
    client.sendText("here");
    expect(texts(await third.log.received(1))).toEqual(["here"]);
    third.sendText("there");
    expect(texts(await client.log.received(1))).toEqual(["there"]);
    await retry.leave(client);
    expect(started.records[0]).toMatchObject({ cause: "clientClosed", resumes: 2, dials: 3 });
  });

  it("or that breaks the protocol there ends the session", async () => {
    const sequence: Behaviour = (peer) => {
      const isBad = retry.handshakes.length === 2;
      peer.answersClose().accept({}, isBad ? buildFrame({ opcode: 3 }) : undefined);
    };
    const started = await retry.start({ backends: [sequence, sequence] });
    const client = await retry.open();
    (await retry.serving()).reset();
    expect(await client.ended()).toMatchObject({ closes: [{ code: 1014 }], tcp: "fin" });
    expect((await started.recorded())[0]).toMatchObject({
      cause: "upstreamProtocolError",
      resumes: 1,
    });
  });
});

describe("A client that is behind when its upstream is reset", () => {
  const SIZE = 16 * 1024;
  /** Far more than the kernel takes for both sides of loopback. */
  const COUNT = 1_280;
  const MORE = 64;

  function send(peer: UpstreamPeer, from: number, to: number): void {
    for (let number = from; number < to; number += 1) {
      const payload = Buffer.alloc(SIZE);
      payload.writeUInt32BE(number);
      peer.send({ opcode: 2, payload });
    }
  }

  it("gets what the gateway has taken, in order, and then all that the next one sends", async () => {
    const started = await retry.start({ session: "resend: unconfirmed" });
    const client = await retry.open();
    client.raw.socket.pause();
    const first = await retry.serving();
    send(first, 0, COUNT);
    const taken = (): number => started.gateway.sessions(1)[0]?.bytes.upstreamToClient ?? 0;
    let before = -1;
    let unchanged = 0;
    await eventually(() => {
      unchanged = taken() === before ? unchanged + 1 : 0;
      before = taken();
      expect(first.socket.writableLength).toBeGreaterThan(0);
      expect(unchanged).toBeGreaterThan(20);
    });
    first.reset();
    // The gateway does not read this upstream, so it does not know yet, not even by a write that fails:
    // only resend: unconfirmed keeps what the client says meanwhile for the next one.
    client.sendText("said in between");
    await eventually(() => {
      expect(started.gateway.sessions(1)[0]?.messages.clientToUpstream).toBe(1);
    });
    expect(started.gateway.sessions(1)[0]?.state).toBe("open");
    client.raw.socket.resume();
    const second = await retry.serving(2);
    send(second, COUNT, COUNT + MORE);
    expect(texts(await second.log.received(1))).toEqual(["said in between"]);
    const numbers = await eventually(() => {
      const whole = client.log.frames.filter(({ opcode }) => opcode < 8);
      expect(whole.at(-1)?.payload.readUInt32BE(0)).toBe(COUNT + MORE - 1);
      return whole.map(({ payload }) => payload.readUInt32BE(0));
    }, 15_000);
    const old = numbers.filter((number) => number < COUNT);
    expect(old).toEqual(old.map((_, index) => index));
    expect(old.length).toBeLessThan(COUNT);
    expect(numbers.slice(old.length)).toEqual(Array.from({ length: MORE }, (_, i) => COUNT + i));
    await retry.leave(client);
    expect(started.records[0]).toMatchObject({ cause: "clientClosed", resumes: 1 });
  });
});
