/**
 * A set of backends that serve the same thing, and the line of those who wait for one. Hands out slots;
 * dialling is `connect.ts`.
 */
import type { BackendConfig, HashKey, HealthConfig, PoolConfig } from "../config/config.ts";
import { Backend, type BackendHome, type BackendPolicy, type Slot } from "./backend.ts";
import { type Balancer, createBalancer } from "./balance.ts";
import { mayEject, toLift } from "./ejection-rule.ts";
import { type Place, type Turn, WaitingLine } from "./waiting-line.ts";

/** Told of what happens to backends; implemented by metrics and log. */
export interface PoolObserver {
  ejected(pool: string, backend: string, durationMs: number): void;
  returned(pool: string, backend: string): void;
}

export interface PoolDependencies {
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly observer?: PoolObserver;
}

/** A backend that was in another pool, or in this one before; null: there is none. */
export type Adopt = (config: BackendConfig) => Backend | null;

export class Pool implements BackendHome {
  readonly name: string;
  readonly #dependencies: PoolDependencies;
  readonly #line: WaitingLine;
  #config: PoolConfig;
  #backends: readonly Backend[] = [];
  #balancer: Balancer;
  /** While clients wait: when time alone may make room. */
  #roomTimer: NodeJS.Timeout | undefined;

  constructor(config: PoolConfig, dependencies: PoolDependencies, adopt: Adopt = nobody) {
    this.name = config.name;
    this.#config = config;
    this.#dependencies = dependencies;
    this.#line = new WaitingLine(config.queue, dependencies.now);
    this.#balancer = createBalancer(config.balance);
    this.#backends = config.backends.map((backend) => this.#backendFor(backend, adopt));
    // One that was ejected in another pool may be one too many in this one.
    this.changed();
  }

  get connectTimeoutMs(): number {
    return this.#config.connectTimeoutMs;
  }

  /** What sessions are hashed by; null: by nothing. */
  get hashKey(): HashKey | null {
    return this.#config.hashKey;
  }

  /** How its backends are probed; null: they are not. */
  get health(): HealthConfig | null {
    return this.#config.health;
  }

  get backends(): readonly Backend[] {
    return this.#backends;
  }

  /** Whether any backend is meant to serve, full or not. */
  get inService(): boolean {
    return this.#backends.some(({ inService }) => inService);
  }

  /** Clients that wait for a slot. */
  get queueLength(): number {
    return this.#line.length;
  }

  /**
   * Takes a new configuration. A backend whose URL stays keeps its object, and with it its slots. One
   * that is new to a running pool warms up first.
   */
  reconfigure(config: PoolConfig, adopt: Adopt = nobody): void {
    const before = new Map(this.#backends.map((backend) => [backend.url, backend]));
    if (config.balance !== this.#config.balance) this.#balancer = createBalancer(config.balance);
    this.#config = config;
    this.#line.reconfigure(config.queue);
    this.#backends = config.backends.map((backend) => {
      const known = before.get(backend.url);
      known?.reconfigure(backend, this.#policy, this);
      if (known !== undefined) return known;
      const fresh = this.#backendFor(backend, adopt);
      if (before.size > 0) fresh.warmUp();
      return fresh;
    });
    this.changed();
  }

  /** To be called when a backend has come up, gone down, been drained or put back. */
  changed(): void {
    const standings = new Map(this.#backends.map((backend) => [backend.standing, backend]));
    for (const standing of toLift([...standings.keys()])) standings.get(standing)?.liftEjection();
    this.onRoom();
  }

  /**
   * A slot in an available backend outside `except`; null: there is none, or others have waited for it
   * longer. `key`: what the session is hashed by.
   */
  takeSlot(except: ReadonlySet<Backend>, key: string | null = null): Slot | null {
    this.onRoom();
    return this.#line.length > 0 ? null : this.#take(except, key);
  }

  /** A slot for a session that is held: it has waited before anybody in the line began to. */
  takeSlotAhead(except: ReadonlySet<Backend>, key: string | null = null): Slot | null {
    return this.#take(except, key);
  }

  /**
   * Waits for a slot in any backend. `onTurn` is called later, and once; null: the line is full, or the
   * pool has none.
   */
  wait(onTurn: (turn: Turn) => void, key: string | null = null): Place | null {
    const place = this.#line.join({ take: () => this.#take(NONE, key), onTurn });
    this.#watchTheTime();
    return place;
  }

  /** The gateway drains: all who wait are told `closed`, and nobody waits from now on. */
  closeQueue(): void {
    this.#line.close();
    clearTimeout(this.#roomTimer);
  }

  /** A backend for a plain HTTP request, which takes no slot; null: there is none. */
  pickForHttp(): Backend | null {
    return (
      this.#pick(({ inService }) => inService, null) ??
      this.#pick(({ isUp, draining }) => isUp && !draining, null)
    );
  }

  now(): number {
    return this.#dependencies.now();
  }

  /** Gives what slots there are to those who wait. */
  onRoom(): void {
    this.#line.serve();
    if (this.#line.length > 0) this.#watchTheTime();
  }

  mayEject(candidate: Backend): boolean {
    const standings = this.#backends.map(({ standing }) => standing);
    const standing = standings[this.#backends.indexOf(candidate)];
    // One that is in no pool any more, or not yet, is nobody's to eject.
    return standing !== undefined && mayEject(standing, standings);
  }

  ejected({ url }: Backend, durationMs: number): void {
    this.#watchTheTime();
    this.#dependencies.observer?.ejected(this.name, url, durationMs);
  }

  returned({ url }: Backend): void {
    this.#dependencies.observer?.returned(this.name, url);
  }

  get #policy(): BackendPolicy {
    return this.#config;
  }

  #backendFor(config: BackendConfig, adopt: Adopt): Backend {
    const adopted = adopt(config);
    adopted?.reconfigure(config, this.#policy, this);
    return adopted ?? new Backend(config, this.#policy, this);
  }

  /** No event tells of the end of an ejection, or of a cap that grows. */
  #watchTheTime(): void {
    clearTimeout(this.#roomTimer);
    if (this.#line.length === 0) return;
    const times = this.#backends.map(({ roomAtMs }) => roomAtMs).filter((at) => at !== null);
    if (times.length === 0) return;
    const delayMs = Math.max(1, Math.ceil(Math.min(...times) - this.now()));
    this.#roomTimer = setTimeout(() => this.onRoom(), Math.min(LONGEST_DELAY_MS, delayMs));
  }

  #take(except: ReadonlySet<Backend>, key: string | null): Slot | null {
    const backend = this.#pick((candidate) => candidate.available && !except.has(candidate), key);
    return backend === null
      ? (this.#pickInNeed(except, key)?.takeSlot(true) ?? null)
      : backend.takeSlot();
  }

  /** What was ejected may do better than what has failed just now, or than nothing at all. */
  #pickInNeed(except: ReadonlySet<Backend>, key: string | null): Backend | null {
    if (except.size === 0 && this.inService) return null;
    return this.#pick(
      (candidate) => candidate.availableInNeed && candidate.ejected && !except.has(candidate),
      key,
    );
  }

  #pick(eligible: (candidate: Backend) => boolean, key: string | null): Backend | null {
    const candidates = this.#backends.filter(eligible);
    return candidates.length === 0 ? null : (this.#balancer.pick(candidates, key) ?? null);
  }
}

const NONE: ReadonlySet<Backend> = new Set();

/** setTimeout takes a longer one for 1 ms. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

function nobody(): null {
  return null;
}
