/** The schedule of active health, on a clock of its own and with probes that a test answers. */
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { HealthConfig } from "../../../src/config/config.ts";
import { HealthCheck } from "../../../src/upstream/health.ts";
import type { HealthState } from "../../../src/upstream/health-tally.ts";
import type { Probe } from "../../../src/upstream/probe.ts";
import type { ProbeResult } from "../../../src/upstream/probe-attempt.ts";

const CONFIG: HealthConfig = {
  type: "http",
  path: "/healthz",
  intervalMs: 5_000,
  timeoutMs: 2_000,
  rise: 2,
  fall: 3,
  closeSessions: false,
};

const TARGET = { url: "ws://backend:9001", host: "backend", port: 9001 };

/** How a backend answers its probes: after a while, well or badly. */
interface Answer extends ProbeResult {
  readonly afterMs: number;
}

const FINE: Answer = { good: true, detail: "answered 200", afterMs: 5 };
const NEVER_ANSWERS: Answer = { good: false, detail: "no answer within 2000 ms", afterMs: 2_000 };
const ANSWERS_500: Answer = { good: false, detail: "answered 500", afterMs: 5 };
const HANDSHAKE_HANGS: Answer = {
  good: false,
  detail: "no answer to the handshake within 2000 ms",
  afterMs: 2_000,
};

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

interface Setup {
  readonly config?: Partial<HealthConfig>;
  readonly random?: () => number;
  readonly initial?: HealthState;
}

/** A check whose backend does as `answer` says at the time; all that happens is written down. */
function begin({ config = {}, random = () => 0.5, initial = "unknown" }: Setup = {}) {
  const started: number[] = [];
  const changes: { readonly isUp: boolean; readonly detail: string; readonly probes: number }[] =
    [];
  const ended: { readonly good: boolean; readonly durationMs: number }[] = [];
  const signals: AbortSignal[] = [];
  let running = 0;
  let most = 0;
  const backend = { answer: FINE };
  const probe: Probe = async (_target, _config, signal) => {
    started.push(performance.now());
    signals.push(signal);
    running += 1;
    most = Math.max(most, running);
    const { afterMs, ...result } = backend.answer;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, afterMs);
      signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
    running -= 1;
    return signal.aborted ? { good: false, detail: "aborted" } : result;
  };
  const check = new HealthCheck(
    TARGET,
    { ...CONFIG, ...config },
    {
      probe,
      observer: {
        probeEnded: (_backend, { good }, durationMs) => void ended.push({ good, durationMs }),
      },
      now: () => performance.now(),
      random,
    },
    (isUp, detail) => void changes.push({ isUp, detail, probes: ended.length }),
    initial,
  );
  const nextProbes = async (count: number): Promise<void> => {
    const target = ended.length + count;
    while (ended.length < target) await vi.advanceTimersToNextTimerAsync();
  };
  const mostAtOnce = (): number => most;
  return { check, backend, started, changes, ended, signals, nextProbes, mostAtOnce };
}

