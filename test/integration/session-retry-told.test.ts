/** Which ends are retried, which upstreams may take over, and what those and the client are told. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { buildFrame } from "../support/frames.ts";
import { readSeries } from "../support/outcome.ts";
import type { Behaviour } from "../support/raw-upstream.ts";
import { accepts, answersPings, RetrySetting, texts } from "../support/retry-setting.ts";

let retry: RetrySetting;

beforeEach(() => {
  retry = new RetrySetting();
});

afterEach(() => retry.stop());

describe("What is retried", () => {
  it.each([1001, 1011, 4000])("a Close with %i passes through", async (code) => {
    await retry.start();
    const client = await retry.open();
    (await retry.serving()).sendClose(code, "why");
    const { closes } = await client.ended();
    expect(closes).toHaveLength(1);
    expect((await retry.gateway.recorded())[0]).toMatchObject({
      cause: "upstreamClosed",
      resumes: 0,
    });
  });

  it("a Close with 1012 is answered, and the session goes on elsewhere", async () => {
    await retry.start();
    const client = await retry.open();
    const first = await retry.serving();
    first.sendClose(1012, "restart");
    const second = await retry.serving(2);
    expect((await first.log.frame(8)).payload.readUInt16BE(0)).toBe(1012);
    first.end();
    second.sendText("here");
    expect(texts(await client.log.received(1))).toEqual(["here"]);
    await retry.leave(client);
    expect(retry.gateway.records[0]).toMatchObject({ cause: "clientClosed", resumes: 1 });
  });

  it("only the listed codes, and a loss only if it is listed", async () => {
    await retry.start({ session: "on: [4100]" });
    const client = await retry.open();
    (await retry.serving()).sendClose(4100);
    (await retry.serving(2)).reset();
    expect(await client.ended()).toMatchObject({ closes: [{ code: 1014 }] });
    expect((await retry.gateway.recorded())[0]).toMatchObject({
      cause: "upstreamLost",
      resumes: 1,
    });
  });

  it("an upstream that answers no pings", async () => {
    await retry.start({
      more: "heartbeat: { upstream: { interval: 200ms, timeout: 200ms } }",
      backends: [
        (peer) => {
          if (retry.handshakes.length === 1) accepts(peer);
          else answersPings(peer);
        },
        (peer) => {
          if (retry.handshakes.length === 1) accepts(peer);
          else answersPings(peer);
        },
      ],
    });
    const client = await retry.open();
    await retry.serving();
    await eventually(() => expect(retry.handshakes.length).toBe(2));
    await eventually(() => expect(retry.gateway.gateway.sessions(1)[0]?.state).toBe("open"));
    client.sendText("hello");
    await eventually(() => expect(retry.handshakes[0]?.log.messages.length ?? 0).toBe(0));
    await eventually(() => {
      const got = retry.handshakes.flatMap(({ log }) => texts(log.messages));
      expect(got).toEqual(["hello"]);
    });
    await retry.leave(client);
    expect(retry.gateway.records[0]).toMatchObject({ cause: "clientClosed", resumes: 1 });
  });
});

/** Each handshake is answered with the next of these; the last one stands for all that follow. */
const nth =
  (...answers: readonly Readonly<Record<string, string>>[]): Behaviour =>
  (peer) => {
    peer.answersClose().accept(answers[Math.min(retry.handshakes.length, answers.length) - 1]);
  };

