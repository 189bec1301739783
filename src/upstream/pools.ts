/**
 * All pools of the gateway, over reloads, with what watches their backends: probes and DNS. A backend
 * that leaves its pool is drained, and kept until its last slot is free: if it comes back meanwhile, in
 * whichever pool, it is still the same one.
 */
import type { BackendConfig, PoolConfig } from "../config/config.ts";
import type { Backend } from "./backend.ts";
import type { Resolver } from "./discovery.ts";
import { Pool, type PoolObserver } from "./pool.ts";
import { PoolDiscovery } from "./pool-discovery.ts";
import { PoolHealth } from "./pool-health.ts";
import type { Probe } from "./probe.ts";

/** Told of what happens to backends; implemented by metrics and log. */
export interface PoolsObserver extends PoolObserver {
  probed(pool: string, backend: string, isGood: boolean): void;
  backendUp(pool: string, backend: string, detail: string): void;
  backendDown(pool: string, backend: string, detail: string): void;
  lookupFailed(pool: string, host: string, detail: string): void;
}

export interface PoolsDependencies {
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly random: () => number;
  readonly probe: Probe;
  readonly resolve: Resolver;
  readonly observer: PoolsObserver;
  /** The backends are not the ones that they were: by a reload, or by DNS. */
  readonly onBackends: (pools: readonly Pool[]) => void;
  /** Sessions have to leave these backends. */
  readonly onLeaving: (backends: readonly Backend[]) => void;
  /** Backends that sessions were to leave may be in service again. */
  readonly onReturning: () => void;
}

/** A backend and the pool that it belongs, or last belonged, to. */
export interface PoolMember {
  readonly pool: string;
  readonly backend: Backend;
}

export class Pools {
  readonly #dependencies: PoolsDependencies;
  readonly #pools = new Map<string, Pool>();
  /** Backends that are in no pool any more, with the last one. */
  readonly #leaving = new Map<Backend, string>();
  readonly #discovery: PoolDiscovery;
  readonly #health: PoolHealth;
  #configs: readonly PoolConfig[] = [];
  /** The same with addresses for names, as the pools have it. */
  #applied: readonly PoolConfig[] = [];
  /** A name that is looked up may have got its first answer. */
  #onAnswer: (() => void) | null = null;
  #isStarted = false;

