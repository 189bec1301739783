import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Backend } from "../../../src/upstream/backend.ts";
import { createBalancer } from "../../../src/upstream/balance.ts";
import { drawOf, rendezvous } from "../../../src/upstream/rendezvous.ts";
import { makeBackend } from "../../support/pool-config.ts";

interface Candidate {
  readonly url: string;
  readonly weight: number;
}

function candidates(weights: readonly number[]): Candidate[] {
  return weights.map((weight, i) => ({ url: `ws://chat-${i}.chat:8080`, weight }));
}

/** Alike but for a few digits, as real keys are: the hash has to do the mixing. */
const KEYS: Readonly<Record<string, readonly string[]>> = {
  "numbered users": Array.from({ length: 10_000 }, (_, i) => `user-${i}`),
  "neighbouring addresses": Array.from(
    { length: 10_000 },
    (_, i) => `10.1.${Math.floor(i / 250)}.${i % 250}`,
  ),
  "long tokens with the same start": Array.from(
    { length: 10_000 },
    (_, i) => `${"eyJhbGciOiJIUzI1NiJ9.".repeat(8)}${i.toString(36)}`,
  ),
  "tokens with the same end": Array.from({ length: 10_000 }, (_, i) => `${i};admin`),
};

function counts(all: readonly Candidate[], keys: readonly string[]): number[] {
  const found = new Map<Candidate | undefined, number>();
  for (const key of keys) {
    const winner = rendezvous(all, key);
    found.set(winner, (found.get(winner) ?? 0) + 1);
  }
  return all.map((candidate) => found.get(candidate) ?? 0);
}

/** Five standard deviations of an honest lot: one run in a million fails, and these keys are fixed. */
function tolerance(total: number, share: number): number {
  return 5 * Math.sqrt(total * share * (1 - share));
}

function backends(count: number): Backend[] {
  return Array.from({ length: count }, (_, i) => makeBackend({ host: `b${i}` }));
}

const URLS = fc.uniqueArray(fc.string({ minLength: 1, maxLength: 30 }), {
  minLength: 1,
  maxLength: 12,
});
const WEIGHT = fc.double({ min: 0.1, max: 10, noNaN: true });
const POOL = URLS.chain((urls) =>
  fc
    .array(WEIGHT, { minLength: urls.length, maxLength: urls.length })
    .map((weights) => urls.map((url, i) => ({ url, weight: weights[i] ?? 1 }))),
);
const MANY_KEYS = fc.array(fc.string({ unit: "binary" }), { minLength: 1, maxLength: 50 });

