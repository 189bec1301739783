import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { PoolConfig } from "../../../src/config/config.ts";
import type { Backend, Slot } from "../../../src/upstream/backend.ts";
import { Pools } from "../../../src/upstream/pools.ts";
import { backendConfig, poolConfig } from "../../support/pool-config.ts";

const NOBODY: ReadonlySet<Backend> = new Set();

/** Pools by name: each a list of hosts, with a cap behind a colon: `{ main: ["a", "b:2"] }`. */
function configsOf(pools: Readonly<Record<string, readonly string[]>>): PoolConfig[] {
  return Object.entries(pools).map(([name, entries]) => {
    const backends = entries.map((entry) => {
      const [host = "", cap = "0"] = entry.split(":");
      return backendConfig({ host, maxConnections: Number(cap) });
    });
    return poolConfig({ name, backends });
  });
}

const urlOf = (host: string): string => `ws://${host}:1`;

/** Backends that sessions were to leave, since the last change. */
let leaving: Backend[] = [];

function make(pools: Readonly<Record<string, readonly string[]>>): Pools {
  leaving = [];
  return new Pools(configsOf(pools), {
    now: () => performance.now(),
    random: () => 0.5,
    probe: () => Promise.reject(new Error("nothing is probed here")),
    resolve: () => Promise.reject(new Error("nothing is looked up here")),
    observer: {
      ejected: () => undefined,
      returned: () => undefined,
      probed: () => undefined,
      backendUp: () => undefined,
      backendDown: () => undefined,
      lookupFailed: () => undefined,
    },
    onLeaving: (backends) => leaving.push(...backends),
    onBackends: () => undefined,
    onReturning: () => undefined,
  });
}

/** The first that goes by this name. */
function named(pools: Pools, host: string): Backend[] {
  return [...pools.values()]
    .flatMap(({ backends }) => backends)
    .filter(({ url }) => url === urlOf(host));
}

/** Reconfigures; returns the hosts whose sessions have to leave. */
function change(pools: Pools, next: Readonly<Record<string, readonly string[]>>): string[] {
  leaving = [];
  pools.reconfigure(configsOf(next));
  return leaving.map(({ host }) => host);
}

function take(pools: Pools, pool: string, times = 1): Slot[] {
  return Array.from({ length: times }, () => {
    const slot = pools.get(pool)?.takeSlot(NOBODY) ?? null;
    if (slot === null) throw new Error(`no slot in ${pool}`);
    return slot;
  });
}

const connections = (pools: Pools, pool: string): number[] =>
  (pools.get(pool)?.backends ?? []).map((backend) => backend.connections);

