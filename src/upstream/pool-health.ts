/** The active probes of all pools: one check for each backend of a pool that has `health`. */
import { isDeepStrictEqual } from "node:util";
import type { HealthConfig } from "../config/config.ts";
import type { Backend } from "./backend.ts";
import { HealthCheck, type HealthDependencies } from "./health.ts";
import type { Pool } from "./pool.ts";

export interface PoolHealthDependencies extends Omit<HealthDependencies, "observer"> {
  readonly onProbe: (pool: string, backend: string, isGood: boolean) => void;
  readonly onChange: (pool: Pool, backend: Backend, isUp: boolean, detail: string) => void;
}

interface Watched {
  readonly pool: Pool;
  readonly config: HealthConfig;
  readonly check: HealthCheck;
}

export class PoolHealth {
  readonly #dependencies: PoolHealthDependencies;
  readonly #watched = new Map<Backend, Watched>();

  constructor(dependencies: PoolHealthDependencies) {
    this.#dependencies = dependencies;
  }

  /** Probes the backends of these pools, and no others any more. */
  follow(pools: Iterable<readonly [pool: Pool, health: HealthConfig | null]>): void {
    const before = new Map(this.#watched);
    this.#watched.clear();
    for (const [pool, config] of pools) {
      if (config === null) {
        takeAsUp(pool);
        continue;
      }
      for (const backend of pool.backends) {
        const known = before.get(backend);
        if (known?.pool === pool && isDeepStrictEqual(known.config, config)) {
          this.#watched.set(backend, known);
          before.delete(backend);
        } else {
          this.#watched.set(backend, this.#watch(pool, backend, config, known));
        }
      }
    }
    for (const { check } of before.values()) check.stop();
  }

  /** What the last probe found, for people; null: the backend is not probed. */
  detailOf(backend: Backend): string | null {
    return this.#watched.get(backend)?.check.detail ?? null;
  }

  stop(): void {
    for (const { check } of this.#watched.values()) check.stop();
    this.#watched.clear();
  }

  #watch(pool: Pool, backend: Backend, config: HealthConfig, known: Watched | undefined): Watched {
    const { probe, now, random, onProbe, onChange } = this.#dependencies;
    const observer = {
      probeEnded: (url: string, { good }: { readonly good: boolean }) =>
        onProbe(pool.name, url, good),
    };
    const changed = (isUp: boolean, detail: string): void => {
      backend.isUp = isUp;
      pool.changed();
      onChange(pool, backend, isUp, detail);
    };
    // A dead backend does not come to life by a reload of how it is probed, or by coming back.
    const unprobed = backend.isUp ? "unknown" : "down";
    const check = new HealthCheck(
      backend,
      config,
      { probe, observer, now, random },
      changed,
      known?.check.state ?? unprobed,
    );
    check.start();
    return { pool, config, check };
  }
}

/** Nobody probes it any more: what a probe has found is no reason to leave a backend out. */
function takeAsUp(pool: Pool): void {
  const down = pool.backends.filter(({ isUp }) => !isUp);
  for (const backend of down) backend.isUp = true;
  if (down.length > 0) pool.changed();
}
