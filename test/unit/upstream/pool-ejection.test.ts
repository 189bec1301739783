/** Backends and pool together, as they are wired: who is ejected, who is tried, and who waits for it. */
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { EjectionConfig, PoolConfig } from "../../../src/config/config.ts";
import type { Backend, Slot } from "../../../src/upstream/backend.ts";
import { TRIAL_MS } from "../../../src/upstream/ejection.ts";
import { Pool } from "../../../src/upstream/pool.ts";
import type { Turn } from "../../../src/upstream/waiting-line.ts";
import { backendConfig, poolConfig } from "../../support/pool-config.ts";

const EJECTION: EjectionConfig = {
  failures: 3,
  windowMs: 1_000,
  durationMs: 10_000,
  maxDurationMs: 60_000,
};
const QUEUE = { size: 10, timeoutMs: 600_000 };
const NONE: ReadonlySet<Backend> = new Set();

let events: string[];

beforeEach(() => {
  vi.useFakeTimers({ now: 0 });
  events = [];
});

afterEach(() => {
  vi.useRealTimers();
});

const observer = {
  ejected: (_pool: string, url: string, ms: number) => void events.push(`${url.at(-1)} out ${ms}`),
  returned: (_pool: string, url: string) => void events.push(`${url.at(-1)} in`),
};

function configOf(caps: readonly number[], keys: Partial<PoolConfig> = {}): PoolConfig {
  const backends = caps.map((maxConnections, i) => backendConfig({ port: i + 1, maxConnections }));
  return poolConfig({ backends, ejection: EJECTION, queue: QUEUE, ...keys });
}

function poolOf(caps: readonly number[], keys: Partial<PoolConfig> = {}): Pool {
  return new Pool(configOf(caps, keys), { now: () => Date.now(), observer });
}

function backendOf(pool: Pool, port: number): Backend {
  const backend = pool.backends[port - 1];
  if (backend === undefined) throw new Error(`no backend ${port}`);
  return backend;
}

function slotOf(backend: Backend): Slot {
  const slot = backend.takeSlot();
  if (slot === null) throw new Error(`${backend.url} is not available`);
  return slot;
}

function end(slot: Slot, how: "good" | "bad" | "abandoned"): void {
  slot.judge(how);
  slot.release();
}

function fail(backend: Backend, times = EJECTION.failures): void {
  const slots = Array.from({ length: times }, () => slotOf(backend));
  for (const slot of slots) end(slot, "bad");
}

const out = (pool: Pool): number[] =>
  pool.backends.filter(({ ejected }) => ejected).map(({ port }) => port);
const pass = (ms: number): unknown => vi.advanceTimersByTime(ms);

