import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { monotonicClock } from "../../../src/session/clock.ts";
import { Wheel, type WheelEntry } from "../../../src/session/wheel.ts";

const TICK_MS = 50;
const NEVER = Number.POSITIVE_INFINITY;

let wheel: Wheel;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  wheel = new Wheel(monotonicClock);
});

afterEach(() => {
  wheel.stop();
  vi.useRealTimers();
});

/** Remembers when it was called; wants to be called again as `next` says. */
function entry(next: (now: number) => number = () => NEVER): WheelEntry & { calls: number[] } {
  const calls: number[] = [];
  return {
    calls,
    check: (now) => {
      calls.push(now);
      return next(now);
    },
  };
}

describe("Wheel", () => {
  it("has no timer while it has no entry", () => {
    expect(vi.getTimerCount()).toBe(0);
    const once = entry();
    wheel.schedule(once, performance.now() + 120);
    expect(vi.getTimerCount()).toBe(1);
    vi.advanceTimersByTime(1_000);
    expect(once.calls).toHaveLength(1);
    expect(wheel.size).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("runs one timer for ten thousand entries", () => {
    for (let i = 0; i < 10_000; i += 1) wheel.schedule(entry(), performance.now() + 5_000 + i);
    expect(vi.getTimerCount()).toBe(1);
    expect(wheel.size).toBe(10_000);
    vi.advanceTimersByTime(20_000);
    expect(wheel.size).toBe(0);
  });

  it("never calls early, and at most two ticks late", () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 45_000 }), { minLength: 1, maxLength: 50 }),
        fc.integer({ min: 0, max: 99 }),
        (delays, phase) => {
          vi.advanceTimersByTime(phase);
          const start = performance.now();
          const entries = delays.map((delay) => ({ due: start + delay, entry: entry() }));
          for (const { due, entry: scheduled } of entries) wheel.schedule(scheduled, due);
          vi.advanceTimersByTime(50_000);
          for (const { due, entry: scheduled } of entries) {
            expect(scheduled.calls).toHaveLength(1);
            expect(scheduled.calls[0]).toBeGreaterThanOrEqual(due);
            expect(scheduled.calls[0]).toBeLessThanOrEqual(due + 2 * TICK_MS);
          }
        },
      ),
      { numRuns: 30 },
    );
  });

  it("looks at what is more than a turn away once a turn, and is exact at the end", () => {
    const due = performance.now() + 3_600_000;
    const far = entry((now) => (now >= due ? NEVER : due));
    wheel.schedule(far, due);
    vi.advanceTimersByTime(3_600_000 + 2 * TICK_MS);
    expect(far.calls.at(-1)).toBeGreaterThanOrEqual(due);
    expect(far.calls.length).toBeLessThan(80);
    expect(wheel.size).toBe(0);
  });

  it("calls again when the entry says so", () => {
    const beating = entry((now) => now + 1_000);
    wheel.schedule(beating, performance.now() + 1_000);
    vi.advanceTimersByTime(20_000);
    expect(beating.calls.length).toBeGreaterThanOrEqual(18);
    expect(beating.calls.length).toBeLessThanOrEqual(20);
    wheel.remove(beating);
    vi.advanceTimersByTime(5_000);
    expect(beating.calls.length).toBeLessThanOrEqual(20);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("replaces what was asked before, sooner or later", () => {
    const moved = entry();
    wheel.schedule(moved, performance.now() + 500);
    wheel.schedule(moved, performance.now() + 5_000);
    vi.advanceTimersByTime(1_000);
    expect(moved.calls).toEqual([]);
    wheel.schedule(moved, performance.now() + 100);
    vi.advanceTimersByTime(300);
    expect(moved.calls).toHaveLength(1);
    vi.advanceTimersByTime(10_000);
    expect(moved.calls).toHaveLength(1);
  });

  it("forgets an entry that is scheduled for never", () => {
    const gone = entry();
    wheel.schedule(gone, performance.now() + 100);
    wheel.schedule(gone, NEVER);
    vi.advanceTimersByTime(1_000);
    expect(gone.calls).toEqual([]);
    expect(wheel.size).toBe(0);
  });

  it("bears entries that remove and schedule each other while they are called", () => {
    const victim = entry();
    const other = entry();
    const due = performance.now() + 200;
    const first = entry(() => {
      wheel.remove(victim);
      wheel.schedule(other, performance.now());
      return NEVER;
    });
    wheel.schedule(first, due);
    wheel.schedule(victim, due);
    vi.advanceTimersByTime(500);
    expect(first.calls).toHaveLength(1);
    expect(victim.calls).toEqual([]);
    expect(other.calls).toHaveLength(1);
  });

  it("calls every due entry once after a stall of the whole process, when sockets have been read", async () => {
    let nowMs = 0;
    const stalled = new Wheel({ now: () => nowMs });
    const entries = Array.from({ length: 50 }, () => entry());
    for (const [index, scheduled] of entries.entries()) {
      stalled.schedule(scheduled, 1_000 * (index + 1));
    }
    // Ten minutes pass without a turn.
    nowMs = 600_000;
    vi.advanceTimersByTime(TICK_MS);
    expect(entries.every(({ calls }) => calls.length === 0)).toBe(true);
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    expect(entries.every(({ calls }) => calls.length === 1)).toBe(true);
    stalled.stop();
  });
});
