/** Which ends of a session count against its backend: losses and its own errors, never what is the client's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Slot } from "../../../src/upstream/backend.ts";
import { closePayload } from "../../support/frames.ts";
import { type FakeSocket, routeOf, SessionBench } from "./fake-socket.ts";

const TEXT = 1;
const CLOSE = 8;
const MASK = Buffer.from([9, 8, 7, 6]);
const HOUR_MS = 3_600_000;

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setInterval", "clearInterval", "setTimeout", "performance", "Date"],
  });
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

interface Legs {
  readonly bench: SessionBench;
  readonly session: ReturnType<SessionBench["open"]>["session"];
  readonly client: FakeSocket;
  readonly upstream: FakeSocket;
}

type End = (legs: Legs) => unknown;
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);
const close = (code: number) => ({ opcode: CLOSE, payload: closePayload(code, "") });

/** The cause in the record, and all that was said of the slot. */
async function judged(end: End, policies = ""): Promise<{ cause: string; words: string[] }> {
  const judge = vi.spyOn(Slot.prototype, "judge");
  const bench = new SessionBench();
  const legs = { bench, ...bench.open(routeOf(policies)) };
  await end(legs);
  await pass(HOUR_MS);
  legs.client.destroy();
  legs.upstream.destroy();
  await pass(HOUR_MS);
  bench.wheel.stop();
  const words = judge.mock.calls.map(([outcome]) => outcome);
  return { cause: bench.records[0]?.cause ?? "none", words };
}

describe("Against its backend counts a session", () => {
  it.each<[string, string, End]>([
    ["upstreamLost", "whose upstream ends TCP", ({ upstream }) => upstream.emit("end")],
    [
      "upstreamLost",
      "whose upstream is reset",
      ({ upstream }) => {
        upstream.emit("error", Object.assign(new Error("reset"), { code: "ECONNRESET" }));
        upstream.destroy();
      },
    ],
    ["upstreamClosed", "that is closed with 1011", ({ upstream }) => upstream.sends(close(1011))],
    ["upstreamClosed", "that is closed with 1014", ({ upstream }) => upstream.sends(close(1014))],
  ])("%s: %s", async (cause, _how, end) => {
    const result = await judged(end);
    expect([result.cause, result.words[0]]).toEqual([cause, "bad"]);
  });

  it("upstreamUnresponsive: whose upstream answers no ping", async () => {
    const yaml =
      "heartbeat: { client: { interval: 0s }, upstream: { interval: 10s, timeout: 5s } }\n";
    const result = await judged(() => pass(60_000), yaml);
    expect([result.cause, result.words[0]]).toEqual(["upstreamUnresponsive", "bad"]);
  });
});

describe("Not against its backend counts a session", () => {
  const quiet = "heartbeat: { client: { interval: 0s }, upstream: { interval: 0s } }\n";

  it.each<[string, string, End]>([
    ...[1000, 1001, 1002, 1005, 1007, 1008, 1009, 1010, 1012, 1013, 3000, 4999].map(
      (code): [string, string, End] => [
        "upstreamClosed",
        `that is closed with ${code}`,
        ({ upstream }) => upstream.sends(code === 1005 ? { opcode: CLOSE } : close(code)),
      ],
    ),
    ...[1000, 1001, 1011, 1014].map((code): [string, string, End] => [
      "clientClosed",
      `whose client closes it with ${code}`,
      ({ client }) => client.sends({ ...close(code), mask: MASK }),
    ]),
    [
      "clientClosed",
      "whose client closes it, and whose upstream then ends TCP without a Close",
      ({ client, upstream }) => {
        client.sends({ ...close(1000), mask: MASK });
        upstream.emit("end");
      },
    ],
    [
      "clientClosed",
      "whose client closes it, and whose upstream then answers 1011",
      ({ client, upstream }) => {
        client.sends({ ...close(1000), mask: MASK });
        upstream.sends(close(1011));
      },
    ],
    ["clientLost", "whose client ends TCP", ({ client }) => client.emit("end")],
    [
      "clientLost",
      "whose client is reset, and whose upstream then, too",
      ({ client, upstream }) => {
        client.destroy();
        upstream.destroy();
      },
    ],
    [
      "clientProtocolError",
      "whose client sends an unmasked frame",
      ({ client }) => client.sends({ opcode: TEXT, payload: "x" }),
    ],
    ["clientLost", "that the gateway itself destroys", ({ session }) => session.destroy()],
    ["draining", "that is drained", ({ session }) => session.drain()],
    ["backendDraining", "whose backend is drained", ({ session }) => session.move()],
    ["adminClosed", "that is closed by hand", ({ session }) => session.end("adminClosed")],
  ])("%s: %s", async (cause, _how, end) => {
    const result = await judged(end, quiet);
    expect(result.cause).toBe(cause);
    expect(result.words[0]).not.toBe("bad");
    // Only the first word counts; that it is said at all shows that somebody has thought of it.
    expect(result.words.length).toBeGreaterThan(0);
  });

  it("clientUnresponsive: whose client answers no ping", async () => {
    const yaml =
      "heartbeat: { client: { interval: 10s, timeout: 5s }, upstream: { interval: 0s } }\n";
    const result = await judged(() => pass(60_000), yaml);
    expect(result.cause).toBe("clientUnresponsive");
    expect(result.words[0]).not.toBe("bad");
  });
});