describe("rendezvous", () => {
  it.each(Object.keys(KEYS))("spreads %s evenly, within five standard deviations", (name) => {
    const keys = KEYS[name] ?? [];
    for (const size of [2, 3, 5, 8]) {
      const share = 1 / size;
      for (const count of counts(candidates(Array.from({ length: size }, () => 1)), keys)) {
        expect(Math.abs(count - keys.length * share)).toBeLessThan(tolerance(keys.length, share));
      }
    }
  });

  it.each(Object.keys(KEYS))("gives %s out by weight, 1 to 2 to 3", (name) => {
    const keys = KEYS[name] ?? [];
    const weights = [1, 2, 3];
    for (const [i, count] of counts(candidates(weights), keys).entries()) {
      const share = (weights[i] ?? 0) / 6;
      expect(Math.abs(count - keys.length * share)).toBeLessThan(tolerance(keys.length, share));
    }
  });

  it("spreads the keys of a backend that left evenly over the others", () => {
    const keys = KEYS["numbered users"] ?? [];
    const all = candidates([1, 1, 1, 1, 1]);
    const orphans = keys.filter((key) => rendezvous(all, key) === all[2]);
    const rest = all.filter((candidate) => candidate !== all[2]);
    for (const count of counts(rest, orphans)) {
      const expected = orphans.length / 4;
      expect(Math.abs(count - expected)).toBeLessThan(tolerance(orphans.length, 1 / 4));
    }
  });

  it("moves exactly the keys of a backend that leaves, and no others", () => {
    fc.assert(
      fc.property(POOL, MANY_KEYS, fc.nat(), (pool, keys, which) => {
        const gone = pool[which % pool.length];
        const rest = pool.filter((candidate) => candidate !== gone);
        for (const key of keys) {
          const before = rendezvous(pool, key);
          const after = rendezvous(rest, key);
          expect(after === before).toBe(before !== gone);
        }
      }),
    );
  });

  it("moves keys to a backend that joins only, and about its share of them", () => {
    const keys = KEYS["numbered users"] ?? [];
    const after = candidates([1, 1, 1, 1]);
    const before = after.slice(0, 3);
    const joined = after[3];
    const moved = keys.filter((key) => rendezvous(before, key) !== rendezvous(after, key));
    expect(moved.every((key) => rendezvous(after, key) === joined)).toBe(true);
    const off = Math.abs(moved.length - keys.length / 4);
    expect(off).toBeLessThan(tolerance(keys.length, 1 / 4));
  });

  it("moves keys to a backend that gains weight only, as slow start does step by step", () => {
    fc.assert(
      fc.property(POOL, MANY_KEYS, fc.nat(), (pool, keys, which) => {
        const index = which % pool.length;
        const heavier = pool.map((candidate, i) =>
          i === index ? { ...candidate, weight: candidate.weight * 1.5 } : candidate,
        );
        for (const key of keys) {
          const before = rendezvous(pool, key)?.url;
          const after = rendezvous(heavier, key)?.url;
          expect([before, pool[index]?.url]).toContain(after);
        }
      }),
    );
  });

  it("does not look at the order of the candidates", () => {
    fc.assert(
      fc.property(POOL, MANY_KEYS, (pool, keys) => {
        for (const key of keys) {
          expect(rendezvous(pool.toReversed(), key)).toBe(rendezvous(pool, key));
        }
      }),
    );
  });

  it("settles a tie by the URL", () => {
    // The only weight at which lots can be made to tie.
    const pool = candidates([0, 0, 0]);
    expect(rendezvous(pool, "a")).toBe(pool[0]);
    expect(rendezvous(pool.toReversed(), "a")).toBe(pool[0]);
  });

  it("draws numbers strictly between 0 and 1, so that every lot is finite and positive", () => {
    const text = fc.string({ unit: "binary", maxLength: 100 });
    fc.assert(
      fc.property(text, text, (key, url) => {
        const drawn = drawOf(key, url);
        expect(drawn).toBeGreaterThan(0);
        expect(drawn).toBeLessThan(1);
        const lot = -1 / Math.log(drawn);
        expect(Number.isFinite(lot) && lot > 0).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it("draws evenly, and anew for every backend", () => {
    const keys = KEYS["numbered users"] ?? [];
    const deciles = Array.from({ length: 10 }, () => 0);
    let product = 0;
    for (const key of keys) {
      const [a, b] = [drawOf(key, "ws://10.0.0.1:80"), drawOf(key, "ws://10.0.0.2:80")];
      deciles[Math.floor(a * 10)] = (deciles[Math.floor(a * 10)] ?? 0) + 1;
      product += (a - 0.5) * (b - 0.5);
    }
    for (const count of deciles) {
      expect(Math.abs(count - keys.length / 10)).toBeLessThan(tolerance(keys.length, 1 / 10));
    }
    // The correlation of two independent columns: its standard deviation is 1 / sqrt(n).
    expect(Math.abs((product / keys.length) * 12)).toBeLessThan(5 / Math.sqrt(keys.length));
  });

  it("draws no number twice for 10,000 keys", () => {
    for (const keys of Object.values(KEYS)) {
      expect(new Set(keys.map((key) => drawOf(key, "ws://a:1"))).size).toBe(keys.length);
    }
  });

  it("stays the same from version to version: gateways of one fleet must agree", () => {
    const pool = candidates([1, 1, 1, 1, 1]);
    const winners = ["", "a", "alice", "10.0.0.1", "2001:db8::1", "日本", "\ud800"].map((key) =>
      pool.findIndex((candidate) => candidate === rendezvous(pool, key)),
    );
    expect(winners).toEqual([1, 4, 1, 2, 3, 4, 0]);
  });

  it("has nobody to give where there is nobody", () => {
    expect(rendezvous([], "a")).toBeUndefined();
  });
});

describe("hash", () => {
  it("gives a key the same backend, however loaded that is", () => {
    const all = backends(4);
    const balancer = createBalancer("hash");
    const first = balancer.pick(all, "alice");
    for (let i = 0; i < 100; i += 1) {
      first?.takeSlot();
      expect(balancer.pick(all, "alice")).toBe(first);
    }
  });

  it("gives a key its next choice while the first is no candidate, and the first again after", () => {
    const all = backends(4);
    const balancer = createBalancer("hash");
    const first = balancer.pick(all, "alice");
    const others = all.filter((backend) => backend !== first);
    const second = balancer.pick(others, "alice");
    expect(second).not.toBe(first);
    expect(balancer.pick(others, "alice")).toBe(second);
    expect(balancer.pick(all, "alice")).toBe(first);
  });

  it.each([[null], [undefined]])("takes the least loaded backend when the key is %s", (key) => {
    const all = backends(3);
    const balancer = createBalancer("hash");
    for (let i = 0; i < 30; i += 1) balancer.pick(all, key)?.takeSlot();
    expect(all.map(({ connections }) => connections)).toEqual([10, 10, 10]);
  });
});
