import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AcceptRate } from "../../../src/edge/accept-rate.ts";

function started() {
  const clock = { nowMs: 0, now: () => clock.nowMs };
  return { clock, rate: new AcceptRate(clock) };
}

function takeAll(rate: AcceptRate, name: string, acceptRate: number, tries = 10_000): number {
  let taken = 0;
  for (let i = 0; i < tries && rate.take({ name, acceptRate }); i += 1) taken += 1;
  return taken;
}

describe("acceptRate", () => {
  it("lets one second's worth in at once, then the rate", () => {
    const { clock, rate } = started();
    expect(takeAll(rate, "l", 100)).toBe(100);
    clock.nowMs += 10;
    expect(takeAll(rate, "l", 100)).toBe(1);
    clock.nowMs += 250;
    expect(takeAll(rate, "l", 100)).toBe(25);
    clock.nowMs += 3_600_000;
    expect(takeAll(rate, "l", 100)).toBe(100);
  });

  it("lets single handshakes in at less than one a second", () => {
    const { clock, rate } = started();
    expect(takeAll(rate, "l", 0.25)).toBe(1);
    clock.nowMs += 3_999;
    expect(takeAll(rate, "l", 0.25)).toBe(0);
    clock.nowMs += 1;
    expect(takeAll(rate, "l", 0.25)).toBe(1);
  });

  it("sets no limit at 0", () => {
    const { rate } = started();
    expect(takeAll(rate, "l", 0)).toBe(10_000);
    expect(rate.size).toBe(0);
  });

  it("counts every listener for itself", () => {
    const { rate } = started();
    expect(takeAll(rate, "a", 10)).toBe(10);
    expect(takeAll(rate, "b", 5)).toBe(5);
  });

  it("keeps its level when a reload changes the rate", () => {
    const { clock, rate } = started();
    expect(takeAll(rate, "l", 100)).toBe(100);
    expect(takeAll(rate, "l", 1_000)).toBe(0);
    clock.nowMs += 100;
    expect(takeAll(rate, "l", 1_000, 40)).toBe(40);
    expect(takeAll(rate, "l", 10)).toBe(10);
    expect(takeAll(rate, "l", 100)).toBe(0);
  });

  it("forgets listeners that are gone", () => {
    const { clock, rate } = started();
    for (let i = 0; i < 1_000; i += 1) {
      takeAll(rate, `listener-${i}`, 10);
      clock.nowMs += 500;
    }
    expect(rate.size).toBeLessThanOrEqual(2);
  });

  it("never lets more in than a second's worth plus rate times time, nor less than that at full demand", () => {
    const steps = fc.array(fc.tuple(fc.nat({ max: 2_000 }), fc.nat({ max: 200 })));
    fc.assert(
      fc.property(fc.double({ min: 1, max: 100, noNaN: true }), steps, (perSecond, sequence) => {
        const { clock, rate } = started();
        let passed = takeAll(rate, "l", perSecond);
        let demanded = true;
        for (const [pauseMs, tries] of sequence) {
          clock.nowMs += pauseMs;
          const taken = takeAll(rate, "l", perSecond, tries);
          passed += taken;
          // Only a bucket that was emptied each time, and never overflowed, owes all of it.
          demanded &&= taken < tries && 1 + (perSecond * pauseMs) / 1000 <= perSecond;
          const allowed = perSecond + (perSecond * clock.nowMs) / 1000;
          expect(passed).toBeLessThanOrEqual(allowed + 1e-6);
          expect(passed).toBeGreaterThan(demanded ? allowed - 1 - 1e-6 : 0);
        }
      }),
    );
  });
});
