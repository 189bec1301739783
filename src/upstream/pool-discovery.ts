/**
 * What a pool's configuration means once names are looked up: a backend whose host is a name stands for
 * one backend at each of its addresses, and follows them.
 */
import type { BackendConfig, PoolConfig } from "../config/config.ts";
import { Discovery, type Resolver } from "./discovery.ts";

export interface PoolDiscoveryDependencies {
  readonly resolve: Resolver;
  readonly random: () => number;
  /** The addresses behind a name are not the ones that they were. */
  readonly onChange: () => void;
  readonly onError: (pool: string, host: string, detail: string) => void;
}

export class PoolDiscovery {
  readonly #dependencies: PoolDiscoveryDependencies;
  /** By pool, host and interval, over reloads. */
  readonly #discoveries = new Map<string, Discovery>();

  constructor(dependencies: PoolDiscoveryDependencies) {
    this.#dependencies = dependencies;
  }

  /** Looks up what these pools need, and nothing else any more. */
  follow(pools: readonly PoolConfig[]): void {
    const wanted = new Map(
      pools.flatMap((pool) =>
        namesOf(pool).map(({ host }) => [keyOf(pool, host), { pool, host }] as const),
      ),
    );
    for (const [key, { pool, host }] of wanted) {
      if (this.#discoveries.has(key)) continue;
      const { resolve, random, onChange, onError } = this.#dependencies;
      const discovery = new Discovery(
        { host, intervalMs: pool.dns.intervalMs },
        { resolve, random },
        { onAddresses: onChange, onError: (detail) => onError(pool.name, host, detail) },
        this.#addressesOf(pool, host),
      );
      this.#discoveries.set(key, discovery);
      discovery.start();
    }
    // Last: what is not looked up any more may have been what the others began with.
    for (const [key, discovery] of this.#discoveries) {
      if (wanted.has(key)) continue;
      discovery.stop();
      this.#discoveries.delete(key);
    }
  }

  /** Whether every name of this pool has had an answer. */
  isAnswered(pool: PoolConfig): boolean {
    return namesOf(pool).every(({ host }) => this.#addressesOf(pool, host).length > 0);
  }

  /** The pool with addresses in place of names; a name without an answer yet has no backends. */
  resolved(pool: PoolConfig): PoolConfig {
    const names = new Set(namesOf(pool));
    if (names.size === 0) return pool;
    const backends = new Map<string, BackendConfig>();
    for (const backend of pool.backends) {
      const found = names.has(backend) ? this.#addressed(pool, backend) : [backend];
      // Two names may lead to the same address: it is one server, with one cap.
      for (const each of found) if (!backends.has(each.url)) backends.set(each.url, each);
    }
    return { ...pool, backends: [...backends.values()] };
  }

  /** What is looked up and has had no answer yet. */
  get unanswered(): ReadonlySet<string> {
    const all = [...this.#discoveries].filter(([, { addresses }]) => addresses.length === 0);
    return new Set(all.map(([key]) => key));
  }

  stop(): void {
    for (const discovery of this.#discoveries.values()) discovery.stop();
    this.#discoveries.clear();
  }

  #addressed(pool: PoolConfig, backend: BackendConfig): BackendConfig[] {
    return this.#addressesOf(pool, backend.host).map((address) => {
      const host = address.includes(":") ? `[${address}]` : address;
      return { ...backend, url: `ws://${host}:${backend.port}`, host: address, isName: false };
    });
  }

  /**
   * A name means the same in every pool, and however often it is looked up: a pool that gets another name,
   * or another interval, has lost no backend by that.
   */
  #addressesOf(pool: PoolConfig, host: string): readonly string[] {
    const own = this.#discoveries.get(keyOf(pool, host))?.addresses ?? [];
    if (own.length > 0) return own;
    const others = [...this.#discoveries.values()].filter((other) => other.host === host);
    return others.find(({ addresses }) => addresses.length > 0)?.addresses ?? [];
  }
}

function namesOf({ backends, dns }: PoolConfig): BackendConfig[] {
  return dns.intervalMs === 0 ? [] : backends.filter(({ isName }) => isName);
}

function keyOf({ name, dns }: PoolConfig, host: string): string {
  return `${name} ${host} ${dns.intervalMs}`;
}
