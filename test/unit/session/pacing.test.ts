import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { monotonicClock } from "../../../src/session/clock.ts";
import { Pacing } from "../../../src/session/pacing.ts";

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
});

afterEach(() => {
  vi.useRealTimers();
});

/** Numbers the items in the order in which they are called. */
function paced(count: number, durationMs: number, onDone?: () => void) {
  const called: number[] = [];
  const items = Array.from({ length: count }, (_, number) => () => void called.push(number));
  return { called, pacing: new Pacing(items, durationMs, monotonicClock, onDone) };
}

describe("Pacing", () => {
  it("calls the same number in every part of the time, in order, and then ends", () => {
    const onDone = vi.fn<() => void>();
    const { called } = paced(100, 10_000, onDone);
    for (let tenth = 1; tenth <= 10; tenth += 1) {
      vi.advanceTimersByTime(1_000);
      expect(called).toHaveLength(tenth * 10);
    }
    expect(called).toEqual(Array.from({ length: 100 }, (_, number) => number));
    expect([onDone.mock.calls.length, vi.getTimerCount()]).toEqual([1, 0]);
  });

  it("does not let the first one wait for its share of a long time", () => {
    const { called } = paced(1, 3_600_000);
    vi.advanceTimersByTime(20);
    expect(called).toEqual([0]);
  });

  it("calls all at once where there is no time, and nobody where there is none", () => {
    const onDone = vi.fn<() => void>();
    expect(paced(3, 0, onDone).called).toEqual([0, 1, 2]);
    paced(0, 1_000, onDone);
    expect([onDone.mock.calls.length, vi.getTimerCount()]).toEqual([2, 0]);
  });

  it("leaves the rest alone once it is stopped", () => {
    const onDone = vi.fn<() => void>();
    const { called, pacing } = paced(10, 1_000, onDone);
    vi.advanceTimersByTime(500);
    pacing.stop();
    vi.advanceTimersByTime(10_000);
    expect([called.length, onDone.mock.calls.length, vi.getTimerCount()]).toEqual([5, 0, 0]);
  });

  it("calls each once and in time, however often the event loop stalls", () => {
    const stalls = fc.array(fc.integer({ min: 1, max: 700 }), { maxLength: 30 });
    fc.assert(
      fc.property(fc.nat(200), fc.integer({ min: 1, max: 2_000 }), stalls, (count, ms, waits) => {
        const { called, pacing } = paced(count, ms);
        const start = monotonicClock.now();
        for (const wait of waits) {
          vi.advanceTimersByTime(wait);
          const share = Math.min(1, (monotonicClock.now() - start) / ms);
          // Up to a turn of the timer behind, never ahead.
          expect(called.length).toBeLessThanOrEqual(Math.ceil(count * share));
          expect(called.length).toBeGreaterThanOrEqual(Math.floor(count * (share - 20 / ms)));
        }
        vi.advanceTimersByTime(ms + 20);
        expect(called).toEqual(Array.from({ length: count }, (_, number) => number));
        pacing.stop();
      }),
    );
  });
});
