/** A thousand sessions lose the same backend at once: how their dials spread, and what the cap lets in. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { ConnectResult } from "../../../src/upstream/connect.ts";
import { type BackendSetting, begin, poolOf, type Setting, taken } from "./connect-bench.ts";
import { FakeUpstream } from "./fake-upstream.ts";

vi.mock(import("../../../src/upstream/upstream-socket.ts"), async (original) => ({
  ...(await original()),
  UpstreamSocket: (await import("./fake-upstream.ts")).FakeUpstream,
}));

const SESSIONS = 1_000;
const BUCKET_MS = 50;
const HOUR_MS = 3_600_000;
const LOST = 1;
const SURVIVOR = 2;
const BACKOFF = { initialMs: 1_000, factor: 2, maxMs: 30_000, jitter: 0.5 };

let startedAt: number;

beforeEach(() => {
  vi.useFakeTimers();
  startedAt = performance.now();
});

afterEach(() => {
  const timers = vi.getTimerCount();
  vi.useRealTimers();
  FakeUpstream.reset();
  if (timers !== 0) throw new Error(`${timers} timers are left`);
});

/** Equal draws in every run. */
function drawer(): () => number {
  let state = 1;
  return () => {
    // Park and Miller's generator.
    state = (state * 48_271) % 2_147_483_647;
    return state / 2_147_483_647;
  };
}

function lose(settings: readonly BackendSetting[], setting: Setting = {}, count = SESSIONS) {
  const pool = poolOf(settings);
  const survivor = pool.backends[SURVIVOR - 1];
  let peak = 0;
  const answer = FakeUpstream.onDial;
  FakeUpstream.onDial = (dial) => {
    peak = Math.max(peak, survivor?.connections ?? 0);
    answer(dial);
  };
  const random = drawer();
  const sessions = Array.from({ length: count }, () =>
    begin(pool, { backoff: BACKOFF, random, ...setting }),
  );
  return {
    pool,
    results: (): ConnectResult[] => sessions.flatMap(({ results }) => results()),
    rounds: (): number => sessions.reduce((sum, { connecting }) => sum + connecting.rounds, 0),
    peak: () => peak,
  };
}

/** The largest share of the times that falls into one bucket. */
function largestShare(times: readonly number[]): number {
  const buckets = new Map<number, number>();
  for (const at of times) {
    const bucket = Math.floor(at / BUCKET_MS);
    buckets.set(bucket, (buckets.get(bucket) ?? 0) + 1);
  }
  return Math.max(...buckets.values()) / times.length;
}

/** When the survivor was dialled, by round: a session dials it once in each. */
function timesByRound(): number[][] {
  const rounds: number[][] = [];
  const dials = FakeUpstream.dials.filter(({ port }) => port === SURVIVOR);
  for (let from = 0; from < dials.length; from += SESSIONS) {
    rounds.push(dials.slice(from, from + SESSIONS).map(({ at }) => at - startedAt));
  }
  return rounds;
}

describe("A thousand sessions that nobody takes in", () => {
  /** Each session dials both backends in a round; the first round has the survivor only. */
  const ROUNDS = 4;
  const setting: Setting = { attempts: ROUNDS, timeoutMs: HOUR_MS };

  it("dial at once, then spread over half of each wait", async () => {
    FakeUpstream.onDial = (dial) => dial.refuse();
    const { results } = lose([{}, {}], setting);
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(results().map(({ dials }) => dials)).toEqual(Array(SESSIONS).fill(7));
    const rounds = timesByRound();
    expect(rounds.map(({ length }) => length)).toEqual(Array(ROUNDS).fill(SESSIONS));
    expect(Math.max(...(rounds[0] ?? []))).toBe(0);
    // Waits of 1, 2 and 4 s are shortened by up to a half: even over 500 ms 10 % would fall into a bucket,
    // and each round adds its own, wider draw. A few per cent more are chance.
    expect(rounds.map(largestShare)).toEqual([
      1,
      expect.toSatisfy((share: number) => share <= 0.13),
      expect.toSatisfy((share: number) => share <= 0.08),
      expect.toSatisfy((share: number) => share <= 0.05),
    ]);
    for (const [round, times] of rounds.entries()) {
      const longest = 1_000 * (2 ** round - 1);
      expect(Math.min(...times)).toBeGreaterThanOrEqual(longest / 2 - round);
      expect(Math.max(...times)).toBeLessThanOrEqual(longest + round);
    }
  });

  it("come back as one without jitter", async () => {
    FakeUpstream.onDial = (dial) => dial.refuse();
    lose([{}, {}], { ...setting, backoff: { ...BACKOFF, jitter: 0 } });
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(timesByRound().map(largestShare)).toEqual(Array(ROUNDS).fill(1));
  });
});

