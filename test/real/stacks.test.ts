/**
 * WebSocket stacks that nobody here wrote, on either side of the gateway: what they say to each other, how they
 * close, and what becomes of them when a server dies. Each with `ws` on the other side, and shortly all with
 * each other.
 */
import { randomBytes } from "node:crypto";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { Meeting, OFFERED, type Setting, StackPlaces } from "../support/meeting.ts";
import { lacks } from "../support/programs.ts";
import { FAST_BACKOFF } from "../support/retry-setting.ts";
import { arrivalOf, type Sendable, type Stack } from "../support/stack.ts";
import type { TappedDirection } from "../support/wire-tap.ts";
import { OTHER_PAIRS, PAIRS, type Pair, toldOf } from "./stack-table.ts";

const CONTINUATION = 0x0;
const PING = 0x9;
const PONG = 0xa;

/** Not ASCII: it has more bytes than characters. */
const REASON = "grüße";

/** Text of 16 bytes that will repeat itself, and noise that does not within a deflate window. */
const PHRASE = Buffer.from("Grüße, 世界!").toString("base64");
const NOISE = randomBytes(64 * 1024).toString("base64");

const text = (times: number): Sendable => ({ binary: false, part: PHRASE, times, fragments: 1 });
const noise = (times: number): Sendable => ({ binary: true, part: NOISE, times, fragments: 1 });
const EMPTY: Sendable = { binary: true, part: "", times: 1, fragments: 1 };

const MESSAGES: readonly (readonly [title: string, message: Sendable])[] = [
  ["an empty message", EMPTY],
  ["a short text", text(1)],
  ["a frame with a 16-bit length", text(40)],
  ["1 MiB of text", text(1024 * 64)],
  ["1 MiB of noise", noise(16)],
];
const HEARTBEAT =
  "heartbeat: { client: { interval: 50ms, timeout: 20s }, upstream: { interval: 50ms, timeout: 20s } }";
const RETRY = `retry: { session: { enabled: true, attempts: 20 }, ${FAST_BACKOFF} }`;

const places = new StackPlaces();
let meeting: Meeting;
let client: Stack;
let server: Stack;

afterAll(() => places.stop());

function describePairs(pairs: readonly Pair[], tests: (pair: Pair) => void): void {
  describe.each(pairs.map((pair) => [pair.client.name, pair.server.name, pair] as const))(
    "%s as client, %s as server:",
    (_client, _server, pair) => {
      describe.skipIf(lacks(...pair.client.needs, ...pair.server.needs))("they", () => {
        beforeEach(async () => {
          client = await places.take("client", pair.client);
          server = await places.take("server", pair.server);
        });
        afterEach(async () => await meeting.stop());
        tests(pair);
      });
    },
  );
}

async function meet(setting: Setting = {}): Promise<void> {
  meeting = await Meeting.among(client, [server], setting);
  await meeting.open(setting);
}

const deflating = ({ client: one, server: other }: Pair): boolean =>
  one.deflate !== "none" && other.deflate !== "none";
const negotiated = (direction: TappedDirection): boolean =>
  direction.header("sec-websocket-extensions")?.startsWith("permessage-deflate") ?? false;
const compressed = ({ log }: TappedDirection): boolean => log.frames.some(({ rsv1 }) => rsv1);
const texts = (direction: TappedDirection, opcode: number): string[] =>
  direction.payloads(opcode).map(String);

/** One test where a stack has the words for it, and none where not: nothing is skipped that could be run. */
const able = (isAble: boolean): readonly true[] => (isAble ? [true] : []);

/** Nothing torn, and one Close each way, on both legs. */
function expectWellClosed(): void {
  for (const { fromClient, fromServer } of meeting.legs) {
    for (const { log } of [fromClient, fromServer]) {
      expect(log.torn).toHaveLength(0);
      expect(log.closes).toHaveLength(1);
    }
  }
}

