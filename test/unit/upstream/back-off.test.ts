import * as fc from "fast-check";
import { expect, it } from "vitest";
import { backoffMs } from "../../../src/upstream/back-off.ts";

const CONFIG = { initialMs: 1_000, factor: 2, maxMs: 30_000, jitter: 0.5 };

it("doubles from the first wait up to the longest", () => {
  const waits = [1, 2, 3, 4, 5, 6, 7, 1_000].map((retry) => backoffMs(CONFIG, retry, () => 0));
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
});

it("does not wait where the first wait is none, however many rounds there were", () => {
  const waits = [1, 2, 1_024, 1_025, 1_000_000].map((retry) =>
    backoffMs({ ...CONFIG, initialMs: 0 }, retry, () => 0.5),
  );
  expect(waits).toEqual([0, 0, 0, 0, 0]);
});

it("draws the jitter's share at random and never waits longer than the full wait", () => {
  expect(backoffMs(CONFIG, 1, () => 0.5)).toBe(750);
  expect(backoffMs({ ...CONFIG, jitter: 0 }, 3, Math.random)).toBe(4_000);
  const jitter = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(jitter, jitter, fc.integer({ min: 1, max: 100 }), (share, random, retry) => {
      const full = backoffMs({ ...CONFIG, jitter: 0 }, retry, () => 0);
      const wait = backoffMs({ ...CONFIG, jitter: share }, retry, () => random);
      expect(wait).toBeLessThanOrEqual(full);
      expect(wait).toBeGreaterThanOrEqual(full * (1 - share) - 1e-9);
    }),
  );
});