describe("a backend", () => {
  it.each([
    ["accepts TCP and never answers", NEVER_ANSWERS],
    ["answers 500", ANSWERS_500],
    ["lets the WebSocket handshake hang", HANDSHAKE_HANGS],
  ])("that %s is down after `fall` probes and up after `rise`", async (_title, answer) => {
    const { check, backend, changes, nextProbes } = begin();
    check.start();
    await nextProbes(4);
    backend.answer = answer;
    await nextProbes(2);
    expect([check.isUp, changes]).toEqual([true, []]);
    await nextProbes(1);
    expect(check.isUp).toBe(false);
    await nextProbes(2);
    backend.answer = FINE;
    await nextProbes(1);
    expect(check.state).toBe("down");
    await nextProbes(1);
    expect(check.state).toBe("up");
    expect(changes).toEqual([
      { isUp: false, detail: answer.detail, probes: 7 },
      { isUp: true, detail: "answered 200", probes: 11 },
    ]);
    check.stop();
  });

  it("counts as up before its first probe, and its first good one is no change", async () => {
    const { check, changes, nextProbes } = begin();
    check.start();
    expect([check.state, check.isUp, check.detail]).toEqual(["unknown", true, ""]);
    await nextProbes(3);
    expect([check.state, check.detail, changes]).toEqual(["up", "answered 200", []]);
    check.stop();
  });

  it("that never was good is down after `fall` probes", async () => {
    const { check, backend, changes, nextProbes } = begin();
    backend.answer = ANSWERS_500;
    check.start();
    await nextProbes(3);
    expect(changes).toEqual([{ isUp: false, detail: "answered 500", probes: 3 }]);
    check.stop();
  });

  it("that an earlier check knew as down comes back by `rise` only", async () => {
    const { check, changes, nextProbes } = begin({ initial: "down" });
    check.start();
    expect(check.isUp).toBe(false);
    await nextProbes(2);
    expect(changes).toEqual([{ isUp: true, detail: "answered 200", probes: 2 }]);
    check.stop();
  });
});

describe("the schedule", () => {
  it("begins at once, spread over half a second", async () => {
    const starts = [0, 0.5, 0.999].map((random) => {
      const { check, started } = begin({ random: () => random });
      const at = performance.now();
      check.start();
      return { check, sinceStart: () => started.map((time) => time - at) };
    });
    await vi.advanceTimersByTimeAsync(500);
    expect(starts.map(({ sinceStart }) => sinceStart())).toEqual([[0], [250], [499]]);
    for (const { check } of starts) check.stop();
  });

  it("spreads the first probes over an interval where that is shorter", async () => {
    const { check, started } = begin({ config: { intervalMs: 100 }, random: () => 0.9 });
    const at = performance.now();
    check.start();
    await vi.advanceTimersByTimeAsync(95);
    expect(started.map((time) => time - at)).toEqual([90]);
    check.stop();
  });

  it("draws each interval from 10 % below to 10 % above, from start to start", async () => {
    const draws = [0, 0, 0.5, 0.75, 1];
    let drawn = 0;
    const { check, backend, started, nextProbes } = begin({
      random: () => draws[drawn++] ?? 0.5,
    });
    check.start();
    await nextProbes(2);
    // A slow one does not make the rhythm slower.
    backend.answer = NEVER_ANSWERS;
    await nextProbes(3);
    const gaps = started.slice(1).map((time, i) => time - (started[i] ?? 0));
    expect(gaps).toEqual([4_500, 5_000, 5_250, 5_500]);
    check.stop();
  });

  it("is no storm where the longest interval is drawn longer than a timer can be", async () => {
    const { check, started } = begin({
      config: { intervalMs: 2 ** 31 - 1 },
      random: () => 0.99,
    });
    check.start();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(started).toHaveLength(1);
    check.stop();
  });

  it("lets checks that began together drift apart", async () => {
    const checks = Array.from({ length: 20 }, () => begin({ random: Math.random }));
    for (const { check } of checks) check.start();
    for (let i = 0; i < 60; i += 1) await vi.advanceTimersByTimeAsync(5_000);
    const last = checks.map(({ started }) => started.at(-1) ?? 0);
    // After 60 intervals of 5 s, each with a deviation of 0.29 s, they stand spread over an interval.
    expect(Math.max(...last) - Math.min(...last)).toBeGreaterThan(1_500);
    for (const { check } of checks) check.stop();
  });

  it("never lets probes overlap where they take longer than the interval", async () => {
    const { check, backend, mostAtOnce, ended, started, nextProbes } = begin({
      config: { intervalMs: 500 },
    });
    backend.answer = NEVER_ANSWERS;
    check.start();
    await nextProbes(5);
    expect(mostAtOnce()).toBe(1);
    expect(ended.map(({ durationMs }) => durationMs)).toEqual([2_000, 2_000, 2_000, 2_000, 2_000]);
    expect((started[1] ?? 0) - (started[0] ?? 0)).toBe(2_000);
    check.stop();
  });
});