describe("An ejection", () => {
  it("comes with that many slots judged bad; the pool uses the others, and tells so", () => {
    const pool = poolOf([0, 0]);
    fail(backendOf(pool, 1), 2);
    expect(out(pool)).toEqual([]);
    fail(backendOf(pool, 1), 1);
    expect([out(pool), events]).toEqual([[1], ["1 out 10000"]]);
    expect([backendOf(pool, 1).available, backendOf(pool, 1).inService]).toEqual([false, false]);
    const slots = Array.from({ length: 4 }, () => pool.takeSlot(NONE));
    expect(slots.map((slot) => slot?.backend.port)).toEqual([2, 2, 2, 2]);
    expect(backendOf(pool, 1).takeSlot()).toBeNull();
    expect(pool.pickForHttp()?.port).toBe(2);
  });

  it("does not come from slots judged good or abandoned, or given back without a word", () => {
    const pool = poolOf([0, 0]);
    for (let i = 0; i < 10; i += 1) {
      end(slotOf(backendOf(pool, 1)), "good");
      end(slotOf(backendOf(pool, 1)), "abandoned");
      slotOf(backendOf(pool, 1)).release();
    }
    expect([out(pool), events]).toEqual([[], []]);
  });

  it("counts the first word on a slot only", () => {
    const pool = poolOf([0, 0]);
    for (let i = 0; i < 10; i += 1) {
      const slot = slotOf(backendOf(pool, 1));
      slot.judge("good");
      end(slot, "bad");
    }
    const one = slotOf(backendOf(pool, 1));
    for (let i = 0; i < 10; i += 1) one.judge("bad");
    const given = slotOf(backendOf(pool, 1));
    given.release();
    for (let i = 0; i < 10; i += 1) given.judge("bad");
    expect(out(pool)).toEqual([]);
    fail(backendOf(pool, 1), 2);
    expect(out(pool)).toEqual([1]);
  });

  it("hits half of the pool at most, and a lone backend never", () => {
    const pool = poolOf([0, 0, 0, 0, 0]);
    for (const backend of pool.backends) fail(backend);
    expect(out(pool)).toEqual([1, 2]);
    const lone = poolOf([0]);
    fail(backendOf(lone, 1), 50);
    expect(out(lone)).toEqual([]);
  });

  it.each<[string, (backend: Backend) => void]>([
    ["found down by its probe", (backend) => void (backend.isUp = false)],
    ["drained", (backend) => backend.drain()],
  ])("is lifted when the last other one is %s", (_how, leave) => {
    const pool = poolOf([0, 0, 0]);
    fail(backendOf(pool, 1));
    leave(backendOf(pool, 2));
    pool.changed();
    expect(out(pool)).toEqual([1]);
    leave(backendOf(pool, 3));
    pool.changed();
    expect([out(pool), events]).toEqual([[], ["1 out 10000", "1 in"]]);
    expect(pool.takeSlot(NONE)?.backend.port).toBe(1);
  });

  it("does not hit the last that is not drained or down", () => {
    const pool = poolOf([0, 0, 0]);
    backendOf(pool, 2).drain();
    backendOf(pool, 3).isUp = false;
    fail(backendOf(pool, 1), 20);
    expect(out(pool)).toEqual([]);
  });

  it("is lifted when a reload leaves the pool without the others", () => {
    const pool = poolOf([0, 0]);
    fail(backendOf(pool, 1));
    pool.reconfigure(configOf([0]));
    expect([out(pool), pool.inService]).toEqual([[], true]);
  });

  it("is lifted in a pool that takes the backend over and has no other", () => {
    const pool = poolOf([0, 0]);
    const backend = backendOf(pool, 1);
    fail(backend);
    const heir = new Pool(configOf([0]), { now: () => Date.now(), observer }, () => backend);
    expect([heir.backends[0], backend.ejected]).toEqual([backend, false]);
    // From here on it is the new pool's to eject, and to serve.
    fail(backend);
    expect(backend.ejected).toBe(false);
  });

  it("goes along with a backend that another pool takes over, and asks that one's rule", () => {
    const backend = backendOf(poolOf([0, 0]), 1);
    const adopt = ({ port }: { port: number }): Backend | null => (port === 1 ? backend : null);
    const heir = new Pool(configOf([0, 0]), { now: () => Date.now(), observer }, adopt);
    fail(backendOf(heir, 2));
    fail(backend);
    expect(out(heir)).toEqual([2]);
  });

  it("ends where a reload turns it off, and the trial that is under way ejects nobody", () => {
    const pool = poolOf([1, 1], { ejection: { ...EJECTION, failures: 1 } });
    fail(backendOf(pool, 1), 1);
    pass(10_000);
    const trial = slotOf(backendOf(pool, 1));
    pool.reconfigure(configOf([1, 1], { ejection: null }));
    expect([out(pool), events]).toEqual([[], ["1 out 10000", "1 in"]]);
    end(trial, "bad");
    expect([out(pool), events.length]).toEqual([[], 2]);
    expect(backendOf(pool, 1).available).toBe(true);
  });

  it("of a backend that has left its pool does not come", () => {
    const pool = poolOf([0, 0, 0]);
    const backend = backendOf(pool, 1);
    const slots = Array.from({ length: 9 }, () => slotOf(backend));
    pool.reconfigure(
      poolConfig({ ...configOf([0, 0, 0]), backends: [backendConfig({ port: 9 })] }),
    );
    for (const slot of slots) end(slot, "bad");
    expect([backend.ejected, events]).toEqual([false, []]);
  });
});

/** The first backend, whose trial is due. */
function due(caps: readonly number[] = [5, 1]): { pool: Pool; backend: Backend } {
  const pool = poolOf(caps);
  const backend = backendOf(pool, 1);
  fail(backend);
  pass(9_999);
  expect(backend.available).toBe(false);
  pass(1);
  return { pool, backend };
}