describePairs(PAIRS, (pair) => {
  it("agree on the subprotocol that the server has chosen", async () => {
    await meet({ subprotocols: OFFERED });
    for (const { fromClient, fromServer } of meeting.legs) {
      expect(fromClient.header("sec-websocket-protocol")).toMatch(/^first, ?second$/);
      expect(fromServer.header("sec-websocket-protocol")).toBe("second");
    }
    await meeting.say(text(1));
    await meeting.part();
  });

  it.each(MESSAGES)("exchange %s without compression", async (_title, message) => {
    await meet({ deflate: false });
    await meeting.say(message);
    await meeting.push(message);
    await meeting.part();
    for (const { fromClient, fromServer } of meeting.legs) {
      expect(fromServer.header("sec-websocket-extensions")).toBe(null);
      expect([compressed(fromClient), compressed(fromServer)]).toEqual([false, false]);
    }
  });

  it.each(MESSAGES)("exchange %s with compression, if both can", async (_title, message) => {
    await meet();
    await meeting.say(message);
    await meeting.say(message);
    await meeting.push(message);
    await meeting.part();
    for (const { fromClient, fromServer } of meeting.legs) {
      expect(negotiated(fromServer)).toBe(deflating(pair));
      // Not every stack compresses nothing.
      if (message === EMPTY) continue;
      const expected = [pair.client, pair.server].map(
        ({ deflate }) => deflating(pair) && deflate === "both",
      );
      expect([compressed(fromClient), compressed(fromServer)]).toEqual(expected);
    }
  });

  it("exchange a message in seven fragments, from whoever makes fragments", async () => {
    await meet();
    const message = { ...noise(3), fragments: 7 };
    await meeting.say(message);
    await meeting.push(message);
    await meeting.part();
    const made = [meeting.clientLeg.fromClient, meeting.upstreamLeg.fromServer].map(({ log }) =>
      log.frames.some(({ opcode }) => opcode === CONTINUATION),
    );
    expect(made).toEqual([pair.client.can.fragment, pair.server.can.fragment]);
  });

  it.each(able(pair.client.can.ping))(
    "answer each ping of the client once, end to end",
    async () => {
      await meet();
      for (const payload of ["one", "two"]) {
        client.tell({ do: "ping", payload });
        expect(await client.next("pong")).toEqual({ payload });
      }
      await meeting.say(text(1));
      await meeting.part();
      for (const { fromClient, fromServer } of meeting.legs) {
        expect(texts(fromClient, PING)).toEqual(["one", "two"]);
        expect(texts(fromServer, PONG)).toEqual(["one", "two"]);
        expect([...texts(fromServer, PING), ...texts(fromClient, PONG)]).toEqual([]);
      }
    },
  );

  it("answer each ping of the server once, end to end", async () => {
    await meet();
    for (const payload of ["one", "two"]) {
      server.tell({ do: "ping", payload });
      expect(await server.next("pong")).toEqual({ payload });
    }
    await meeting.say(text(1));
    await meeting.part();
    for (const { fromClient, fromServer } of meeting.legs) {
      expect(texts(fromServer, PING)).toEqual(["one", "two"]);
      expect(texts(fromClient, PONG)).toEqual(["one", "two"]);
      expect([...texts(fromClient, PING), ...texts(fromServer, PONG)]).toEqual([]);
    }
  });

  it("answer the gateway's own pings, which the other side never sees", async () => {
    await meet({ more: HEARTBEAT });
    const { fromClient, fromServer: toClient } = meeting.clientLeg;
    const { fromClient: toServer, fromServer } = meeting.upstreamLeg;
    await eventually(() => {
      expect(texts(fromClient, PONG).length).toBeGreaterThanOrEqual(3);
      expect(texts(fromServer, PONG).length).toBeGreaterThanOrEqual(3);
    });
    await meeting.say(text(1));
    await meeting.part();
    for (const [pings, pongs] of [
      [texts(toClient, PING), texts(fromClient, PONG)],
      [texts(toServer, PING), texts(fromServer, PONG)],
    ] as const) {
      // Who closes does not answer any more.
      expect(pongs).toEqual(pings.slice(0, pongs.length));
    }
    expect([...texts(toClient, PONG), ...texts(toServer, PONG)]).toEqual([]);
  });

  it.each([1000, 4000])("close with the client's %i and its reason", async (code) => {
    await meet();
    client.tell({ do: "close", code, reason: REASON });
    const told = await server.next("close");
    expect(told).toMatchObject({ code, reason: REASON });
    const own = await client.next("close");
    expect(own).toMatchObject({ code });
    expect([told.clean, own.clean]).not.toContain(false);
    const [record] = await meeting.gateway.recorded();
    expectWellClosed();
    expect(meeting.upstreamLeg.fromClient.log.closes).toEqual([{ code, reason: REASON }]);
    expect(record).toMatchObject({
      cause: "clientClosed",
      client: { sent: code, received: code },
      upstream: { sent: code },
    });
  });

  it.each([1000, 4001])("close with the server's %i and its reason", async (code) => {
    await meet();
    server.tell({ do: "close", code, reason: REASON });
    const told = await client.next("close");
    expect(told).toMatchObject({ code, reason: REASON });
    const own = await server.next("close");
    expect(own).toMatchObject({ code });
    expect([told.clean, own.clean]).not.toContain(false);
    const [record] = await meeting.gateway.recorded();
    expectWellClosed();
    expect(meeting.clientLeg.fromServer.log.closes).toEqual([{ code, reason: REASON }]);
    expect(record).toMatchObject({
      cause: "upstreamClosed",
      client: { sent: code },
      upstream: { sent: code, received: code },
    });
  });

  it.each(able(pair.client.can.closeEmpty))("close with the client's empty Close", async () => {
    await meet();
    client.tell({ do: "close", code: null, reason: "" });
    expect(await server.next("close")).toMatchObject(pair.server.emptyClose);
    await client.next("close");
    await meeting.gateway.recorded();
    expectWellClosed();
    expect(meeting.upstreamLeg.fromClient.log.closes).toEqual([{ code: 1005, reason: "" }]);
  });

  it.each(able(pair.server.can.closeEmpty))("close with the server's empty Close", async () => {
    await meet();
    server.tell({ do: "close", code: null, reason: "" });
    expect(await client.next("close")).toMatchObject(pair.client.emptyClose);
    await server.next("close");
    await meeting.gateway.recorded();
    expectWellClosed();
    expect(meeting.clientLeg.fromServer.log.closes).toEqual([{ code: 1005, reason: "" }]);
  });

  it("deliver what the client has said right before its Close", async () => {
    // The echo is still on its way when the client closes. If it is compressed, undici tells its user 1006
    // where TCP ends before it has inflated everything: without a gateway, too.
    await meet({ deflate: false });
    client.tell({ do: "send", ...noise(16) });
    client.tell({ do: "close", code: 4000, reason: REASON });
    expect(await server.next("message")).toEqual(arrivalOf(noise(16)));
    expect(await server.next("close")).toMatchObject({ code: 4000, reason: REASON });
    expect(await client.next("close")).toMatchObject({ code: 4000 });
    await meeting.gateway.recorded();
    expectWellClosed();
  });

  it("deliver what the server has said right before its Close", async () => {
    await meet();
    server.tell({ do: "send", ...noise(16) });
    server.tell({ do: "close", code: 4001, reason: REASON });
    expect(await client.next("message")).toEqual(arrivalOf(noise(16)));
    expect(await client.next("close")).toMatchObject({ code: 4001, reason: REASON });
    expect(await server.next("close")).toMatchObject({ code: 4001 });
    await meeting.gateway.recorded();
    expectWellClosed();
  });

  it("part with 1001 when the client is killed", async () => {
    await meet();
    await meeting.say(text(1));
    await client.kill();
    const close = { code: 1001, reason: "client connection lost" };
    expect(await server.next("close")).toMatchObject(close);
    const [record] = await meeting.gateway.recorded();
    expect(record).toMatchObject({ cause: "clientLost", upstream: { sent: 1001 } });
    expect(meeting.upstreamLeg.fromClient.log.closes).toEqual([close]);
  });

  it("part with 1014 when the server is killed", async () => {
    await meet();
    await meeting.say(text(1));
    await server.kill();
    const close = { code: 1014, reason: "upstream connection lost" };
    expect(await client.next("close")).toMatchObject(toldOf(pair.client, close));
    const [record] = await meeting.gateway.recorded();
    expect(record).toMatchObject({ cause: "upstreamLost", client: { sent: 1014 } });
    const { log } = meeting.clientLeg.fromServer;
    expect([log.closes, log.torn.length]).toEqual([[close], 0]);
  });

  it("stay together, with session retry, when the server is killed and there is another", async () => {
    const spare = await places.take("spare", pair.server);
    const setting: Setting = { more: RETRY, subprotocols: OFFERED };
    meeting = await Meeting.among(client, [server, spare], setting);
    await meeting.open(setting);
    const [first, second] = meeting.server === server ? [server, spare] : [spare, server];
    const { fromServer } = meeting.clientLeg;
    const answer = fromServer.header("sec-websocket-extensions") ?? "";
    expect(answer.includes("client_no_context_takeover")).toBe(deflating(pair));
    // What comes later may refer to what came before, in either direction.
    for (const message of [text(1), text(40), noise(1), text(1)]) await meeting.say(message, first);
    await first.kill();
    expect(await second.next("open")).toEqual({ subprotocol: "second" });
    for (const message of [text(1), noise(1), text(40)]) await meeting.say(message, second);
    await meeting.push(text(40), second);
    expect(fromServer.log.closes).toEqual([]);
    await meeting.part(second);
    const [record] = await meeting.gateway.recorded();
    expect(record).toMatchObject({ cause: "clientClosed", resumes: 1, client: { sent: 1000 } });
    expect(fromServer.log.closes).toHaveLength(1);
  });
});

describePairs(OTHER_PAIRS, (pair) => {
  it("agree, exchange long messages both ways, and close in order", async () => {
    await meet({ subprotocols: OFFERED });
    await meeting.say(text(1024 * 8));
    await meeting.push(noise(4));
    client.tell({ do: "close", code: 4000, reason: REASON });
    expect(await server.next("close")).toMatchObject({ code: 4000, reason: REASON });
    expect(await client.next("close")).toMatchObject({ code: 4000 });
    await meeting.gateway.recorded();
    expectWellClosed();
    expect(meeting.legs.map(({ fromServer }) => negotiated(fromServer))).toEqual([
      deflating(pair),
      deflating(pair),
    ]);
  });
});