describe("Pools", () => {
  it("keep the slots of a backend that stays, with its new cap", () => {
    const pools = make({ main: ["a"] });
    take(pools, "main", 3);
    expect(change(pools, { main: ["b", "a:2"] })).toEqual([]);
    expect(connections(pools, "main")).toEqual([0, 3]);
    // Above the smaller cap nobody is thrown out, and nobody let in.
    const [, a] = pools.get("main")?.backends ?? [];
    expect([a?.maxConnections, a?.available]).toEqual([2, false]);
    expect(take(pools, "main", 4).map(({ backend }) => backend.host)).toEqual(["b", "b", "b", "b"]);
  });

  it("drain what is removed, and show it until its last slot is free", () => {
    const pools = make({ main: ["a", "b"] });
    const slots = take(pools, "main", 4);
    expect(change(pools, { main: ["b"] })).toEqual(["a"]);
    expect(pools.left).toMatchObject([{ pool: "main", backend: { host: "a", draining: true } }]);
    expect([...pools.members()].map(({ backend }) => backend.host)).toEqual(["b", "a"]);
    expect(named(pools, "a")).toEqual([]);
    for (const slot of slots) slot.release();
    expect(pools.left).toEqual([]);
  });

  it("put back what comes back, with its slots, in whichever pool", () => {
    const pools = make({ main: ["a:5", "b"] });
    take(pools, "main", 4);
    change(pools, { main: ["b"] });
    expect(change(pools, { main: ["b"], other: ["a:3"] })).toEqual([]);
    const [a] = pools.get("other")?.backends ?? [];
    expect([a?.connections, a?.draining, a?.maxConnections]).toEqual([2, false, 3]);
    take(pools, "other");
    expect(pools.get("other")?.takeSlot(NOBODY)).toBeNull();
  });

  it("let nobody leave where a pool is only called otherwise", () => {
    const pools = make({ main: ["a", "b"] });
    take(pools, "main", 4);
    expect(pools.leftBy(configsOf({ primary: ["b", "a"] }))).toEqual([]);
    expect(change(pools, { primary: ["b", "a"] })).toEqual([]);
    expect(connections(pools, "primary")).toEqual([2, 2]);
    expect(pools.get("main")).toBeUndefined();
  });

  it("take what has lost its place just now before what has lost it earlier", () => {
    const pools = make({ one: ["a"], two: ["a"] });
    take(pools, "one", 1);
    take(pools, "two", 5);
    change(pools, { two: ["a"] });
    // Were the first one taken, five sessions would have to leave, although the backend only moves.
    expect(change(pools, { three: ["a"] })).toEqual([]);
    expect(connections(pools, "three")).toEqual([5]);
    expect(pools.left).toMatchObject([{ pool: "one", backend: { connections: 1 } }]);
  });

  it("leave an operator's drain as it is, unless the entry is taken out and put in again", () => {
    const pools = make({ main: ["a", "b"] });
    take(pools, "main", 4);
    const [a] = named(pools, "a");
    a?.drain();
    change(pools, { main: ["a:9", "b"] });
    expect(a?.draining).toBe(true);
    change(pools, { primary: ["a", "b"] });
    expect([a?.draining, named(pools, "a")[0] === a]).toEqual([true, true]);
    // Its sessions are to leave even if they did not while it was only drained.
    expect(change(pools, { primary: ["b"] })).toEqual(["a"]);
    change(pools, { primary: ["a", "b"] });
    expect([a?.draining, named(pools, "a")[0] === a]).toEqual([false, true]);
  });

  it("lose no slot and break no cap in any sequence of changes", () => {
    const entry = fc.tuple(fc.constantFrom("a", "b", "c"), fc.nat(3));
    const backends = fc
      .uniqueArray(entry, { selector: ([host]) => host, maxLength: 3 })
      .map((entries) => entries.map(([host, cap]) => `${host}:${cap}`));
    const layout = fc.dictionary(fc.constantFrom("p", "q", "r"), backends);
    const step = fc.oneof(
      { weight: 2, arbitrary: layout.map((next) => ({ kind: "change" as const, next })) },
      {
        weight: 5,
        arbitrary: fc.constantFrom("p", "q", "r").map((pool) => ({ kind: "take" as const, pool })),
      },
      { weight: 3, arbitrary: fc.nat().map((which) => ({ kind: "release" as const, which })) },
      {
        weight: 1,
        arbitrary: fc.constantFrom("a", "b", "c").map((host) => ({ kind: "drain" as const, host })),
      },
    );
    fc.assert(
      fc.property(layout, fc.array(step, { maxLength: 60 }), (first, steps) => {
        const pools = make(first);
        const held: Slot[] = [];
        for (const action of steps) {
          switch (action.kind) {
            case "change":
              changeAndCheck(pools, action.next);
              break;
            case "take": {
              const slot = pools.get(action.pool)?.takeSlot(NOBODY) ?? null;
              if (slot === null) break;
              held.push(slot);
              checkTaken(pools, action.pool, slot);
              break;
            }
            case "release":
              held.splice(action.which % Math.max(1, held.length), 1)[0]?.release();
              break;
            case "drain":
              for (const backend of named(pools, action.host)) backend.drain();
              break;
          }
          expect(countedIn(pools)).toEqual(countOf(held.map(({ backend }) => backend)));
        }
        for (const slot of held) slot.release();
        expect([...countedIn(pools), pools.left]).toEqual([[]]);
      }),
      { numRuns: 300 },
    );
  });
});

/** Slots by backend, of the backends that have some. */
function countedIn(pools: Pools): Map<Backend, number> {
  const counted = [...pools.members()].map(
    ({ backend }) => [backend, backend.connections] as const,
  );
  return new Map(counted.filter(([, count]) => count > 0));
}

function countOf(backends: readonly Backend[]): Map<Backend, number> {
  const counts = new Map<Backend, number>();
  for (const backend of backends) counts.set(backend, (counts.get(backend) ?? 0) + 1);
  return counts;
}

function checkTaken(pools: Pools, pool: string, { backend }: Slot): void {
  expect(pools.get(pool)?.backends).toContain(backend);
  const { connections: taken, maxConnections, draining } = backend;
  expect([draining, maxConnections > 0 && taken > maxConnections]).toEqual([false, false]);
}

function changeAndCheck(pools: Pools, next: Readonly<Record<string, readonly string[]>>): void {
  const before = [...pools.members()].map(({ pool, backend }) => ({ pool, backend }));
  const wereLeft = new Set(pools.left.map(({ backend }) => backend));
  const foretold = pools.leftBy(configsOf(next));
  leaving = [];
  pools.reconfigure(configsOf(next));
  const left = leaving;
  // As many of each; which of two with the same URL goes is the same, too.
  expect(new Set(left)).toEqual(new Set(foretold));
  for (const backend of left) expect(backend.draining).toBe(true);
  const now = new Map(
    [...pools.values()].flatMap(({ name, backends }) =>
      backends.map((backend) => [backend, name] as const),
    ),
  );
  const staying = before.filter(
    ({ pool, backend }) =>
      !wereLeft.has(backend) &&
      next[pool]?.some((entry) => entry.startsWith(`${backend.host}:`)) === true,
  );
  expect(staying.filter(({ pool, backend }) => now.get(backend) !== pool)).toEqual([]);
  // Nothing is made anew while something with its URL is left without a place.
  const known = new Set(before.map(({ backend }) => backend));
  const made = [...now.keys()].filter((backend) => !known.has(backend)).map(({ url }) => url);
  const spare = pools.left.map(({ backend }) => backend.url);
  expect(made.filter((url) => spare.includes(url))).toEqual([]);
}
