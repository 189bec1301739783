/** Connecting for a session that has lost its upstream: what holds whatever becomes of the dials. */
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { ConnectResult } from "../../../src/upstream/connect.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import { begin, DEFAULTS, giveBack, poolOf, taken } from "./connect-bench.ts";
import { FakeUpstream } from "./fake-upstream.ts";

vi.mock(import("../../../src/upstream/upstream-socket.ts"), async (original) => ({
  ...(await original()),
  UpstreamSocket: (await import("./fake-upstream.ts")).FakeUpstream,
}));

const HOUR_MS = 3_600_000;
const LOST = 1;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  FakeUpstream.reset();
});

const HOW = [
  "accept",
  "object",
  "refuse",
  "breakOff",
  "end",
  "busy",
  "notFound",
  "forbid",
  "silence",
] as const;

interface Fate {
  readonly how: (typeof HOW)[number];
  readonly afterMs: number;
}

const fates = fc.array(
  fc.record<Fate>({ how: fc.constantFrom(...HOW), afterMs: fc.integer({ min: 0, max: 6_000 }) }),
  { minLength: 1, maxLength: 12 },
);
const backends = fc.array(
  fc.record({
    maxConnections: fc.integer({ min: 0, max: 2 }),
    taken: fc.integer({ min: 0, max: 2 }),
  }),
  { minLength: 1, maxLength: 4 },
);
const settings = fc.record({
  attempts: fc.integer({ min: -1, max: 8 }),
  dialsPerRound: fc.integer({ min: 1, max: 4 }),
  timeoutMs: fc.integer({ min: 0, max: 60_000 }),
  rounds: fc.integer({ min: 0, max: 4 }),
  atOnce: fc.boolean(),
  drawn: fc.double({ min: 0, max: 0.999, noNaN: true }),
  jitter: fc.double({ min: 0, max: 1, noNaN: true }),
  abortAt: fc.option(fc.integer({ min: 0, max: 60_000 }), { nil: HOUR_MS }),
});
type Settings = typeof settings extends fc.Arbitrary<infer Value> ? Value : never;

interface Account {
  readonly results: readonly ConnectResult[];
  readonly aborted: boolean;
  readonly timersAfterAbort: number;
  /** Rules that a dial has broken. */
  readonly faults: readonly string[];
  readonly slots: readonly number[];
}

async function play(pool: Pool, script: readonly Fate[], chosen: Settings): Promise<Account> {
  FakeUpstream.reset();
  const { drawn, jitter, abortAt, ...options } = chosen;
  const from = performance.now();
  const before = taken(pool);
  const faults: string[] = [];
  let objects = false;
  let { rounds } = options;
  let tried = new Set([LOST]);
  const sinceLost = new Set<number>();
  let dialsInRound = 0;
  let roundsWithDials = 0;
  FakeUpstream.onDial = (dial) => {
    if (connecting.rounds !== rounds) {
      tried = new Set();
      dialsInRound = 0;
    }
    ({ rounds } = connecting);
    dialsInRound += 1;
    if (dialsInRound === 1) roundsWithDials += 1;
    if (dialsInRound > options.dialsPerRound) faults.push("one dial too many in a round");
    if (roundsWithDials > options.attempts) faults.push("one attempt too many");
    if (roundsWithDials !== connecting.attempts) faults.push("attempts are not counted");
    if (tried.has(dial.port)) faults.push(`backend ${dial.port} twice in a round`);
    tried.add(dial.port);
    // Not in each round: one may have no dials left for all of the others.
    sinceLost.add(dial.port);
    const left = pool.backends.some(({ port, available }) => available && !sinceLost.has(port));
    if (dial.port === LOST && left) faults.push("the lost backend before another one");
    if (dial.port === LOST) sinceLost.clear();
    if (performance.now() - from >= options.timeoutMs) faults.push("after the timeout");
    for (const [index, { maxConnections, connections }] of pool.backends.entries()) {
      const most = maxConnections === 0 ? Number.POSITIVE_INFINITY : maxConnections;
      if (connections > Math.max(most, before[index] ?? 0)) faults.push("over the cap");
    }
    const fate = script[(FakeUpstream.dials.length - 1) % script.length];
    if (fate === undefined) return;
    dial.after(fate.afterMs, () => {
      objects = fate.how === "object";
      if (fate.how === "object") dial.accept();
      else if (fate.how === "silence") dial.connect();
      else dial[fate.how]();
    });
  };
  const { connecting, results } = begin(pool, {
    ...options,
    backoff: { ...DEFAULTS, jitter },
    random: () => drawn,
    objection: () => (objects ? "deflate" : null),
  });
  await vi.advanceTimersByTimeAsync(abortAt);
  const aborted = results().length === 0;
  if (aborted) connecting.abort();
  const timersAfterAbort = vi.getTimerCount();
  await vi.advanceTimersByTimeAsync(HOUR_MS);
  return { results: results(), aborted, timersAfterAbort, faults, slots: taken(pool) };
}

it("no slot leaks, no dial is too many, too late or out of turn, and it ends once", async () => {
  const seen = { connected: 0, failed: 0, aborted: 0 };
  await fc.assert(
    fc.asyncProperty(
      backends,
      fc.constantFrom("roundRobin" as const, "leastConnections" as const),
      fates,
      settings,
      async (all, balance, script, chosen) => {
        const pool = poolOf(all, balance);
        const before = taken(pool);
        const account = await play(pool, script, chosen);
        const [result] = account.results;
        const isConnected = result?.kind === "connected";
        seen[account.aborted ? "aborted" : isConnected ? "connected" : "failed"] += 1;
        expect(account.faults).toEqual([]);
        expect(account.results).toHaveLength(account.aborted ? 0 : 1);
        expect(account.timersAfterAbort).toBe(0);
        expect(vi.getTimerCount()).toBe(0);
        const dials = FakeUpstream.dials.length;
        expect(result?.dials ?? dials).toBe(dials);
        expect(FakeUpstream.dials.filter(({ gone }) => !gone)).toHaveLength(isConnected ? 1 : 0);
        const inUse = isConnected ? pool.backends.indexOf(result.slot.backend) : -1;
        expect(account.slots).toEqual(before.map((slots, i) => (i === inUse ? slots + 1 : slots)));
        if (isConnected) await giveBack(account.results);
        expect(taken(pool)).toEqual(before);
      },
    ),
    { numRuns: 500 },
  );
  // Each way of ending was there, and more than once.
  expect(Math.min(...Object.values(seen))).toBeGreaterThan(20);
});
