/**
 * Connecting a session to its pool: takes a slot, dials, goes on to the next backend on failure, backs
 * off when all have been tried, and gives up at the deadline. Ends exactly once; a slot that did not
 * lead to a connection is released before the next is taken.
 */
import type { BackoffConfig } from "../config/config.ts";
import { backoffMs } from "./back-off.ts";
import type { Backend, Slot } from "./backend.ts";
import { type Connection, Dial, type DialFailure, type DialResult } from "./dial.ts";
import type { Pool } from "./pool.ts";
import type { UpgradeRequest } from "./upgrade-request.ts";
import type { ReadBuffers } from "./upstream-socket.ts";

export interface ConnectOptions {
  /** Dials in all. */
  readonly attempts: number;
  /** For everything together, back-off included. */
  readonly timeoutMs: number;
  readonly backoff: BackoffConfig;
  readonly wantsBody: boolean;
}

export type ConnectResult = { readonly dials: number } & (
  | { readonly kind: "connected"; readonly slot: Slot; readonly connection: Connection }
  /** Every backend is at its cap, and no dial was made. */
  | { readonly kind: "full" }
  | { readonly kind: "failed"; readonly backend: Backend; readonly failure: DialFailure }
);

/** Told of every dial; implemented by metrics. */
export interface DialObserver {
  dialEnded(pool: string, backend: string, outcome: DialFailure["outcome"] | "connected"): void;
}

export interface ConnectDependencies {
  readonly observer: DialObserver;
  readonly readBuffers: ReadBuffers;
  readonly random: () => number;
  /** Monotonic milliseconds. */
  readonly now: () => number;
}

export class Connecting {
  readonly #pool: Pool;
  readonly #request: UpgradeRequest;
  readonly #options: ConnectOptions;
  readonly #dependencies: ConnectDependencies;
  readonly #done: (result: ConnectResult) => void;
  readonly #deadline: number;
  readonly #tried = new Set<Backend>();
  #state: "idle" | "dialling" | "waiting" | "done" = "idle";
  #dials = 0;
  #rounds = 0;
  #dial: Dial | null = null;
  /** The dial may take all the time that is left: if it times out, the deadline has come. */
  #hasAllTimeLeft = false;
  #timer: NodeJS.Timeout | undefined;
  #last: { readonly backend: Backend; readonly failure: DialFailure } | null = null;

  constructor(
    pool: Pool,
    request: UpgradeRequest,
    options: ConnectOptions,
    dependencies: ConnectDependencies,
    done: (result: ConnectResult) => void,
  ) {
    this.#pool = pool;
    this.#request = request;
    this.#options = options;
    this.#dependencies = dependencies;
    this.#done = done;
    this.#deadline = dependencies.now() + options.timeoutMs;
  }

  get dials(): number {
    return this.#dials;
  }

  start(): void {
    this.#next();
  }

  /** The client left: stops whatever is going on; `done` is not called any more. */
  abort(): void {
    if (this.#state === "done") return;
    const dial = this.#dial;
    this.#state = "done";
    clearTimeout(this.#timer);
    dial?.abort();
  }

  #next(): void {
    const remainingMs = this.#deadline - this.#dependencies.now();
    if (this.#last !== null && (this.#dials >= this.#options.attempts || remainingMs <= 0)) {
      this.#giveUp();
      return;
    }
    const slot = this.#pool.takeSlot(this.#tried);
    if (slot !== null) {
      this.#startDial(slot, Math.max(1, Math.ceil(remainingMs)));
    } else if (this.#tried.size > 0) {
      this.#backOff(remainingMs);
    } else {
      this.#giveUp();
    }
  }

  #startDial(slot: Slot, remainingMs: number): void {
    const { connectTimeoutMs } = this.#pool;
    const timeoutMs = Math.min(connectTimeoutMs, remainingMs);
    this.#hasAllTimeLeft = remainingMs <= connectTimeoutMs;
    this.#state = "dialling";
    this.#dials += 1;
    const { wantsBody } = this.#options;
    const { readBuffers } = this.#dependencies;
    this.#dial = new Dial(
      slot.backend,
      this.#request,
      { timeoutMs, readBuffers, wantsBody },
      (result) => this.#dialled(slot, result),
    );
  }

  #dialled(slot: Slot, result: DialResult): void {
    this.#dial = null;
    const { backend } = slot;
    const outcome = "connection" in result ? "connected" : result.failure.outcome;
    this.#dependencies.observer.dialEnded(this.#pool.name, backend.url, outcome);
    if ("connection" in result) {
      const { connection } = result;
      this.#end({ kind: "connected", dials: this.#dials, slot, connection });
      return;
    }
    slot.release();
    if (this.#state === "done") return;
    this.#last = { backend, failure: result.failure };
    this.#tried.add(backend);
    // Timers may fire early by the length of a turn of the event loop: the clock alone would allow one
    // more dial, of a millisecond.
    const isOver = this.#hasAllTimeLeft && result.failure.outcome === "timeout";
    if (result.failure.retryable && !isOver) this.#next();
    else this.#giveUp();
  }

  /** Every backend that could be tried has failed once: wait, then all may be tried again. */
  #backOff(remainingMs: number): void {
    this.#rounds += 1;
    const { backoff } = this.#options;
    const delayMs = backoffMs(backoff, this.#rounds, this.#dependencies.random);
    if (delayMs >= remainingMs) {
      // Waiting for a deadline behind which no dial can follow helps nobody.
      this.#giveUp();
      return;
    }
    this.#state = "waiting";
    this.#timer = setTimeout(() => {
      this.#tried.clear();
      this.#next();
    }, delayMs);
  }

  #giveUp(): void {
    const last = this.#last;
    this.#end(
      last === null
        ? { kind: "full", dials: this.#dials }
        : { kind: "failed", dials: this.#dials, ...last },
    );
  }

  #end(result: ConnectResult): void {
    this.#state = "done";
    this.#done(result);
  }
}
