import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createBalancer } from "../../../src/upstream/balance.ts";
import { SlowStart } from "../../../src/upstream/slow-start.ts";
import { makeBackend } from "../../support/pool-config.ts";

const TIME = fc.double({ min: 0, max: 1e9, noNaN: true });
const DURATION = fc.integer({ min: 1, max: 3_600_000 });
const CAP = fc.integer({ min: 1, max: 1_000_000 });

function begun(durationMs: number, now: number): SlowStart {
  const subject = new SlowStart(durationMs);
  subject.begin(now);
  return subject;
}

describe("SlowStart", () => {
  it("gives the whole share before it has begun, and when it is off", () => {
    expect(new SlowStart(10_000).share(0)).toBe(1);
    const off = begun(0, 1_000);
    expect([off.share(1_000), off.capOf(7, 1_000), off.weightOf(3, 1_000)]).toEqual([1, 7, 3]);
    expect(off.capGrowsAtMs(7, 1_000)).toBeNull();
  });

  it("ramps from a tenth to the whole in a straight line", () => {
    const subject = begun(10_000, 500);
    const shares = [500, 3_000, 5_500, 10_499, 10_500, 99_000].map((now) => subject.share(now));
    const expected = [0.1, 0.325, 0.55, 0.99991, 1, 1];
    for (const [i, share] of shares.entries()) expect(share).toBeCloseTo(expected[i] ?? -1, 9);
    expect(shares.slice(-2)).toEqual([1, 1]);
  });

  it("ramps cap and weight alike, leaves at least one slot, and no limit is no limit", () => {
    const subject = begun(10_000, 0);
    expect([0, 5_000, 10_000].map((now) => subject.capOf(500, now))).toEqual([50, 275, 500]);
    expect([0, 5_000, 10_000].map((now) => subject.capOf(2, now))).toEqual([1, 1, 2]);
    expect([0, 5_000, 10_000].map((now) => subject.capOf(0, now))).toEqual([0, 0, 0]);
    expect(subject.weightOf(4, 5_000)).toBeCloseTo(2.2, 9);
  });

  it("starts from the foot again when the backend has come back once more", () => {
    const subject = begun(10_000, 0);
    subject.begin(9_000);
    expect(subject.share(9_000)).toBeCloseTo(0.1, 9);
  });

  it("never falls and stays in its bounds, even if the clock steps back", () => {
    fc.assert(
      fc.property(DURATION, TIME, TIME, TIME, CAP, (durationMs, start, a, b, max) => {
        const subject = begun(durationMs, start);
        const [early, late] = a < b ? [a, b] : [b, a];
        expect(subject.share(early)).toBeGreaterThanOrEqual(0.1);
        expect(subject.share(late)).toBeLessThanOrEqual(1);
        expect(subject.share(late)).toBeGreaterThanOrEqual(subject.share(early));
        expect(subject.capOf(max, early)).toBeGreaterThanOrEqual(1);
        expect(subject.capOf(max, late)).toBeLessThanOrEqual(max);
        expect(subject.capOf(max, late)).toBeGreaterThanOrEqual(subject.capOf(max, early));
        expect(subject.weightOf(5, early)).toBeGreaterThan(0);
      }),
    );
  });

  it("tells when the cap grows: not before, and by then it has", () => {
    fc.assert(
      fc.property(
        DURATION,
        TIME,
        fc.double({ min: 0, max: 1, noNaN: true }),
        CAP,
        (durationMs, start, progress, max) => {
          const subject = begun(durationMs, start);
          const now = start + durationMs * progress;
          const cap = subject.capOf(max, now);
          const at = subject.capGrowsAtMs(max, now);
          expect(at === null).toBe(cap === max);
          fc.pre(at !== null);
          expect(at).toBeGreaterThan(now);
          expect(at).toBeLessThanOrEqual(start + durationMs + 2);
          expect(subject.capOf(max, at)).toBeGreaterThan(cap);
          // A clock counts in milliseconds: an earlier one that will do would be a wait too long.
          expect(subject.capOf(max, Math.max(now, at - 2.5))).toBe(cap);
        },
      ),
    );
  });

  it("tells a time that is late enough where rounding falls short by a hair", () => {
    const subject = begun(900, 0);
    expect(subject.capOf(25, 659)).toBe(18);
    // (19 / 25 - 0.1) / 0.9 of 900 ms is 660 ms, by which the cap is 18.999999999999996.
    expect(subject.capGrowsAtMs(25, 659)).toBe(661);
  });

  it("leads to the whole cap in at most as many steps as there are slots", () => {
    const subject = begun(10_000, 0);
    let now = 0;
    let steps = 0;
    for (let at: number | null = 0; at !== null; at = subject.capGrowsAtMs(500, now)) {
      now = at;
      steps += 1;
    }
    expect(subject.capOf(500, now)).toBe(500);
    expect(steps).toBeLessThanOrEqual(500);
  });
});

it.each(["leastConnections", "roundRobin"] as const)(
  "gives a backend without a limit its share by weight alone, with %s",
  (balance) => {
    const subject = begun(10_000, 0);
    const all = [subject.weightOf(1, 0), 1].map((weight, i) =>
      makeBackend({ host: `b${i}`, weight }),
    );
    const balancer = createBalancer(balance);
    for (let i = 0; i < 1_100; i += 1) balancer.pick(all)?.takeSlot();
    const [warming, warm] = all.map(({ connections }) => connections);
    expect(Math.abs((warming ?? 0) - 100)).toBeLessThanOrEqual(1);
    expect(Math.abs((warm ?? 0) - 1_000)).toBeLessThanOrEqual(1);
  },
);