describe("A next upstream that does not fit", () => {
  const DEFLATE = "Sec-WebSocket-Extensions";
  it.each([
    [
      "subprotocol",
      { "Sec-WebSocket-Protocol": "chat.v1" },
      { "Sec-WebSocket-Protocol": "chat.v2" },
      { "Sec-WebSocket-Protocol": "chat.v1, chat.v2" },
    ],
    [
      "deflate",
      { [DEFLATE]: "permessage-deflate" },
      { [DEFLATE]: "permessage-deflate; client_max_window_bits=9" },
      { [DEFLATE]: "permessage-deflate; client_max_window_bits" },
    ],
    ["deflate", { [DEFLATE]: "permessage-deflate" }, {}, { [DEFLATE]: "permessage-deflate" }],
  ])("is passed over for one that does: %s", async (reason, right, wrong, headers) => {
    const sequence = nth(right, wrong, right);
    await retry.start({ backends: [sequence, sequence, sequence] });
    const client = await retry.open({ headers });
    (await retry.serving()).reset();
    const third = await retry.serving(3);
    third.sendText("fits");
    expect(texts(await client.log.received(1))).toEqual(["fits"]);
    await retry.leave(client);
    expect(retry.gateway.records[0]).toMatchObject({ cause: "clientClosed", resumes: 1, dials: 3 });
    expect(reason).not.toBe("");
  });

  it.each([
    [
      "subprotocol",
      { "Sec-WebSocket-Protocol": "chat.v1" },
      { "Sec-WebSocket-Protocol": "chat.v2" },
      { "Sec-WebSocket-Protocol": "chat.v1, chat.v2" },
    ],
    [
      "deflate",
      { [DEFLATE]: "permessage-deflate; server_no_context_takeover" },
      { [DEFLATE]: "permessage-deflate" },
      { [DEFLATE]: "permessage-deflate" },
    ],
  ])("ends the session where none does, with reason %s", async (reason, right, wrong, headers) => {
    const sequence = nth(right, wrong);
    await retry.start({ backends: [sequence, sequence], session: "attempts: 3" });
    const client = await retry.open({ headers });
    (await retry.serving()).reset();
    expect(await client.ended()).toMatchObject({ closes: [{ code: 1014, reason }] });
    expect((await retry.gateway.recorded())[0]).toMatchObject({
      cause: "upstreamLost",
      resumes: 0,
      // One, and three rounds: the other backend, then twice both.
      dials: 6,
      detail: reason,
    });
  });
});

describe("What a new upstream and the client are told", () => {
  it("replays the first messages before anything else and swallows what they are answered with", async () => {
    await retry.start({ session: "replay: { first: 2, swallow: 1 }" });
    const client = await retry.open();
    const first = await retry.serving();
    for (const text of ["login", "subscribe", "third"]) client.sendText(text);
    await first.log.received(3);
    first.sendText("welcome");
    await client.log.received(1);
    first.reset();
    await retry.serving(2);
    client.sendText("fourth");
    const second = await retry.serving(2);
    expect(texts(await second.log.received(1))).toEqual(["login"]);
    second.send({ opcode: 1, fin: false, payload: "wel" });
    second.send({ opcode: 9, payload: "inside" });
    expect(second.log.messages).toHaveLength(1);
    second.send({ opcode: 0, payload: "come" });
    // Only now: the client, too, had waited for the answer.
    expect(texts(await second.log.received(3))).toEqual(["login", "subscribe", "fourth"]);
    second.sendText("news");
    expect(texts(await client.log.received(2))).toEqual(["welcome", "news"]);
    expect((await client.log.frame(9)).payload.toString()).toBe("inside");
    // A second time, too; a death inside what is swallowed tears nothing.
    second.reset();
    const third = await retry.serving(3);
    expect(texts(await third.log.received(1))).toEqual(["login"]);
    third.send({ opcode: 1, fin: false, payload: "wel" });
    third.reset();
    const fourth = await retry.serving(4);
    expect(texts(await fourth.log.received(1))).toEqual(["login"]);
    fourth.sendText("welcome");
    expect(texts(await fourth.log.received(2))).toEqual(["login", "subscribe"]);
    fourth.sendText("more");
    expect(texts(await client.log.received(3))).toEqual(["welcome", "news", "more"]);
    await retry.leave(client);
    expect(client.log.closes).toHaveLength(1);
  });

  it("tells the client how many dials it took and how long, before the next message", async () => {
    const started = await retry.start({
      session: `notify: "back after {attempts} dials, {downMs} ms"`,
      backends: [
        (peer) => peer.answersClose().accept({}, buildFrame({ opcode: 1, payload: "hi" })),
      ],
    });
    const client = await retry.open();
    await client.log.received(1);
    (await retry.serving()).reset();
    const [, notice, next] = texts(await client.log.received(3));
    expect(notice).toMatch(/^back after 1 dials, \d+ ms$/);
    const downMs = Number(/, (\d+) ms/.exec(notice ?? "")?.[1]);
    expect(downMs).toBeGreaterThanOrEqual(45);
    expect(downMs).toBeLessThan(2_000);
    expect(next).toBe("hi");
    await retry.leave(client);
    expect((await readSeries(started))("softclose_resumes_total")).not.toEqual({});
  });
});