const lostSince = (): number => performance.now() - startedAt;
const dialTimes = (): number[] => FakeUpstream.dials.map(({ at }) => at - startedAt);

describe("Many sessions whose only backend is away", () => {
  const COUNT = 300;
  /** Of the configuration. */
  const TIMEOUT_MS = 30_000;

  it.each([20_000, 28_990])("for %i ms all find it again, with the defaults", async (awayMs) => {
    FakeUpstream.onDial = (dial) => (lostSince() < awayMs ? dial.refuse() : dial.accept());
    const { pool, results } = lose([{}], {}, COUNT);
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(connected(results())).toBe(COUNT);
    expect(Math.max(...dialTimes())).toBeLessThan(TIMEOUT_MS);
    expect(taken(pool)).toEqual([COUNT]);
    const ended = new Set<ConnectResult>();
    while (ended.size < COUNT) endOne(results(), ended);
    expect(taken(pool)).toEqual([0]);
  });

  it("for longer dial it a last time within the last second, not as one, and never later", async () => {
    FakeUpstream.onDial = (dial) => dial.refuse();
    const { results } = lose([{}], {}, COUNT);
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(results()).toHaveLength(COUNT);
    const last = dialTimes().filter((at) => at >= TIMEOUT_MS - 1_000);
    expect(last).toHaveLength(COUNT);
    // Over 500 ms each bucket gets 10 % of them; some per cent more are chance.
    expect(largestShare(last)).toBeLessThan(0.17);
    expect(Math.max(...last)).toBeLessThanOrEqual(TIMEOUT_MS - 500);
  });
});

const CAP = 300;
const answerSlowly = (dial: FakeUpstream): void => {
  if (dial.port === LOST) dial.refuse();
  else dial.after(20, (due) => due.accept());
};

/** Ends a session that is connected and has not ended. */
function endOne(results: readonly ConnectResult[], ended: Set<ConnectResult>): void {
  for (const result of results) {
    if (result.kind !== "connected" || ended.has(result)) continue;
    ended.add(result);
    result.connection.upstream.socket.destroy();
    result.slot.release();
    return;
  }
}

const connected = (results: readonly ConnectResult[]): number =>
  results.filter(({ kind }) => kind === "connected").length;

describe("A thousand sessions before a backend with room for 300", () => {
  it("all get in as places become free, never more than 300 at a time", async () => {
    FakeUpstream.onDial = answerSlowly;
    const { pool, results, peak } = lose([{}, { maxConnections: CAP }], {
      attempts: 1_000,
      timeoutMs: HOUR_MS,
      backoff: { ...BACKOFF, maxMs: 4_000 },
    });
    await vi.advanceTimersByTimeAsync(100);
    expect(connected(results())).toBe(CAP);
    const ended = new Set<ConnectResult>();
    while (connected(results()) < SESSIONS && performance.now() - startedAt < HOUR_MS) {
      endOne(results(), ended);
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      await vi.advanceTimersByTimeAsync(40);
    }
    expect(results()).toHaveLength(SESSIONS);
    expect(connected(results())).toBe(SESSIONS);
    expect(peak()).toBe(CAP);
    const late = FakeUpstream.dials.filter(({ port, at }) => port === SURVIVOR && at > startedAt);
    expect(late).toHaveLength(SESSIONS - CAP);
    expect(largestShare(late.map(({ at }) => at - startedAt))).toBeLessThan(0.05);
    while (ended.size < SESSIONS) endOne(results(), ended);
    expect(taken(pool)).toEqual([0, 0]);
  });

  it("are let in or told, each once, where nobody leaves; and no slot is lost", async () => {
    FakeUpstream.onDial = answerSlowly;
    const { pool, results, peak } = lose([{}, { maxConnections: CAP }]);
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(results()).toHaveLength(SESSIONS);
    expect(connected(results())).toBe(CAP);
    expect(peak()).toBe(CAP);
    expect(taken(pool)).toEqual([0, CAP]);
    expect(FakeUpstream.dials.every(({ at }) => at - startedAt < 30_000)).toBe(true);
    const ended = new Set<ConnectResult>();
    while (ended.size < CAP) endOne(results(), ended);
    expect(taken(pool)).toEqual([0, 0]);
  });

  it("hold the cap while half of the dials fail", async () => {
    let dials = 0;
    FakeUpstream.onDial = (dial) => {
      dials += 1;
      if (dials % 2 === 0) answerSlowly(dial);
      else dial.after(10, (due) => due.breakOff());
    };
    const { pool, results, peak } = lose([{}, { maxConnections: CAP }], { attempts: 20 });
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(results()).toHaveLength(SESSIONS);
    expect(connected(results())).toBe(CAP);
    expect(peak()).toBe(CAP);
    expect(taken(pool)).toEqual([0, CAP]);
    const ended = new Set<ConnectResult>();
    while (ended.size < CAP) endOne(results(), ended);
  });
});
