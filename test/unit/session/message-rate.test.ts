import * as fc from "fast-check";
import { expect, it } from "vitest";
import { MessageRate } from "../../../src/session/message-rate.ts";

function bucket(perSecond: number, burst: number) {
  const clock = { nowMs: 0, now: () => clock.nowMs };
  return { clock, rate: new MessageRate(perSecond, burst, clock) };
}

function takeAll(rate: MessageRate, limit = 10_000): number {
  let taken = 0;
  while (taken < limit && rate.take()) taken += 1;
  return taken;
}

it("lets a whole burst pass at once and not one more", () => {
  const { rate } = bucket(10, 25);
  expect(takeAll(rate)).toBe(25);
});

it("earns messages at the rate, up to the burst", () => {
  const { rate, clock } = bucket(10, 25);
  takeAll(rate);
  clock.nowMs += 100;
  expect(takeAll(rate)).toBe(1);
  clock.nowMs += 450;
  expect(takeAll(rate)).toBe(4);
  clock.nowMs += 3_600_000;
  expect(takeAll(rate)).toBe(25);
});

it("earns in fractions: a message every 10 s", () => {
  const { rate, clock } = bucket(0.1, 1);
  expect(takeAll(rate)).toBe(1);
  for (let s = 1; s < 10; s += 1) {
    clock.nowMs += 1_000;
    expect(rate.take()).toBe(false);
  }
  clock.nowMs += 1_001;
  expect(rate.take()).toBe(true);
});

it("never lets more pass than burst plus rate times time", () => {
  const steps = fc.array(fc.tuple(fc.integer({ min: 0, max: 2_000 }), fc.nat({ max: 50 })));
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100 }),
      fc.integer({ min: 1, max: 50 }),
      steps,
      (...run) => {
        const [perSecond, burst, sequence] = run;
        const { rate, clock } = bucket(perSecond, burst);
        let passed = 0;
        for (const [pauseMs, tries] of sequence) {
          clock.nowMs += pauseMs;
          passed += takeAll(rate, tries);
          expect(passed).toBeLessThanOrEqual(burst + (perSecond * clock.nowMs) / 1000 + 1e-6);
        }
      },
    ),
  );
});
