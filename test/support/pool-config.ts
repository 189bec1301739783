/** Configurations of pools and backends for unit tests: what a test does not say is calm and off. */
import type { BackendConfig, PoolConfig } from "../../src/config/config.ts";
import { Backend } from "../../src/upstream/backend.ts";
import { Pool } from "../../src/upstream/pool.ts";

/** One address, no cap; `url` follows from host and port. */
export function backendConfig(keys: Partial<BackendConfig> = {}): BackendConfig {
  const { host = "127.0.0.1", port = 1 } = keys;
  return {
    url: `ws://${host}:${port}`,
    host,
    port,
    isName: false,
    maxConnections: 0,
    weight: 1,
    ...keys,
  };
}

/** No queue, no probes, no ejection, no slow start, no look-ups. */
export function poolConfig(keys: Partial<PoolConfig> = {}): PoolConfig {
  return {
    name: "main",
    balance: "leastConnections",
    hashKey: null,
    backends: [backendConfig()],
    connectTimeoutMs: 2_000,
    queue: { size: 0, timeoutMs: 5_000 },
    health: null,
    ejection: null,
    slowStartMs: 0,
    dns: { intervalMs: 0 },
    ...keys,
  };
}

export function makePool(keys: Partial<PoolConfig> = {}, now = () => performance.now()): Pool {
  return new Pool(poolConfig(keys), { now });
}

/** One that is in no pool. */
export function makeBackend(keys: Partial<BackendConfig> = {}, onRoom = () => undefined): Backend {
  const home = {
    now: () => performance.now(),
    onRoom,
    mayEject: () => false,
    ejected: () => undefined,
    returned: () => undefined,
  };
  return new Backend(backendConfig(keys), { ejection: null, slowStartMs: 0 }, home);
}