describe("stop", () => {
  it("leaves no timer while it waits, and is no change", async () => {
    const { check, backend, changes, started, nextProbes } = begin();
    check.start();
    await nextProbes(1);
    backend.answer = ANSWERS_500;
    expect(vi.getTimerCount()).toBe(1);
    check.stop();
    expect(vi.getTimerCount()).toBe(0);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([started.length, changes.length]).toEqual([1, 0]);
  });

  it("aborts the probe that is under way and takes no verdict from it", async () => {
    const { check, backend, changes, ended, signals } = begin({ config: { fall: 1 } });
    backend.answer = NEVER_ANSWERS;
    check.start();
    await vi.advanceTimersByTimeAsync(1_000);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
    check.stop();
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([vi.getTimerCount(), ended, changes, check.state]).toEqual([0, [], [], "unknown"]);
  });

  it("may be called by whom the change is told", async () => {
    const { check, backend, changes, started } = begin({ config: { fall: 1 } });
    backend.answer = ANSWERS_500;
    changes.push = (change) => {
      check.stop();
      return Array.prototype.push.call(changes, change);
    };
    check.start();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([changes.length, started.length, vi.getTimerCount()]).toEqual([1, 1, 0]);
  });

  it("is for good, before the start as well", async () => {
    const { check, started } = begin();
    check.stop();
    check.start();
    check.stop();
    await vi.advanceTimersByTimeAsync(60_000);
    expect([started.length, vi.getTimerCount()]).toEqual([0, 0]);
  });

  it("has no effect twice, nor has start", async () => {
    const { check, started, mostAtOnce } = begin();
    check.start();
    check.start();
    await vi.advanceTimersByTimeAsync(600);
    check.start();
    await vi.advanceTimersByTimeAsync(3_000);
    expect([started.length, mostAtOnce()]).toEqual([1, 1]);
    check.stop();
    check.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});

it("holds its rules whatever a backend does and whenever it is stopped", async () => {
  const answer = fc.record({
    good: fc.boolean(),
    detail: fc.constantFrom("a", "b"),
    afterMs: fc.integer({ min: 0, max: 2_000 }),
  });
  const setup = fc.record({
    answers: fc.array(answer, { minLength: 1, maxLength: 30 }),
    intervalMs: fc.integer({ min: 1, max: 5_000 }),
    rise: fc.integer({ min: 1, max: 4 }),
    fall: fc.integer({ min: 1, max: 4 }),
    stopAfterMs: fc.integer({ min: 0, max: 60_000 }),
    draws: fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })),
  });
  await fc.assert(
    fc.asyncProperty(setup, async ({ answers, stopAfterMs, draws, ...config }) => {
      const random = (): number => draws.next().value ?? 0;
      const { check, backend, changes, ended, started, mostAtOnce } = begin({ config, random });
      let asked = 0;
      Object.defineProperty(backend, "answer", {
        get: () => answers[asked++ % answers.length] ?? FINE,
      });
      check.start();
      await vi.advanceTimersByTimeAsync(stopAfterMs);
      check.stop();
      expect(vi.getTimerCount()).toBe(0);
      const before = changes.length;
      await vi.advanceTimersByTimeAsync(10_000);
      expect(changes).toHaveLength(before);
      expect(mostAtOnce()).toBeLessThanOrEqual(1);
      expect(started.length - ended.length).toBeLessThanOrEqual(1);
      changes.forEach(({ isUp, probes }, i) => {
        // Down first, then in turns; each after as many probes in a row as it takes.
        expect(isUp).toBe(i % 2 === 1);
        const decisive = ended.slice(0, probes).slice(isUp ? -config.rise : -config.fall);
        expect(decisive).toHaveLength(isUp ? config.rise : config.fall);
        expect(decisive.every(({ good }) => good === isUp)).toBe(true);
      });
      expect(check.isUp).toBe(changes.length % 2 === 0);
    }),
    { numRuns: 60 },
  );
});