  constructor(configs: readonly PoolConfig[], dependencies: PoolsDependencies) {
    const { now, random, probe, resolve, observer } = dependencies;
    this.#dependencies = dependencies;
    this.#discovery = new PoolDiscovery({
      resolve,
      random,
      onChange: () => this.#apply(),
      onError: observer.lookupFailed.bind(observer),
    });
    this.#health = new PoolHealth({
      probe,
      now,
      random,
      onProbe: observer.probed.bind(observer),
      onChange: (pool, backend, isUp, detail) => this.#probed(pool, backend, isUp, detail),
    });
    this.#configs = configs;
    this.#apply();
  }

  /** Begins to probe and to look names up. Resolves when every name has an answer, or after `waitMs`. */
  async start(waitMs: number): Promise<void> {
    this.#isStarted = true;
    await this.lookUp(this.#configs, waitMs);
    if (this.#isStarted) this.#watch();
  }

  /**
   * Begins to look up what a configuration needs that may be next, so that its pools are not empty at
   * first. Resolves when every name that is new has an answer, or after `waitMs`.
   */
  async lookUp(configs: readonly PoolConfig[], waitMs: number): Promise<void> {
    const waitedFor = this.#discovery.unanswered;
    this.#discovery.follow([...this.#configs, ...configs]);
    const isOver = (): boolean =>
      [...this.#discovery.unanswered].every((name) => waitedFor.has(name));
    if (isOver()) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, waitMs);
      this.#onAnswer = () => {
        if (!isOver()) return;
        clearTimeout(timer);
        resolve();
      };
    });
    this.#onAnswer = null;
  }

  /** Probes and looks up no more, and nobody waits for a slot any more. */
  stop(): void {
    this.#isStarted = false;
    this.#discovery.stop();
    this.#health.stop();
    this.closeQueues();
    this.#onAnswer?.();
  }

  closeQueues(): void {
    for (const pool of this.#pools.values()) pool.closeQueue();
  }

  get(name: string): Pool | undefined {
    return this.#pools.get(name);
  }

  /** In the order of the configuration. */
  values(): IterableIterator<Pool> {
    return this.#pools.values();
  }

  /** Every backend that has slots or may get some, the leaving ones last. */
  *members(): Generator<PoolMember> {
    for (const { name: pool, backends } of this.#pools.values()) {
      for (const backend of backends) yield { pool, backend };
    }
    yield* this.left;
  }

  /** Backends that are in no pool any more and still have slots. */
  get left(): PoolMember[] {
    this.#forgetEmpty();
    return Array.from(this.#leaving, ([backend, pool]) => ({ pool, backend }));
  }

  /** What the last probe of a backend found, for people; null: it is not probed. */
  probeDetail(backend: Backend): string | null {
    return this.#health.detailOf(backend);
  }

  /** Takes the backends that go by this URL out of service; one for each pool that has it. */
  drain(url: string): Backend[] {
    return this.#change(url, (backend) => backend.drain());
  }

  undrain(url: string): Backend[] {
    const backends = this.#change(url, (backend) => backend.undrain());
    this.#dependencies.onReturning();
    return backends;
  }

  /** Backends that no pool of this configuration would take: their sessions would have to leave. */
  leftBy(configs: readonly PoolConfig[]): Backend[] {
    const resolved = configs.map((config) => this.#resolved(config));
    // What goes from one pool may come to another one, once for each.
    const wanted = new Map<string, number>();
    for (const { name, backends } of resolved) {
      const staying = urlsOf(this.#pools.get(name)?.backends);
      for (const { url } of backends) {
        if (!staying.has(url)) wanted.set(url, (wanted.get(url) ?? 0) + 1);
      }
    }
    return this.#goingWith(resolved)
      .map(({ backend }) => backend)
      .filter(({ url }) => {
        const places = wanted.get(url) ?? 0;
        if (places > 0) wanted.set(url, places - 1);
        return places === 0;
      });
  }

  /** Takes a new configuration. */
  reconfigure(configs: readonly PoolConfig[]): void {
    this.#configs = configs;
    if (this.#isStarted) this.#discovery.follow(configs);
    this.#apply();
  }

  /** One that an operator has drained stays drained unless its entry is taken out and put in again. */
  #apply(): void {
    const configs = this.#configs.map((config) => this.#resolved(config));
    const going = this.#goingWith(configs);
    const spare = new Spare(going, this.#leaving);
    const before = new Map(this.#pools);
    this.#applied = configs;
    this.#pools.clear();
    for (const config of configs) {
      const adopt = ({ url }: BackendConfig): Backend | null => {
        const adopted = spare.take(config.name, url);
        if (adopted !== null && this.#leaving.delete(adopted)) adopted.undrain();
        return adopted;
      };
      const pool = before.get(config.name);
      before.delete(config.name);
      pool?.reconfigure(config, adopt);
      this.#pools.set(config.name, pool ?? new Pool(config, this.#dependencies, adopt));
    }
    for (const pool of before.values()) pool.closeQueue();
    if (this.#isStarted) this.#watch();
    const left = going.filter(({ backend }) => spare.has(backend));
    for (const { pool, backend } of left) {
      this.#leaving.set(backend, pool);
      backend.drain();
    }
    this.#forgetEmpty();
    if (this.#isStarted) this.#dependencies.onBackends([...this.#pools.values()]);
    this.#dependencies.onReturning();
    if (left.length > 0) this.#dependencies.onLeaving(left.map(({ backend }) => backend));
    this.#onAnswer?.();
  }

  /** With addresses for names. As long as one is missing the pool keeps what it has: it may be behind it. */
  #resolved(config: PoolConfig): PoolConfig {
    const resolved = this.#discovery.resolved(config);
    if (this.#discovery.isAnswered(config)) return resolved;
    const before = this.#applied.find(({ name }) => name === config.name)?.backends ?? [];
    const known = urlsOf(resolved.backends);
    const kept = before.filter(({ url }) => !known.has(url));
    return { ...resolved, backends: [...resolved.backends, ...kept] };
  }

  /** What is in a pool that will have no such backend, or will not be there. */
  #goingWith(configs: readonly PoolConfig[]): PoolMember[] {
    const next = new Map(configs.map(({ name, backends }) => [name, urlsOf(backends)]));
    return [...this.#pools.values()].flatMap(({ name: pool, backends }) =>
      backends
        .filter(({ url }) => next.get(pool)?.has(url) !== true)
        .map((backend) => ({ pool, backend })),
    );
  }

  #watch(): void {
    this.#health.follow(
      this.#configs.flatMap(({ name, health }) => {
        const pool = this.#pools.get(name);
        return pool === undefined ? [] : [[pool, health] as const];
      }),
    );
  }

  #probed(pool: Pool, backend: Backend, isUp: boolean, detail: string): void {
    const { observer, onLeaving, onReturning } = this.#dependencies;
    if (isUp) {
      observer.backendUp(pool.name, backend.url, detail);
      onReturning();
      return;
    }
    observer.backendDown(pool.name, backend.url, detail);
    const config = this.#configs.find(({ name }) => name === pool.name);
    if (config?.health?.closeSessions === true) onLeaving([backend]);
  }

  #change(url: string, change: (backend: Backend) => void): Backend[] {
    const changed: Backend[] = [];
    for (const pool of this.#pools.values()) {
      const backends = pool.backends.filter((backend) => backend.url === url);
      for (const backend of backends) change(backend);
      if (backends.length > 0) pool.changed();
      changed.push(...backends);
    }
    return changed;
  }

  #forgetEmpty(): void {
    for (const backend of this.#leaving.keys()) {
      if (backend.connections === 0) this.#leaving.delete(backend);
    }
  }
}

/** Backends without a place in the new pools, to be taken by the entries that come with their URLs. */
class Spare {
  readonly #going = new Map<string, Backend[]>();
  readonly #gone = new Map<string, PoolMember[]>();

  /** `going`: have a place until now; `gone`: have lost theirs before, with the pool where it was. */
  constructor(going: readonly PoolMember[], gone: ReadonlyMap<Backend, string>) {
    for (const { backend } of going) listOf(this.#going, backend.url).push(backend);
    for (const [backend, pool] of gone) listOf(this.#gone, backend.url).push({ pool, backend });
  }

  has(backend: Backend): boolean {
    return this.#going.get(backend.url)?.includes(backend) === true;
  }

  /**
   * null: there is none. First what goes now, or its sessions would have to leave; then what was in this
   * pool before.
   */
  take(pool: string, url: string): Backend | null {
    const going = this.#going.get(url)?.shift();
    if (going !== undefined) return going;
    const gone = this.#gone.get(url) ?? [];
    const own = gone.findIndex((member) => member.pool === pool);
    const [taken] = gone.splice(Math.max(0, own), 1);
    return taken?.backend ?? null;
  }
}

function listOf<T>(lists: Map<string, T[]>, key: string): T[] {
  const list = lists.get(key) ?? [];
  lists.set(key, list);
  return list;
}

function urlsOf(backends: readonly { readonly url: string }[] = []): Set<string> {
  return new Set(backends.map(({ url }) => url));
}
