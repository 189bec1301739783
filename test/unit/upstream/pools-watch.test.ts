/** All pools over reloads: what a backend takes with it, and who hears of a change. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { HealthConfig, PoolConfig } from "../../../src/config/config.ts";
import type { Backend } from "../../../src/upstream/backend.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import { Pools } from "../../../src/upstream/pools.ts";
import type { Turn } from "../../../src/upstream/waiting-line.ts";
import { backendConfig, poolConfig } from "../../support/pool-config.ts";

const NONE: ReadonlySet<Backend> = new Set();
const INTERVAL_MS = 1_000;
const HEALTH: HealthConfig = {
  type: "tcp",
  path: "/",
  intervalMs: INTERVAL_MS,
  timeoutMs: 500,
  rise: 2,
  fall: 2,
  closeSessions: false,
};
/** Some intervals: enough to be found down or up, whatever the jitter. */
const LONG_MS = 10 * INTERVAL_MS;

/** Ports at which a probe finds nothing. */
const dead = new Set<number>();
let pools: Pools;
/** What stands behind every name; it takes a while to find out. */
const RESOLVE_MS = 100;
let addresses: readonly string[];
const resolve = (): Promise<readonly string[]> =>
  new Promise((answer) => setTimeout(() => answer(addresses), RESOLVE_MS));
let left: string[];
let news: string[];

beforeEach(() => {
  vi.useFakeTimers();
  dead.clear();
  addresses = ["192.0.2.1", "192.0.2.2"];
  left = [];
  news = [];
});

afterEach(() => {
  pools.stop();
  const timers = vi.getTimerCount();
  vi.useRealTimers();
  if (timers !== 0) throw new Error(`${timers} timers are left`);
});

async function start(...configs: readonly PoolConfig[]): Promise<void> {
  pools = new Pools(configs, {
    now: () => performance.now(),
    random: () => 0.5,
    probe: async ({ port }) => ({ good: !dead.has(port), detail: "said so" }),
    resolve,
    observer: {
      ejected: () => undefined,
      returned: () => undefined,
      probed: () => undefined,
      lookupFailed: () => undefined,
      backendUp: (_pool, url) => void news.push(`${url.at(-1)} up`),
      backendDown: (_pool, url) => void news.push(`${url.at(-1)} down`),
    },
    onBackends: () => undefined,
    onReturning: () => undefined,
    onLeaving: (backends) => void left.push(...backends.map(({ url }) => url.slice(-1))),
  });
  const started = pools.start(0);
  await pass(1);
  await started;
}

const backends = (...ports: readonly number[]) => ports.map((port) => backendConfig({ port }));

function poolNamed(name: string): Pool {
  const pool = pools.get(name);
  if (pool === undefined) throw new Error(`no pool ${name}`);
  return pool;
}

function backendOf(name: string, port: number): Backend {
  const backend = poolNamed(name).backends.find((one) => one.port === port);
  if (backend === undefined) throw new Error(`no backend ${port} in ${name}`);
  return backend;
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe("A backend that is down by its probe", () => {
  const both = poolConfig({ backends: backends(1, 2), health: HEALTH });
  const other = poolConfig({ backends: backends(2), health: HEALTH });

  async function goDown(): Promise<Backend> {
    await start(both);
    const backend = backendOf("main", 1);
    // Held, so that it is remembered while it is in no pool.
    backend.takeSlot();
    dead.add(1);
    await pass(LONG_MS);
    expect([backend.isUp, news]).toEqual([false, ["1 down"]]);
    return backend;
  }

  it("comes up again after it was in no pool for a while", async () => {
    const backend = await goDown();
    pools.reconfigure([other]);
    await pass(LONG_MS);
    pools.reconfigure([both]);
    expect(backendOf("main", 1)).toBe(backend);
    expect([backend.isUp, backend.draining]).toEqual([false, false]);
    await pass(LONG_MS);
    expect(backend.isUp).toBe(false);
    dead.clear();
    await pass(LONG_MS);
    expect([backend.isUp, news]).toEqual([true, ["1 down", "1 up"]]);
    backend.takeSlot()?.release();
  });

  it("stays down over a reload that changes the probe, or the pool's name", async () => {
    const backend = await goDown();
    pools.reconfigure([{ ...both, health: { ...HEALTH, intervalMs: 2 * INTERVAL_MS } }]);
    expect(backend.isUp).toBe(false);
    pools.reconfigure([{ ...both, name: "other" }]);
    expect([backendOf("other", 1), backend.isUp]).toEqual([backend, false]);
    dead.clear();
    await pass(LONG_MS);
    expect(backend.isUp).toBe(true);
  });

  it("counts as up where a reload takes the probe away, and who waits is served there", async () => {
    await start(
      poolConfig({
        backends: [backendConfig({ port: 1, maxConnections: 1 })],
        health: HEALTH,
        queue: { size: 1, timeoutMs: 60_000 },
      }),
    );
    dead.add(1);
    await pass(LONG_MS);
    const pool = poolNamed("main");
    expect(pool.takeSlot(NONE)).toBeNull();
    const onTurn = vi.fn<(turn: Turn) => void>();
    pool.wait(onTurn);
    const queue = { size: 1, timeoutMs: 60_000 };
    pools.reconfigure([
      poolConfig({ backends: [backendConfig({ port: 1, maxConnections: 1 })], queue }),
    ]);
    expect(onTurn).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ backend: backendOf("main", 1) }),
    );
  });

  it("serves who waits as soon as it is up again", async () => {
    const queue = { size: 1, timeoutMs: 60_000 };
    await start(poolConfig({ backends: backends(1), health: HEALTH, queue }));
    dead.add(1);
    await pass(LONG_MS);
    const onTurn = vi.fn<(turn: Turn) => void>();
    poolNamed("main").wait(onTurn);
    await pass(LONG_MS);
    expect(onTurn).not.toHaveBeenCalled();
    dead.clear();
    await pass(LONG_MS);
    expect(onTurn).toHaveBeenCalledOnce();
  });
});

