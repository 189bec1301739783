import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Backend, Slot } from "../../../src/upstream/backend.ts";
import { createBalancer } from "../../../src/upstream/balance.ts";
import { backendConfig, makeBackend, makePool } from "../../support/pool-config.ts";

function backends(weights: readonly number[], maxConnections = 0): Backend[] {
  return weights.map((weight, i) => makeBackend({ host: `b${i}`, maxConnections, weight }));
}

function pool(maxConnections: readonly number[], balance: "roundRobin" | "leastConnections") {
  const configs = maxConnections.map((max, i) =>
    backendConfig({ host: `b${i}`, maxConnections: max, weight: i + 1 }),
  );
  return makePool({ balance, backends: configs });
}

const WEIGHTS = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 });

describe("leastConnections", () => {
  it("lets equals take turns", () => {
    const [a, b, c] = backends([1, 1, 1]);
    if (a === undefined || b === undefined || c === undefined) throw new Error("three backends");
    const balancer = createBalancer("leastConnections");
    const picked = new Set([a, b, c].map(() => balancer.pick([a, b, c])));
    expect(picked.size).toBe(3);
  });

  it("keeps connections in proportion to the weights, give or take one", () => {
    fc.assert(
      fc.property(WEIGHTS, fc.integer({ min: 1, max: 200 }), (weights, count) => {
        const all = backends(weights);
        const balancer = createBalancer("leastConnections");
        for (let i = 0; i < count; i += 1) balancer.pick(all)?.takeSlot();
        const sum = weights.reduce((total, weight) => total + weight, 0);
        for (const { connections, weight } of all) {
          expect(Math.abs(connections - (count * weight) / sum)).toBeLessThan(weights.length);
        }
      }),
    );
  });

  it("fills a gap first", () => {
    const all = backends([1, 1]);
    const balancer = createBalancer("leastConnections");
    const slots: (Slot | null)[] = [];
    for (let i = 0; i < 10; i += 1) slots.push(balancer.pick(all)?.takeSlot() ?? null);
    for (const slot of slots) if (slot?.backend === all[0]) slot?.release();
    for (let i = 0; i < 5; i += 1) expect(balancer.pick(all)).toBe(all[0]?.takeSlot()?.backend);
  });
});

describe("roundRobin", () => {
  it("gives each its weight in every round, smoothly", () => {
    const all = backends([5, 1, 1]);
    const balancer = createBalancer("roundRobin");
    const names = Array.from({ length: 7 }, () => balancer.pick(all)?.host).join(" ");
    expect(names).toBe("b0 b0 b1 b0 b2 b0 b0");
  });

  it("is exact after any whole number of rounds", () => {
    fc.assert(
      fc.property(WEIGHTS, fc.integer({ min: 1, max: 5 }), (weights, rounds) => {
        const all = backends(weights);
        const balancer = createBalancer("roundRobin");
        const sum = weights.reduce((total, weight) => total + weight, 0);
        for (let i = 0; i < rounds * sum; i += 1) balancer.pick(all)?.takeSlot();
        expect(all.map(({ connections }) => connections)).toEqual(
          weights.map((weight) => weight * rounds),
        );
      }),
    );
  });
});

describe("Pool", () => {
  it.each(["roundRobin", "leastConnections"] as const)(
    "fills every cap to the last slot and no further with %s",
    (balance) => {
      const subject = pool([3, 1, 7], balance);
      const slots = Array.from({ length: 11 }, () => subject.takeSlot(new Set()));
      expect(slots).not.toContain(null);
      expect(subject.backends.map(({ connections }) => connections)).toEqual([3, 1, 7]);
      expect(subject.takeSlot(new Set())).toBeNull();
      slots[0]?.release();
      expect(subject.takeSlot(new Set())?.backend).toBe(slots[0]?.backend);
    },
  );

  it("never takes a slot of a backend that is excepted", () => {
    const subject = pool([0, 0], "leastConnections");
    const [first, second] = subject.backends;
    if (first === undefined || second === undefined) throw new Error("two backends");
    for (let i = 0; i < 20; i += 1) {
      expect(subject.takeSlot(new Set([first]))?.backend).toBe(second);
    }
    expect(subject.takeSlot(new Set([first, second]))).toBeNull();
  });

  it("serves plain HTTP from a full backend, without a slot", () => {
    const subject = pool([1], "roundRobin");
    subject.takeSlot(new Set());
    expect(subject.pickForHttp()).toBe(subject.backends[0]);
    expect(subject.backends[0]?.connections).toBe(1);
  });
});