describe("A trial", () => {
  it("is one session, however much room there is, until it is judged", () => {
    const { backend } = due();
    expect([backend.available, backend.ejected]).toEqual([true, true]);
    const trial = slotOf(backend);
    expect([backend.available, backend.takeSlot(), backend.full]).toEqual([false, null, false]);
    trial.judge("good");
    expect([backend.available, backend.ejected]).toEqual([true, false]);
  });

  it("is judged once: what comes later is no news", () => {
    const { backend } = due();
    const trial = slotOf(backend);
    trial.judge("bad");
    expect(events).toEqual(["1 out 10000", "1 out 20000"]);
    trial.judge("good");
    trial.judge("bad");
    trial.release();
    expect(events).toHaveLength(2);
    pass(19_999);
    expect(backend.available).toBe(false);
    pass(1);
    expect(backend.available).toBe(true);
  });

  it("that is given back without a word leaves the next session its turn", () => {
    const { backend } = due();
    slotOf(backend).release();
    expect([backend.available, backend.ejected]).toEqual([true, true]);
    end(slotOf(backend), "good");
    expect([backend.ejected, events.at(-1)]).toEqual([false, "1 in"]);
  });

  it("has passed when it has lived long enough since its dial", () => {
    const { backend } = due();
    const trial = slotOf(backend);
    pass(60_000);
    expect(backend.ejected).toBe(true);
    trial.connected();
    pass(TRIAL_MS - 1);
    expect(backend.available).toBe(false);
    pass(1);
    expect([backend.available, backend.ejected]).toEqual([true, false]);
    // A session like any other from here on.
    end(trial, "bad");
    expect(backend.ejected).toBe(false);
    fail(backend, 2);
    expect(backend.ejected).toBe(true);
  });

  it("goes to the first who waits when it is due, and by its length lets in the others", () => {
    const pool = poolOf([5, 1]);
    const other = slotOf(backendOf(pool, 2));
    fail(backendOf(pool, 1));
    const turns: Turn[] = [];
    for (let i = 0; i < 4; i += 1) pool.wait((turn) => void turns.push(turn));
    pass(9_999);
    expect(turns).toEqual([]);
    pass(1);
    expect(turns).toHaveLength(1);
    const [trial] = turns;
    if (typeof trial !== "object") throw new Error("no slot");
    pass(2_000);
    trial.connected();
    pass(TRIAL_MS - 1);
    expect(turns).toHaveLength(1);
    // By time alone: nobody comes, goes or asks.
    pass(1);
    expect(turns).toHaveLength(4);
    for (const turn of turns) if (typeof turn === "object") turn.release();
    other.release();
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each(["bad", "abandoned"] as const)("that was %s leads to the next one in line", (how) => {
    const pool = poolOf([5, 1]);
    slotOf(backendOf(pool, 2));
    fail(backendOf(pool, 1));
    const turns: Turn[] = [];
    for (let i = 0; i < 3; i += 1) pool.wait((turn) => void turns.push(turn));
    pass(10_000);
    const [trial] = turns;
    if (typeof trial !== "object") throw new Error("no slot");
    end(trial, how);
    expect(turns).toHaveLength(how === "bad" ? 1 : 2);
    pass(20_000);
    expect(turns).toHaveLength(2);
    pool.closeQueue();
  });

  it("that was judged before its slot is free leads to the next one in line, too", () => {
    const pool = poolOf([5, 1]);
    slotOf(backendOf(pool, 2));
    fail(backendOf(pool, 1));
    const turns: Turn[] = [];
    for (let i = 0; i < 3; i += 1) pool.wait((turn) => void turns.push(turn));
    pass(10_000);
    const [trial] = turns;
    if (typeof trial !== "object") throw new Error("no slot");
    // Its session is closing, which may take seconds.
    trial.judge("abandoned");
    expect([turns.length, backendOf(pool, 1).connections]).toEqual([2, 2]);
    pool.closeQueue();
  });

  it("may be a session that is held, ahead of the line", () => {
    const { pool, backend } = due([3, 1]);
    const other = slotOf(backendOf(pool, 2));
    const slot = pool.takeSlotAhead(NONE);
    expect([slot?.backend, pool.takeSlotAhead(NONE)]).toEqual([backend, null]);
    other.release();
  });

  it("stays one where its passing is noticed while slots are handed out", () => {
    // Both of the others are out: one is due, the other one's trial passes in the same moment.
    const pool = poolOf([9, 9, 1, 1], { queue: QUEUE });
    for (const port of [3, 4]) slotOf(backendOf(pool, port));
    fail(backendOf(pool, 2));
    pass(TRIAL_MS);
    fail(backendOf(pool, 1));
    pass(5_000);
    slotOf(backendOf(pool, 2)).connected();
    const turns: Turn[] = [];
    pool.wait((turn) => void turns.push(turn));
    vi.setSystemTime(Date.now() + TRIAL_MS);
    const ahead = pool.takeSlotAhead(NONE);
    // Whoever got it: only one of them is on trial at 1.
    expect(backendOf(pool, 1).connections).toBe(1);
    expect(turns.length + (ahead === null ? 0 : 1)).toBeGreaterThan(0);
    pool.closeQueue();
  });
});

describe("A backend that warms up", () => {
  const slowStartMs = 10_000;

  it("gets a tenth at first, then more: cap and weight, after its probe has found it up again", () => {
    const pool = poolOf([20, 20], { slowStartMs });
    const backend = backendOf(pool, 1);
    expect([backend.weight, backend.full]).toEqual([1, false]);
    backend.isUp = true;
    expect(backend.weight).toBe(1);
    backend.isUp = false;
    backend.isUp = true;
    expect(backend.weight).toBeCloseTo(0.1);
    expect([backend.takeSlot(), backend.takeSlot(), backend.takeSlot()].map(Boolean)).toEqual([
      true,
      true,
      false,
    ]);
    pass(slowStartMs / 2);
    expect(backend.weight).toBeCloseTo(0.55);
    for (let i = 2; i < 11; i += 1) slotOf(backend);
    expect([backend.connections, backend.full, backend.maxConnections]).toEqual([11, true, 20]);
    pass(slowStartMs / 2);
    expect([backend.weight, backend.full]).toEqual([1, false]);
  });

  it("serves the line as its cap grows, without any other event", () => {
    const pool = poolOf([10], { slowStartMs });
    const backend = backendOf(pool, 1);
    backend.isUp = false;
    backend.isUp = true;
    pool.changed();
    const turns: number[] = [];
    for (let i = 0; i < 10; i += 1) pool.wait(() => void turns.push(Date.now()));
    pool.onRoom();
    expect(turns).toEqual([0]);
    for (let i = 0; i < 100; i += 1) pass(100);
    // 10 % at once, and 10 % more each ninth of the ramp.
    const expected = Array.from({ length: 10 }, (_, i) => (slowStartMs / 9) * i);
    for (const [i, at] of turns.entries()) expect(at - (expected[i] ?? 0)).toBeLessThanOrEqual(2);
    expect(turns).toHaveLength(10);
    expect(turns.every((at, i) => at >= (expected[i] ?? 0))).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("does so when it comes back from an ejection, and when it joins a running pool", () => {
    const pool = poolOf([10, 10], { slowStartMs });
    fail(backendOf(pool, 1));
    pass(10_000);
    end(slotOf(backendOf(pool, 1)), "good");
    expect(backendOf(pool, 1).weight).toBeCloseTo(0.1);
    pool.reconfigure(configOf([10, 10, 10], { slowStartMs }));
    expect(backendOf(pool, 3).weight).toBeCloseTo(0.1);
    expect(backendOf(pool, 2).weight).toBe(1);
  });

  it("does not in a pool that had no backends yet", () => {
    const pool = poolOf([], { slowStartMs });
    pool.reconfigure(configOf([10, 10], { slowStartMs }));
    expect(pool.backends.map(({ weight }) => weight)).toEqual([1, 1]);
  });
});

describe("A drain of backends with clients in line", () => {
  it("serves nobody there, and the first in line as soon as it is put back", () => {
    const pool = poolOf([1, 1]);
    const [first, second] = [slotOf(backendOf(pool, 1)), slotOf(backendOf(pool, 2))];
    const turns: Turn[] = [];
    for (let i = 0; i < 2; i += 1) pool.wait((turn) => void turns.push(turn));
    backendOf(pool, 1).drain();
    pool.changed();
    first.release();
    expect([turns, backendOf(pool, 1).takeSlot()]).toEqual([[], null]);
    second.release();
    expect(turns.map((turn) => (typeof turn === "object" ? turn.backend.port : turn))).toEqual([2]);
    backendOf(pool, 1).undrain();
    pool.changed();
    expect(turns.map((turn) => (typeof turn === "object" ? turn.backend.port : turn))).toEqual([
      2, 1,
    ]);
  });

  it("of all of them leaves the pool out of service, and the line waiting", () => {
    const pool = poolOf([1]);
    slotOf(backendOf(pool, 1));
    const turns: Turn[] = [];
    pool.wait((turn) => void turns.push(turn));
    backendOf(pool, 1).drain();
    pool.changed();
    expect([pool.inService, pool.queueLength, pool.pickForHttp()]).toEqual([false, 1, null]);
    pass(QUEUE.timeoutMs);
    expect(turns).toEqual(["timeout"]);
  });
});

type Act =
  | { readonly do: "take" | "ahead" }
  | { readonly do: "connect" | "release"; readonly which: number }
  | {
      readonly do: "judge";
      readonly which: number;
      readonly how: "good" | "bad" | "abandoned";
    }
  | { readonly do: "wait"; readonly ms: number }
  | { readonly do: "probe" | "drain"; readonly which: number; readonly on: boolean }
  | { readonly do: "reload"; readonly caps: readonly number[] };

const which = fc.nat({ max: 30 });
const act: fc.Arbitrary<Act> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constantFrom("take" as const, "ahead" as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constantFrom("connect" as const, "release" as const), which }),
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("judge" as const),
      which,
      how: fc.constantFrom("bad" as const, "bad" as const, "good" as const, "abandoned" as const),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      ms: fc.constantFrom(1, 500, 5_000, 10_000, 20_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom("probe" as const, "drain" as const),
      which,
      on: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("reload" as const),
      caps: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 5 }),
    }),
  },
);

