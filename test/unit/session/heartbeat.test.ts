import { describe, expect, it } from "vitest";
import { Heartbeat, PingMark } from "../../../src/session/heartbeat.ts";

const CONFIG = { intervalMs: 1_000, timeoutMs: 300, payload: "ping", text: "" } as const;
const FULL_INTERVAL = (): number => 0;
const PING = 1;
const NEVER = Number.POSITIVE_INFINITY;

describe("Heartbeat", () => {
  it("pings first after half to a whole interval, as chance has it", () => {
    expect(new Heartbeat(CONFIG, 5_000, () => 0).nextAt).toBe(6_000);
    expect(new Heartbeat(CONFIG, 5_000, () => 0.5).nextAt).toBe(5_750);
    expect(new Heartbeat(CONFIG, 5_000, () => 0.999).nextAt).toBeGreaterThan(5_500);
  });

  it("with interval 0 wants nothing, ever", () => {
    const heartbeat = new Heartbeat({ ...CONFIG, intervalMs: 0 }, 0, FULL_INTERVAL);
    expect(heartbeat.nextAt).toBe(NEVER);
    expect(heartbeat.verdict(1e12, 0)).toBe("nothing");
  });

  it("pings once an interval and never catches up on what a stall has missed", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    expect(heartbeat.verdict(999, 0)).toBe("nothing");
    expect(heartbeat.verdict(1_000, 0)).toBe("ping");
    heartbeat.pinged(1_040, PING);
    heartbeat.ponged(1_050, PING);
    expect(heartbeat.nextAt).toBe(2_000);
    expect(heartbeat.verdict(60_000, 1_050)).toBe("ping");
    heartbeat.pinged(60_000, PING);
    heartbeat.ponged(60_001, PING);
    expect(heartbeat.verdict(60_001, 60_001)).toBe("nothing");
    expect(heartbeat.nextAt).toBe(60_500);
  });

  it("finds a peer unresponsive exactly at the timeout after an unanswered ping", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, PING);
    expect(heartbeat.nextAt).toBe(1_300);
    expect(heartbeat.verdict(1_299, 999)).toBe("nothing");
    expect(heartbeat.verdict(1_300, 999)).toBe("unresponsive");
  });

  it("takes any byte behind the ping as life", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, PING);
    expect(heartbeat.verdict(5_000, 1_001)).toBe("ping");
  });

  it("measures from an unanswered ping on, however many follow it", () => {
    const heartbeat = new Heartbeat({ ...CONFIG, timeoutMs: 2_500 }, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, PING);
    heartbeat.pinged(2_000, PING);
    heartbeat.pinged(3_000, PING);
    expect(heartbeat.verdict(3_499, 0)).toBe("nothing");
    expect(heartbeat.verdict(3_500, 0)).toBe("unresponsive");
  });

  it("tells the time from ping to pong, once", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    expect(heartbeat.ponged(10, PING)).toBeNull();
    heartbeat.pinged(1_000, PING);
    expect(heartbeat.ponged(1_042, PING)).toBe(42);
    expect(heartbeat.ponged(1_043, PING)).toBeNull();
  });

  it("adds the time for which it stood still to the deadline", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, PING);
    heartbeat.standStill(1_100);
    heartbeat.standStill(1_500);
    expect(heartbeat.verdict(1_900, 0)).toBe("nothing");
    heartbeat.goOn(1_900, 0);
    heartbeat.goOn(2_500, 0);
    expect(heartbeat.verdict(1_999, 0)).toBe("nothing");
    expect(heartbeat.verdict(2_100, 0)).toBe("unresponsive");
  });

  it("forgets no sign of life that came before it stood still", () => {
    const heartbeat = new Heartbeat({ ...CONFIG, intervalMs: 10_000 }, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, PING);
    // A byte was read at 1050, and no verdict was asked for before the deadline moves past it.
    heartbeat.standStill(1_100);
    heartbeat.goOn(5_000, 1_050);
    expect(heartbeat.verdict(5_950, 1_050)).toBe("nothing");
  });

  it("gives a ping that was sent while it stood still its whole time afterwards", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.standStill(500);
    heartbeat.pinged(1_000, PING);
    expect(heartbeat.nextAt).toBe(2_000);
    heartbeat.goOn(1_600, 0);
    expect(heartbeat.verdict(1_899, 0)).toBe("nothing");
    expect(heartbeat.verdict(1_900, 0)).toBe("unresponsive");
  });

  it("with payload text never awaits an answer", () => {
    const heartbeat = new Heartbeat({ ...CONFIG, payload: "text", text: "hi" }, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, PING);
    expect(heartbeat.nextAt).toBe(2_000);
    expect(heartbeat.verdict(1_999, 0)).toBe("nothing");
  });

  it("measures a ping by its own pong, after other bytes have shown life and the next ping is out", () => {
    const heartbeat = new Heartbeat({ ...CONFIG, timeoutMs: 3_000 }, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, 1);
    expect(heartbeat.verdict(2_000, 1_500)).toBe("ping");
    heartbeat.pinged(2_000, 2);
    expect(heartbeat.ponged(2_100, 1)).toBe(1_100);
    // It is life for both.
    expect(heartbeat.verdict(5_000, 2_100)).toBe("ping");
    expect(heartbeat.ponged(5_100, 2)).toBeNull();
    heartbeat.pinged(6_000, 3);
    expect(heartbeat.ponged(6_050, 3)).toBe(50);
  });

  it("goes on measuring its ping when the pong to another one comes before, which is life", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, 2);
    expect(heartbeat.ponged(1_020, 1)).toBeNull();
    expect(heartbeat.verdict(1_300, 0)).toBe("nothing");
    expect(heartbeat.ponged(1_350, 2)).toBe(350);
    expect(heartbeat.ponged(1_351, 2)).toBeNull();
  });

  it("measures a newer ping once the pong to the older one is overdue", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, 1);
    expect(heartbeat.verdict(1_200, 1_100)).toBe("nothing");
    // Not overdue by a millisecond, for a peer that answers only the last one.
    heartbeat.pinged(1_299, 2);
    expect(heartbeat.ponged(1_310, 2)).toBeNull();
    heartbeat.pinged(1_320, 3);
    expect(heartbeat.ponged(1_340, 1)).toBeNull();
    expect(heartbeat.ponged(1_345, 3)).toBe(25);
  });

  it("does not count the time for which it stood still as the peer's", () => {
    const heartbeat = new Heartbeat(CONFIG, 0, FULL_INTERVAL);
    heartbeat.pinged(1_000, 1);
    heartbeat.standStill(1_100);
    heartbeat.pinged(2_000, 2);
    heartbeat.goOn(5_000, 1_050);
    expect(heartbeat.ponged(5_020, 1)).toBe(120);
    heartbeat.standStill(6_000);
    heartbeat.pinged(6_100, 3);
    heartbeat.goOn(7_000, 5_020);
    expect(heartbeat.ponged(7_030, 3)).toBe(30);
  });
});

describe("PingMark", () => {
  it("knows its own payloads, of which no two are the same", () => {
    const mark = new PingMark();
    const payloads = Array.from({ length: 100 }, () => mark.payload());
    expect(payloads.every((payload) => mark.matches(payload))).toBe(true);
    expect(new Set(payloads.map((payload) => payload.toString("hex"))).size).toBe(100);
    expect(payloads.every(({ length }) => length <= 125)).toBe(true);
  });

  it("does not know what others send, another gateway included", () => {
    const mark = new PingMark();
    const own = mark.payload();
    expect(mark.matches(new PingMark().payload())).toBe(false);
    expect(mark.matches(Buffer.alloc(0))).toBe(false);
    expect(mark.matches(own.subarray(1))).toBe(false);
    expect(mark.matches(Buffer.concat([own, Buffer.alloc(1)]))).toBe(false);
  });
});
