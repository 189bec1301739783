// How those who were turned away are spread over the time that the service needs to take them back.
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RetryAfter } from "../../../src/close/retry-after.ts";

const DEFAULTS = { minMs: 1000, maxMs: 60_000, acceptRate: 100 };
const LATEST = 1 - Number.EPSILON;

describe("retry-after", () => {
  it("asks the first ones who are turned away to wait for the minimum only", () => {
    const retryAfter = new RetryAfter(() => LATEST);
    for (let i = 0; i < 99; i++) expect(retryAfter.turnAway(DEFAULTS, 5000)).toBe(1);
    expect(retryAfter.turnAway(DEFAULTS, 5000)).toBe(2);
  });

  it("spreads 3,000 clients over the 30 s in which 100 a second can be taken back", () => {
    const early = new RetryAfter(() => 0);
    const late = new RetryAfter(() => LATEST);
    for (let i = 0; i < 2999; i++) {
      early.turnAway(DEFAULTS, 1000);
      late.turnAway(DEFAULTS, 1000);
    }
    expect(early.turnAway(DEFAULTS, 1000)).toBe(1);
    expect(late.turnAway(DEFAULTS, 1000)).toBe(31);
  });

  it("uses every second of the spread about equally often", () => {
    let seed = 1;
    const retryAfter = new RetryAfter(() => {
      seed = (seed * 48271) % 2147483647;
      return seed / 2147483647;
    });
    for (let i = 0; i < 100_000; i++) retryAfter.turnAway(DEFAULTS, 1000);
    const perSecond = new Map<number, number>();
    for (let i = 0; i < 6000; i++) {
      const second = retryAfter.turnAway(DEFAULTS, 1000);
      perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
    }
    expect([...perSecond.keys()].toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 60 }, (_, i) => i + 1),
    );
    for (const count of perSecond.values()) {
      expect(count).toBeGreaterThan(50);
      expect(count).toBeLessThan(160);
    }
  });

  it("forgets those who were turned away longer ago than the maximum", () => {
    const retryAfter = new RetryAfter(() => LATEST);
    for (let i = 0; i < 3000; i++) retryAfter.turnAway(DEFAULTS, 1000);
    expect(retryAfter.turnAway(DEFAULTS, 60_999)).toBe(31);
    expect(retryAfter.turnAway(DEFAULTS, 61_000)).toBe(1);
    for (let i = 0; i < 1000; i++) retryAfter.turnAway(DEFAULTS, 61_500);
    expect(retryAfter.turnAway(DEFAULTS, 61_900)).toBe(11);
  });

  it("forgets everything after a silence longer than it remembers at all", () => {
    const retryAfter = new RetryAfter(() => LATEST);
    for (let second = 0; second < 5000; second++) {
      for (let i = 0; i < 10; i++) retryAfter.turnAway(DEFAULTS, second * 1000);
    }
    expect(retryAfter.turnAway(DEFAULTS, 100_000_000)).toBe(1);
  });

  it("remembers one hour at most", () => {
    const day = { minMs: 1000, maxMs: 86_400_000, acceptRate: 1 };
    const retryAfter = new RetryAfter(() => LATEST);
    for (let i = 0; i < 1000; i++) retryAfter.turnAway(day, 0);
    expect(retryAfter.turnAway(day, 3_599_000)).toBe(1002);
    expect(retryAfter.turnAway(day, 3_600_000)).toBe(3);
  });

  it("says 0 only where the maximum is 0", () => {
    expect(new RetryAfter(() => 0).turnAway({ minMs: 0, maxMs: 0, acceptRate: 100 }, 0)).toBe(0);
    expect(new RetryAfter(() => 0).turnAway({ minMs: 0, maxMs: 60_000, acceptRate: 100 }, 0)).toBe(
      1,
    );
    expect(new RetryAfter(() => 0).turnAway({ minMs: 0, maxMs: 400, acceptRate: 100 }, 0)).toBe(1);
  });

  it("stands a clock that runs backwards", () => {
    const retryAfter = new RetryAfter(() => LATEST);
    for (let i = 0; i < 200; i++) retryAfter.turnAway(DEFAULTS, 90_000);
    expect(retryAfter.turnAway(DEFAULTS, 10_000)).toBe(3);
  });

  it("stays whole and within its bounds for any settings, numbers and times", () => {
    fc.assert(
      fc.property(
        fc.nat({ max: 120_000 }),
        fc.integer({ min: 1, max: 600_000 }),
        fc.oneof(fc.constant(0), fc.double({ min: 0.001, max: 100_000, noNaN: true })),
        fc.array(fc.nat({ max: 30_000 }), { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0, max: LATEST, noNaN: true }),
        (minMs, maxMs, acceptRate, steps, random) => {
          const retryAfter = new RetryAfter(() => random);
          let nowMs = 0;
          for (const step of steps) {
            nowMs += step;
            const seconds = retryAfter.turnAway({ minMs, maxMs, acceptRate }, nowMs);
            expect(Number.isInteger(seconds)).toBe(true);
            expect(seconds).toBeGreaterThanOrEqual(1);
            expect(seconds).toBeLessThanOrEqual(Math.max(1, maxMs / 1000));
            // A minimum of 1.2 s with a maximum of 1.9 s leaves no whole second between them.
            const from = Math.min(Math.ceil(minMs / 1000), Math.floor(maxMs / 1000));
            expect(seconds).toBeGreaterThanOrEqual(from);
          }
        },
      ),
    );
  });
});
