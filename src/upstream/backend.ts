/**
 * One upstream server: its slots, and whether it may get more. A slot is the right to hold one
 * connection to the backend: taken before the dial, released once, when that connection is gone. This is
 * what makes the cap exact. The object outlives reloads, so that what is counted carries over.
 */
import type { BackendConfig, EjectionConfig } from "../config/config.ts";
import { Ejection, type Trial, type TrialOutcome } from "./ejection.ts";
import type { Standing } from "./ejection-rule.ts";
import { SlowStart } from "./slow-start.ts";

/** What a backend asks of the pool that it is in, and tells it. */
export interface BackendHome {
  /** Monotonic milliseconds. */
  now(): number;
  /** There may be a slot where there was none. */
  onRoom(): void;
  mayEject(backend: Backend): boolean;
  /** Out for this long, after failures in real traffic. */
  ejected(backend: Backend, durationMs: number): void;
  returned(backend: Backend): void;
}

/** What the pool's configuration says of each of its backends. */
export interface BackendPolicy {
  /** null: failures eject nobody. */
  readonly ejection: EjectionConfig | null;
  readonly slowStartMs: number;
}

export class Backend {
  /** As written in the configuration: the backend's name in logs, metrics and the admin API. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  #home: BackendHome;
  #maxConnections: number;
  #weight: number;
  #ejection: Ejection | null = null;
  readonly #slowStart = new SlowStart(0);
  #connections = 0;
  #isDraining = false;
  /** By its active probe; without one it is taken to be up. */
  #isUp = true;

  constructor(config: BackendConfig, policy: BackendPolicy, home: BackendHome) {
    this.url = config.url;
    this.host = config.host;
    this.port = config.port;
    this.#home = home;
    this.#maxConnections = config.maxConnections;
    this.#weight = config.weight;
    this.#setPolicy(policy);
  }

  /** A reload, part of the pool's: the slots that are taken stay taken, even above a smaller cap. */
  reconfigure(config: BackendConfig, policy: BackendPolicy, home: BackendHome): void {
    this.#home = home;
    this.#maxConnections = config.maxConnections;
    this.#weight = config.weight;
    this.#setPolicy(policy);
  }

  /** As configured; 0: no limit. */
  get maxConnections(): number {
    return this.#maxConnections;
  }

  /** Its share relative to the others, smaller while it warms up. */
  get weight(): number {
    return this.#slowStart.weightOf(this.#weight, this.#home.now());
  }

  /** Slots taken, by sessions and dials. */
  get connections(): number {
    return this.#connections;
  }

  /** Its sessions are leaving, and it gets no new ones. */
  get draining(): boolean {
    return this.#isDraining;
  }

  drain(): void {
    this.#isDraining = true;
  }