describe("A backend that leaves its pool", () => {
  const all = poolConfig({ backends: backends(1, 2) });
  const rest = poolConfig({ backends: backends(2) });

  it("is drained, and in service again with its slots when it comes back", async () => {
    await start(all);
    const backend = backendOf("main", 1);
    backend.takeSlot();
    pools.reconfigure([rest]);
    expect([backend.draining, left]).toEqual([true, ["1"]]);
    pools.reconfigure([all]);
    expect(backendOf("main", 1)).toBe(backend);
    expect([backend.draining, backend.available, backend.connections]).toEqual([false, true, 1]);
  });

  it("is forgotten without a slot", async () => {
    await start(all);
    const backend = backendOf("main", 1);
    pools.reconfigure([rest]);
    pools.reconfigure([all]);
    expect(backendOf("main", 1)).not.toBe(backend);
  });

  it("for one with another name only is not drained, and nobody has to leave", async () => {
    await start(all);
    const backend = backendOf("main", 1);
    backend.takeSlot();
    pools.reconfigure([{ ...all, name: "other" }]);
    expect([backendOf("other", 1), backend.draining, left]).toEqual([backend, false, []]);
  });

  it("stays drained by the operator where its pool only gets another name", async () => {
    await start(all);
    const backend = backendOf("main", 1);
    backend.takeSlot();
    pools.drain(backend.url);
    pools.reconfigure([{ ...all, name: "other" }]);
    expect([backendOf("other", 1), backend.draining]).toEqual([backend, true]);
    pools.undrain(backend.url);
    expect(backend.draining).toBe(false);
    // Drained by leaving, after that: coming back is enough again.
    pools.reconfigure([rest]);
    expect(backend.draining).toBe(true);
    pools.reconfigure([all]);
    expect([backendOf("main", 1), backend.draining]).toEqual([backend, false]);
    pools.drain(backend.url);
    pools.reconfigure([{ ...all, name: "third" }]);
    expect([backendOf("third", 1), backend.draining]).toEqual([backend, true]);
  });
});

const hosts = (name: string): string[] => poolNamed(name).backends.map(({ host }) => host);

describe("Backends behind a name", () => {
  const named = poolConfig({
    backends: [backendConfig({ host: "ws.example", port: 80, isName: true })],
    dns: { intervalMs: 30_000 },
  });

  it.each<[string, PoolConfig]>([
    ["asks at another interval", { ...named, dns: { intervalMs: 5_000 } }],
    ["gives their pool another name", { ...named, name: "other" }],
    ["does both", { ...named, name: "other", dns: { intervalMs: 5_000 } }],
  ])("stay over a reload that %s, and nobody has to leave", async (_how, next) => {
    await start(named);
    await pass(RESOLVE_MS);
    const before = poolNamed("main").backends;
    expect(hosts("main")).toEqual(["192.0.2.1", "192.0.2.2"]);
    for (const backend of before) backend.takeSlot();
    expect(pools.leftBy([next])).toEqual([]);
    pools.reconfigure([next]);
    expect(poolNamed(next.name).backends).toEqual(before);
    expect([left, before.map(({ draining }) => draining)]).toEqual([[], [false, false]]);
    addresses = ["192.0.2.2", "192.0.2.3"];
    await pass(RESOLVE_MS);
    expect(hosts(next.name)).toEqual(["192.0.2.2", "192.0.2.3"]);
    expect(before.map(({ draining }) => draining)).toEqual([true, false]);
  });

  it("are there at once for a second pool of the same name", async () => {
    await start(named);
    await pass(RESOLVE_MS);
    pools.reconfigure([named, { ...named, name: "second" }]);
    expect(hosts("second")).toEqual(["192.0.2.1", "192.0.2.2"]);
    await pass(RESOLVE_MS);
  });
});