it("keeps half of the pool in, one trial at a time, and the line served, whatever happens", () => {
  const nervous = { slowStartMs: 3_000, ejection: { ...EJECTION, failures: 1 } };
  const seen = { ejected: 0, trials: 0, lifted: 0, served: 0 };
  const property = (caps: readonly number[], acts: readonly Act[]): void => {
    vi.clearAllTimers();
    vi.setSystemTime(0);
    events = [];
    const pool = poolOf(caps, nervous);
    const slots: Slot[] = [];
    const trials = new Map<Backend, Slot>();
    const got = (slot: Slot, wasOut: boolean): void => {
      if (wasOut) {
        // Still out: only by a trial, of which there is one.
        if (trials.has(slot.backend)) throw new Error("two trials at once");
        trials.set(slot.backend, slot);
        seen.trials += 1;
      }
      slots.push(slot);
    };
    const over = (slot: Slot): void => {
      if (trials.get(slot.backend) === slot) trials.delete(slot.backend);
    };
    for (const one of acts) {
      const known = slots[("which" in one ? one.which : 0) % Math.max(1, slots.length)];
      const at = pool.backends[("which" in one ? one.which : 0) % pool.backends.length];
      const before = events.length;
      switch (one.do) {
        case "take":
        case "ahead": {
          const slot = one.do === "take" ? pool.takeSlot(NONE) : pool.takeSlotAhead(NONE);
          if (slot !== null) got(slot, slot.backend.ejected);
          else if (one.do === "take") {
            pool.wait((turn) => {
              if (typeof turn === "string") return;
              seen.served += 1;
              got(turn, turn.backend.ejected);
            });
          }
          break;
        }
        case "connect":
          known?.connected();
          break;
        case "judge":
          if (known === undefined) break;
          over(known);
          known.judge(one.how);
          break;
        case "release":
          if (known === undefined) break;
          over(known);
          slots.splice(slots.indexOf(known), 1);
          known.release();
          break;
        case "wait":
          vi.advanceTimersByTime(one.ms);
          break;
        case "probe":
          if (at !== undefined) at.isUp = one.on;
          pool.changed();
          break;
        case "drain":
          if (one.on) at?.drain();
          else at?.undrain();
          pool.changed();
          break;
        case "reload":
          pool.reconfigure(configOf(one.caps, nervous));
          break;
      }
      // Back in by its length or a lift: no trial any more.
      for (const backend of trials.keys()) if (!backend.ejected) trials.delete(backend);
      seen.ejected += events.slice(before).filter((event) => event.includes("out")).length;
      const lifted = one.do === "probe" || one.do === "drain" || one.do === "reload";
      if (lifted)
        seen.lifted += events.slice(before).filter((event) => event.endsWith("in")).length;
      const isOut = pool.backends.filter(({ ejected }) => ejected);
      expect(isOut.length).toBeLessThanOrEqual(Math.floor(pool.backends.length / 2));
      const alive = pool.backends.filter(({ isUp, draining }) => isUp && !draining);
      expect(pool.inService).toBe(alive.length > 0);
      for (const backend of trials.keys()) expect(backend.available).toBe(false);
      const free = pool.backends.some(({ available }) => available);
      if (free && pool.queueLength > 0) throw new Error("a slot lies idle");
      for (const backend of pool.backends) {
        const held = slots.filter((slot) => slot.backend === backend).length;
        expect(backend.connections).toBe(held);
      }
    }
    pool.closeQueue();
    for (const slot of slots) slot.release();
    expect(pool.backends.map(({ connections }) => connections).every((held) => held === 0)).toBe(
      true,
    );
    expect(vi.getTimerCount()).toBe(0);
  };
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 5 }),
      fc.array(act, { maxLength: 80, size: "max" }),
      property,
    ),
    { numRuns: 400 },
  );
  for (const [what, times] of Object.entries(seen)) expect(times, what).toBeGreaterThan(20);
});