  undrain(): void {
    if (this.#isDraining) this.warmUp();
    this.#isDraining = false;
  }

  get isUp(): boolean {
    return this.#isUp;
  }

  /** The verdict of its active probe. The pool has to be told, too. */
  set isUp(isUp: boolean) {
    if (this.#isUp === isUp) return;
    this.#isUp = isUp;
    if (isUp) this.warmUp();
  }

  /** It has come back, or joined a running pool: its share grows over `slowStart`. */
  warmUp(): void {
    this.#slowStart.begin(this.#home.now());
  }

  get full(): boolean {
    const cap = this.#slowStart.capOf(this.#maxConnections, this.#home.now());
    return cap > 0 && this.#connections >= cap;
  }

  /** For status pages: whether failures have taken it out. */
  get ejected(): boolean {
    return this.#ejection !== null && this.#ejection.state(this.#home.now()) !== "in";
  }

  /** Whether it is meant to serve, full or not. */
  get inService(): boolean {
    return this.#isUp && !this.#isDraining && !this.ejected;
  }

  /** Whether it may get one more session; the only question that balancing asks. */
  get available(): boolean {
    if (!this.#isUp || this.#isDraining || this.full) return false;
    return this.#ejection?.canTake(this.#home.now()) ?? true;
  }

  /** Whether it may be tried although failures have taken it out: the others have failed, too. */
  get availableInNeed(): boolean {
    return this.#isUp && !this.#isDraining && !this.full;
  }

  /** How it stands in its pool, for the rule on how many may be ejected. */
  get standing(): Standing {
    return {
      isUp: this.#isUp && !this.#isDraining,
      ejectedUntilMs: this.#ejection?.ejectedUntilMs(this.#home.now()) ?? null,
    };
  }

  /** When time alone may make room: an ejection ends, or the cap grows; null: never. */
  get roomAtMs(): number | null {
    const now = this.#home.now();
    const times = [
      this.#ejection?.changesAtMs(now) ?? null,
      this.#slowStart.capGrowsAtMs(this.#maxConnections, now),
    ].filter((at) => at !== null);
    return times.length === 0 ? null : Math.min(...times);
  }

  /** The pool cannot do without it. */
  liftEjection(): void {
    this.#ejection?.lift(this.#home.now());
  }

  /** Takes a slot; null: it is not available. `inNeed`: an ejected one will do. */
  takeSlot(inNeed = false): Slot | null {
    if (inNeed ? !this.availableInNeed : !this.available) return null;
    this.#connections += 1;
    const trial = this.#ejection?.taken(this.#home.now()) ?? null;
    return new Slot(this, inNeed ? "inNeed" : trial, {
      now: () => this.#home.now(),
      onTrial: () => this.#home.onRoom(),
      onRelease: () => {
        this.#connections -= 1;
        this.#home.onRoom();
      },
    });
  }

  /** For slots: an ejected backend that was tried in need has answered, where others did not. */
  answeredInNeed(): void {
    this.#ejection?.lift(this.#home.now());
  }

  /** For slots: how a dial or a session went that was no trial. */
  judged(outcome: TrialOutcome): void {
    if (outcome === "bad") this.#ejection?.failed(this.#home.now());
    else if (outcome === "good") this.#ejection?.succeeded(this.#home.now());
  }

  #setPolicy({ ejection, slowStartMs }: BackendPolicy): void {
    this.#slowStart.durationMs = slowStartMs;
    if (ejection === null) {
      this.liftEjection();
      this.#ejection = null;
    } else if (this.#ejection === null) {
      this.#ejection = new Ejection(ejection, {
        // A trial that outlives its rule, which a reload has taken away, ejects nobody.
        mayEject: () => this.#ejection !== null && this.#home.mayEject(this),
        ejected: (durationMs) => this.#home.ejected(this, durationMs),
        returned: () => {
          this.warmUp();
          this.#home.returned(this);
          this.#home.onRoom();
        },
      });
    } else {
      this.#ejection.config = ejection;
    }
  }
}

interface SlotHooks {
  /** Monotonic milliseconds. */
  now(): number;
  /** Its dial has connected, and from here on it passes by time alone; or it has been judged. */
  onTrial(): void;
  onRelease(): void;
}

export class Slot {
  readonly backend: Backend;
  readonly #trial: Trial | "inNeed" | null;
  readonly #hooks: SlotHooks;
  #isReleased = false;
  #isJudged = false;

  /** `trial`: null: a session like any other. */
  constructor(backend: Backend, trial: Trial | "inNeed" | null, hooks: SlotHooks) {
    this.backend = backend;
    this.#trial = trial;
    this.#hooks = hooks;
  }

  /** The dial has succeeded. */
  connected(): void {
    if (this.#trial === "inNeed") this.backend.answeredInNeed();
    else this.#trial?.connected(this.#hooks.now());
    if (this.#trial !== null) this.#hooks.onTrial();
  }

  /** How the dial or the session went, as far as it speaks of the backend. Only the first call counts. */
  judge(outcome: TrialOutcome): void {
    if (this.#isJudged) return;
    this.#isJudged = true;
    if (this.#trial === null || this.#trial === "inNeed") {
      this.backend.judged(outcome);
      return;
    }
    this.#trial.ended(outcome, this.#hooks.now());
    this.#hooks.onTrial();
  }

  /** Gives the slot back; a second call does nothing. */
  release(): void {
    if (this.#isReleased) return;
    this.#isReleased = true;
    // A trial of which nobody says how it went must not keep the backend out.
    this.judge("abandoned");
    this.#hooks.onRelease();
  }
}
