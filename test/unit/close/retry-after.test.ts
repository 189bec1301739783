// How those who were turned away are spread over the time that the service needs to take them back.
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RetryAfter } from "../../../src/close/retry-after.ts";

const DEFAULTS = { minMs: 1000, maxMs: 60_000, acceptRate: 100 };
const LATEST = 1 - Number.EPSILON;

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
}

function count(perSecond: Map<number, number>, second: number): void {
  perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
}

describe("retry-after", () => {
  it("asks the first ones who are turned away to wait for the minimum only", () => {
    const retryAfter = new RetryAfter(() => 0);
    for (let i = 0; i < 100; i++) expect(retryAfter.turnAway(DEFAULTS, 5000)).toBe(1);
    expect(retryAfter.turnAway(DEFAULTS, 5000)).toBe(2);
  });

  it("gives 3,000 clients one place each of the 30 s in which 100 a second can be taken back", () => {
    const retryAfter = new RetryAfter(() => 0);
    const perSecond = new Map<number, number>();
    for (let i = 0; i < 3000; i++) count(perSecond, retryAfter.turnAway(DEFAULTS, 1000));
    expect([...perSecond]).toEqual(Array.from({ length: 30 }, (_, i) => [i + 1, 100]));
  });

  it("rounds up as often as a place is late in its second, so that nobody's turn is early on average", () => {
    const retryAfter = new RetryAfter(seeded(1));
    let places = 0;
    let told = 0;
    for (let i = 0; i < 5000; i++) {
      places += 1 + i / 100;
      told += retryAfter.turnAway(DEFAULTS, 1000);
    }
    expect(Math.abs(told - places) / 5000).toBeLessThan(0.02);
  });

  it("draws at random, and from every second about equally often, where the maximum leaves no place", () => {
    const retryAfter = new RetryAfter(seeded(1));
    for (let i = 0; i < 100_000; i++) retryAfter.turnAway(DEFAULTS, 1000);
    const perSecond = new Map<number, number>();
    for (let i = 0; i < 6000; i++) count(perSecond, retryAfter.turnAway(DEFAULTS, 1000));
    expect([...perSecond.keys()].toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 60 }, (_, i) => i + 1),
    );
    for (const times of perSecond.values()) {
      expect(times).toBeGreaterThan(50);
      expect(times).toBeLessThan(160);
    }
  });

  it("forgets those whose time has come, second by second", () => {
    const retryAfter = new RetryAfter(() => 0);
    for (let i = 0; i < 3000; i++) retryAfter.turnAway(DEFAULTS, 1000);
    expect(retryAfter.turnAway(DEFAULTS, 11_000)).toBe(21);
    expect(retryAfter.turnAway(DEFAULTS, 30_500)).toBe(1);
    expect(retryAfter.turnAway(DEFAULTS, 90_000)).toBe(1);
  });

  it("has no place left as soon as the maximum is reached, and has some again a second later", () => {
    const retryAfter = new RetryAfter(() => 0);
    const brief = { minMs: 1000, maxMs: 10_000, acceptRate: 10 };
    for (let i = 0; i < 1000; i++) retryAfter.turnAway(brief, 0);
    expect(retryAfter.turnAway(brief, 0)).toBe(1);
    for (let i = 0; i < 10; i++) expect(retryAfter.turnAway(brief, 1000)).toBeGreaterThan(8);
    expect(retryAfter.turnAway(brief, 1000)).toBe(1);
  });

  it("has a queue for each rate, whatever minimum and maximum the routes have", () => {
    const retryAfter = new RetryAfter(() => 0);
    for (let i = 0; i < 1000; i++) retryAfter.turnAway(DEFAULTS, 0);
    expect(retryAfter.turnAway({ ...DEFAULTS, acceptRate: 50 }, 0)).toBe(1);
    expect(retryAfter.turnAway({ ...DEFAULTS, minMs: 5000 }, 0)).toBe(15);
    expect(retryAfter.turnAway({ ...DEFAULTS, minMs: 1000 }, 0)).toBe(11);
    expect(retryAfter.queues).toBe(2);
  });

  it("keeps no queue in which nobody waits when another rate appears", () => {
    const retryAfter = new RetryAfter();
    for (let i = 1; i <= 1000; i++) {
      retryAfter.turnAway({ ...DEFAULTS, acceptRate: i }, i * 1001);
    }
    expect(retryAfter.queues).toBe(1);
  });

  it("says 0 only where the maximum is 0", () => {
    expect(new RetryAfter(() => 0).turnAway({ minMs: 0, maxMs: 0, acceptRate: 100 }, 0)).toBe(0);
    expect(new RetryAfter(() => 0).turnAway({ minMs: 0, maxMs: 60_000, acceptRate: 100 }, 0)).toBe(
      1,
    );
    expect(new RetryAfter(() => 0).turnAway({ minMs: 0, maxMs: 400, acceptRate: 100 }, 0)).toBe(1);
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
