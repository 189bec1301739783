import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { PatientTimeout } from "../../../src/upstream/patient-timeout.ts";

const TIMEOUT_MS = 1_000;
const STALL_MS = 60_000;
/** A tenth, and what timers are late by themselves. */
const LOSS_MS = 110;

const onTimeout = vi.fn<() => void>();
/** What the clock of the process is ahead of the timers, which run only with it. */
let stalledMs: number;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  onTimeout.mockReset();
  stalledMs = 0;
  const now = performance.now.bind(performance);
  vi.spyOn(performance, "now").mockImplementation(() => now() + stalledMs);
});

afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

function start(timeoutMs = TIMEOUT_MS): PatientTimeout {
  return new PatientTimeout(timeoutMs, onTimeout);
}

/** A stall, after which the timer that is due comes first. */
function stall(): void {
  stalledMs += STALL_MS;
  vi.advanceTimersToNextTimer();
}

describe("PatientTimeout", () => {
  it("is over exactly at its time, once", () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5_000 }), (timeoutMs) => {
        onTimeout.mockReset();
        start(timeoutMs);
        vi.advanceTimersByTime(timeoutMs - 1);
        expect(onTimeout).not.toHaveBeenCalled();
        vi.advanceTimersByTime(1);
        expect(onTimeout).toHaveBeenCalledTimes(1);
        expect(vi.getTimerCount()).toBe(0);
      }),
      { numRuns: 100 },
    );
  });

  it.each([0, 1, 250, 500, 850])("loses little by a stall after %d ms", (runMs) => {
    start();
    vi.advanceTimersByTime(runMs);
    stall();
    vi.advanceTimersByTime(TIMEOUT_MS - runMs - LOSS_MS);
    expect(onTimeout).not.toHaveBeenCalled();
    vi.advanceTimersByTime(LOSS_MS);
    expect(onTimeout).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("leaves time to read and answer after a stall at its very end, once", () => {
    start();
    vi.advanceTimersByTime(TIMEOUT_MS - 1);
    stall();
    expect(onTimeout).not.toHaveBeenCalled();
    vi.advanceTimersByTime(TIMEOUT_MS / 10 - 1);
    expect(onTimeout).not.toHaveBeenCalled();
    stall();
    expect(onTimeout).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("comes also where every turn is late", () => {
    start();
    for (let slice = 0; slice < 11; slice += 1) stall();
    expect(onTimeout).toHaveBeenCalledTimes(1);
  });

  it.each([0, 1, 500, TIMEOUT_MS - 1])("never comes once it is cleared, after %d ms", (runMs) => {
    const timeout = start();
    vi.advanceTimersByTime(runMs);
    timeout.clear();
    expect(vi.getTimerCount()).toBe(0);
  });

  it("never comes once it is cleared in the time that a stall has added", () => {
    const timeout = start();
    vi.advanceTimersByTime(TIMEOUT_MS - 1);
    stall();
    timeout.clear();
    expect(vi.getTimerCount()).toBe(0);
    expect(onTimeout).not.toHaveBeenCalled();
  });
});
