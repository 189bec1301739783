/** A pool whose backend warms up, in its own clock: cap and share grow, and who waits is served as they do. */
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Backend, Slot } from "../../../src/upstream/backend.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import { backendConfig, makePool, poolConfig } from "../../support/pool-config.ts";

const NONE: ReadonlySet<Backend> = new Set();
const RAMP_MS = 2_000;
const CAP = 20;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

function backendOf(pool: Pool, index: number): Backend {
  const backend = pool.backends[index];
  if (backend === undefined) throw new Error(`no backend ${index}`);
  return backend;
}

/** A probe has found it dead, and then well again. */
function recover(pool: Pool, backend: Backend): void {
  for (const isUp of [false, true]) {
    backend.isUp = isUp;
    pool.changed();
  }
}

function takeAll(pool: Pool): Slot[] {
  const slots: Slot[] = [];
  for (let slot = pool.takeSlot(NONE); slot !== null; slot = pool.takeSlot(NONE)) slots.push(slot);
  return slots;
}

it("lets a backend that has recovered fill up over slowStart, and serves the line as it does", async () => {
  const backends = [backendConfig({ maxConnections: CAP })];
  const pool = makePool({
    backends,
    slowStartMs: RAMP_MS,
    queue: { size: 100, timeoutMs: 60_000 },
  });
  const backend = backendOf(pool, 0);
  expect(takeAll(pool).map((slot) => slot.release())).toHaveLength(CAP);
  recover(pool, backend);
  const served: Slot[] = takeAll(pool);
  expect(served).toHaveLength(CAP / 10);
  for (let i = 0; i < 30; i += 1) {
    pool.wait((turn) => {
      if (typeof turn !== "string") served.push(turn);
    });
  }
  const counts: number[] = [];
  // Past the very moment of a step: timers are set in whole milliseconds.
  await vi.advanceTimersByTimeAsync(10);
  for (let elapsedMs = 0; elapsedMs < RAMP_MS; elapsedMs += 250) {
    counts.push(backend.connections);
    await vi.advanceTimersByTimeAsync(250);
  }
  // 2, and then 18 more over 2 s: 2.25 each 250 ms.
  expect(counts).toEqual([2, 4, 6, 8, 11, 13, 15, 17]);
  expect([backend.connections, pool.queueLength]).toEqual([CAP, 12]);
  // Full, and warm: nothing is left to wait for but slots.
  await vi.advanceTimersByTimeAsync(10_000);
  expect(backend.connections).toBe(CAP);
  pool.closeQueue();
  for (const slot of served) slot.release();
  expect(vi.getTimerCount()).toBe(0);
});

it("starts from the foot again when it goes down meanwhile", async () => {
  const backends = [backendConfig({ maxConnections: CAP })];
  const pool = makePool({ backends, slowStartMs: RAMP_MS });
  const backend = backendOf(pool, 0);
  recover(pool, backend);
  await vi.advanceTimersByTimeAsync(RAMP_MS / 2);
  expect(takeAll(pool).map((slot) => slot.release())).toHaveLength(11);
  recover(pool, backend);
  expect(takeAll(pool).map((slot) => slot.release())).toHaveLength(2);
});

it("gives a backend that joins a running pool its share bit by bit, and the first ones theirs at once", async () => {
  const backends = [backendConfig({ port: 1 })];
  const keys = { slowStartMs: RAMP_MS, balance: "roundRobin" as const };
  const pool = makePool({ ...keys, backends });
  pool.reconfigure(poolConfig({ ...keys, backends: [...backends, backendConfig({ port: 2 })] }));
  const [old, fresh] = [backendOf(pool, 0), backendOf(pool, 1)];
  expect([old.weight, fresh.weight]).toEqual([1, 0.1]);
  const slots = Array.from({ length: 110 }, () => pool.takeSlot(NONE));
  expect([old.connections, fresh.connections]).toEqual([100, 10]);
  await vi.advanceTimersByTimeAsync(RAMP_MS);
  expect([old.weight, fresh.weight]).toEqual([1, 1]);
  for (const slot of slots) slot?.release();
});
