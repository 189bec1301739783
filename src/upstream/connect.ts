/**
 * Connecting a session to its pool: takes a slot, or waits in the pool's line for one, dials, goes on to
 * the next backend on failure, backs off when all have been tried, and gives up at the deadline. Ends
 * exactly once; a slot that did not lead to a connection is released before the next is taken.
 *
 *   idle ──▶ inLine ──slot──▶ dialling ──verified──▶ done (connected)
 *     │         │              │  ▲  │
 *     └─────────┼──slot────────┘  │  └──failed──▶ waiting ──back-off──▶ dialling
 *               │                 └──next one────────┘│
 *               └──timeout, closed──▶ done ◀──spent───┘
 */
import type { BackoffConfig } from "../config/config.ts";
import { backoffMs } from "./back-off.ts";
import type { Backend, Slot } from "./backend.ts";
import { type Connection, Dial, type DialFailure, type DialResult } from "./dial.ts";
import type { Pool } from "./pool.ts";
import type { UpgradeRequest } from "./upgrade-request.ts";
import type { ReadBuffers } from "./upstream-socket.ts";
import type { Place, Turn } from "./waiting-line.ts";

export interface ConnectOptions {
  /** Dials in all; with `resume`, rounds of dials. */
  readonly attempts: number;
  /** For everything together, back-off included. */
  readonly timeoutMs: number;
  readonly backoff: BackoffConfig;
  readonly wantsBody: boolean;
  /** What the pool hashes the session by, if it does. */
  readonly key: string | null;
  /** For a session that has lost its upstream. */
  readonly resume?: ResumeOptions;
}

export interface ResumeOptions {
  /** The backend that was lost: the others come first. */
  readonly lost: Backend;
  /** A round tries so many backends at most, one after the other without a wait. */
  readonly dialsPerRound: number;
  /** Rounds of back-off that went before: an upstream that dies at once does not start them anew. */
  readonly rounds: number;
  /** false: back-off comes first, even if there is a backend that could be dialled. */
  readonly atOnce: boolean;
  /** Why this connection cannot take the session over; null: it can. */
  readonly objection: (connection: Connection) => string | null;
}

/** A verified connection, with the slot that it holds. */
export interface Connected {
  readonly kind: "connected";
  readonly slot: Slot;
  readonly connection: Connection;
}

export type ConnectResult = { readonly dials: number } & (
  | Connected
  /** Every backend in service is at its cap, or the line was closed, and no dial was made. */
  | { readonly kind: "full"; readonly queue: QueueVerdict }
  /** No backend is in service, and no dial was made. */
  | { readonly kind: "noBackend" }
  | { readonly kind: "failed"; readonly backend: Backend; readonly failure: DialFailure }
);

/** `noRoom`: there was no place in the line, or no line. `closed`: the gateway drains. */
export type QueueVerdict = "noRoom" | "timeout" | "closed";

/** Told of everyone who has waited in a pool's line; implemented by metrics. */
export interface QueueObserver {
  waited(pool: string, seconds: number, outcome: "served" | "left" | "timeout" | "closed"): void;
}

/** Told of every dial; implemented by metrics. */
export interface DialObserver {
  dialEnded(pool: string, backend: string, outcome: DialFailure["outcome"] | "connected"): void;
}

export interface ConnectDependencies {
  readonly observer: DialObserver & Partial<QueueObserver>;
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
  /** Set anew when the client's turn comes. */
  #deadline: number;
  /** Not to be tried again before all others have been; in a resume that may take several rounds. */
  #tried = new Set<Backend>();
  /** Not to be tried again in this round. */
  readonly #triedInRound = new Set<Backend>();
  #state: "idle" | "inLine" | "dialling" | "waiting" | "done" = "idle";
  #dials = 0;
  #dialsInRound = 0;
  #attempts = 0;
  #rounds = 0;
  #dial: Dial | null = null;
  #place: Place | null = null;
  #joinedAt = 0;
  /** The dial may take all the time that is left: if it times out, the deadline has come. */
  #hasAllTimeLeft = false;
  /** Of a resume: what is left of its time is for this attempt. */
  #isLastAttempt = false;
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
    if (options.resume !== undefined) {
      this.#triedInRound.add(options.resume.lost);
      this.#rounds = options.resume.rounds;
      const failure = options.attempts > 0 ? NOBODY_FREE : NO_ATTEMPTS_LEFT;
      this.#last = { backend: options.resume.lost, failure };
    }
  }

  get dials(): number {
    return this.#dials;
  }

  /** What counts towards `attempts`. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Rounds of back-off so far. */
  get rounds(): number {
    return this.#rounds;
  }

  start(): void {
    const { resume, attempts, timeoutMs } = this.#options;
    if (resume?.atOnce === false && attempts > 0) this.#backOff(timeoutMs);
    else this.#next();
  }

  /** The client left: stops whatever is going on; `done` is not called any more. */
  abort(): void {
    if (this.#state === "done") return;
    const dial = this.#dial;
    const place = this.#place;
    this.#state = "done";
    clearTimeout(this.#timer);
    dial?.abort();
    if (place === null) return;
    place.leave();
    this.#waited("left");
  }

  #next(): void {
    const remainingMs = this.#deadline - this.#dependencies.now();
    if (this.#last !== null && (this.#isSpent || remainingMs <= 0)) {
      this.#giveUp();
      return;
    }
    const slot = this.#isRoundOver ? null : this.#takeSlot();
    if (slot !== null) {
      this.#startDial(slot, Math.max(1, Math.ceil(remainingMs)));
    } else if (this.#tried.size > 0 || this.#options.resume !== undefined) {
      // A client that is held comes back for a full backend, too.
      this.#backOff(remainingMs);
    } else if (this.#last === null && this.#pool.inService) {
      this.#standInLine();
    } else {
      this.#giveUp();
    }
  }

  /** No dial may follow. */
  get #isSpent(): boolean {
    // The attempt that is under way may go on to its other backends.
    const isBetween = this.#options.resume === undefined || this.#dialsInRound === 0;
    return isBetween && this.#attempts >= this.#options.attempts;
  }

  get #isRoundOver(): boolean {
    const { resume } = this.#options;
    return resume !== undefined && this.#dialsInRound >= resume.dialsPerRound;
  }

  /** Nothing has been tried, as all are full: the pool says when there is a slot, or how long it takes. */
  #standInLine(): void {
    const place = this.#pool.wait((turn) => this.#onTurn(turn), this.#options.key);
    if (place === null) {
      this.#giveUp();
      return;
    }
    this.#state = "inLine";
    this.#place = place;
    this.#joinedAt = this.#dependencies.now();
  }

  #onTurn(turn: Turn): void {
    if (turn === "timeout" || turn === "closed") {
      this.#waited(turn);
      this.#giveUp(turn);
      return;
    }
    this.#waited("served");
    const { timeoutMs } = this.#options;
    this.#deadline = this.#dependencies.now() + timeoutMs;
    this.#startDial(turn, timeoutMs);
  }

  #waited(outcome: "served" | "left" | "timeout" | "closed"): void {
    this.#place = null;
    const seconds = (this.#dependencies.now() - this.#joinedAt) / 1_000;
    this.#dependencies.observer.waited?.(this.#pool.name, seconds, outcome);
  }

  #takeSlot(): Slot | null {
    const { resume, key } = this.#options;
    if (resume === undefined) return this.#pool.takeSlot(this.#tried, key);
    const slot = this.#takeSlotAhead(resume.lost);
    if (slot !== null) return slot;
    // All have had their turn: from the start, but none twice in a round.
    this.#tried = new Set(this.#triedInRound);
    return this.#takeSlotAhead(resume.lost);
  }

  /** A backend that was lost stays the last choice: with the fewest sessions of all it would be the first. */
  #takeSlotAhead(lost: Backend): Slot | null {
    const { key } = this.#options;
    const tried = new Set([...this.#tried, ...this.#triedInRound]);
    if (!tried.has(lost)) {
      const slot = this.#pool.takeSlotAhead(new Set([...tried, lost]), key);
      if (slot !== null) return slot;
    }
    return this.#pool.takeSlotAhead(tried, key);
  }

  #startDial(slot: Slot, remainingMs: number): void {
    const { connectTimeoutMs } = this.#pool;
    const timeoutMs = Math.min(connectTimeoutMs, remainingMs);
    this.#hasAllTimeLeft = remainingMs <= connectTimeoutMs;
    const isFair = timeoutMs >= Math.min(connectTimeoutMs, FAIR_DIAL_MS);
    this.#state = "dialling";
    this.#dials += 1;
    if (this.#options.resume === undefined || this.#dialsInRound === 0) this.#attempts += 1;
    this.#dialsInRound += 1;
    const { wantsBody } = this.#options;
    const { readBuffers } = this.#dependencies;
    this.#dial = new Dial(
      slot.backend,
      this.#request,
      { timeoutMs, readBuffers, wantsBody },
      (result) => this.#dialled(slot, isFair, result),
    );
  }

  /** `isFair`: the backend had time enough to answer. */
  #dialled(slot: Slot, isFair: boolean, result: DialResult): void {
    this.#dial = null;
    const { backend } = slot;
    const outcome = "connection" in result ? "connected" : result.failure.outcome;
    this.#dependencies.observer.dialEnded(this.#pool.name, backend.url, outcome);
    if (!("connection" in result)) {
      slot.judge(isBackendsFault(result.failure, isFair) ? "bad" : "abandoned");
      slot.release();
      this.#failed(backend, result.failure);
      return;
    }
    const { connection } = result;
    slot.connected();
    const objection = this.#options.resume?.objection(connection) ?? null;
    if (objection === null) {
      this.#end({ kind: "connected", dials: this.#dials, slot, connection });
      return;
    }
    discardConnection(connection, slot);
    this.#failed(backend, {
      outcome: "rejected",
      detail: objection,
      retryable: true,
      rejection: null,
    });
  }

  #failed(backend: Backend, failure: DialFailure): void {
    if (this.#state === "done") return;
    this.#last = { backend, failure };
    this.#tried.add(backend);
    this.#triedInRound.add(backend);
    // Timers may fire early by the length of a turn of the event loop: the clock alone would allow one
    // more dial, of a millisecond.
    const isOver = this.#hasAllTimeLeft && failure.outcome === "timeout";
    if (this.#mayGoOnAfter(failure) && !isOver) this.#next();
    else this.#giveUp();
  }

  #mayGoOnAfter({ retryable, rejection }: DialFailure): boolean {
    if (retryable || this.#options.resume === undefined) return retryable;
    // The client has been let in before: only who asks it to log in again speaks for all backends.
    return rejection?.status !== 401 && rejection?.status !== 403;
  }

  /** Every backend that could be tried has failed once, or the round is over: wait, then try again. */
  #backOff(remainingMs: number): void {
    const { resume, attempts } = this.#options;
    if (resume !== undefined && (this.#isLastAttempt || this.#attempts >= attempts)) {
      this.#giveUp();
      return;
    }
    this.#rounds += 1;
    const delayMs = this.#waitMs(remainingMs);
    if (delayMs >= remainingMs) {
      // Waiting for a deadline behind which no dial can follow helps nobody.
      this.#giveUp();
      return;
    }
    this.#state = "waiting";
    this.#timer = setTimeout(() => {
      // What a round of a resume had no dials left for comes first in the next one.
      if (resume === undefined) this.#tried.clear();
      this.#triedInRound.clear();
      this.#dialsInRound = 0;
      this.#next();
    }, delayMs);
  }

  #waitMs(remainingMs: number): number {
    const { backoff, resume } = this.#options;
    const { random } = this.#dependencies;
    const delayMs = backoffMs(backoff, this.#rounds, random);
    const latestMs = remainingMs - LAST_ATTEMPT_MS;
    if (resume === undefined || latestMs <= 0) return delayMs;
    if (delayMs <= Math.max(latestMs, LAST_ATTEMPT_MS)) return delayMs;
    // A client that is held has all the time that it was given: the last attempt comes earlier. Those
    // that were lost together have the same deadline, and still must not come as one.
    this.#isLastAttempt = true;
    const jitter = Math.min(backoff.jitter, LAST_ATTEMPT_JITTER);
    return remainingMs - LAST_ATTEMPT_MS * (1 - jitter * random());
  }

  #giveUp(queue: QueueVerdict = "noRoom"): void {
    const last = this.#last;
    const dials = this.#dials;
    if (last !== null) this.#end({ kind: "failed", dials, ...last });
    else if (queue === "closed" || this.#pool.inService) this.#end({ kind: "full", dials, queue });
    else this.#end({ kind: "noBackend", dials });
  }

  #end(result: ConnectResult): void {
    this.#state = "done";
    this.#done(result);
  }
}

/** A dial within a data centre takes far less, even than the half of it that jitter leaves. */
const LAST_ATTEMPT_MS = 1_000;
const LAST_ATTEMPT_JITTER = 0.5;

/** A dial that had less time, as its client's deadline was near, says nothing by timing out. */
const FAIR_DIAL_MS = 1_000;

/** Whether a failed dial speaks against the backend: not an answer to this one client, or its leaving. */
function isBackendsFault({ outcome, rejection, local }: DialFailure, isFair: boolean): boolean {
  if (outcome === "aborted" || local === true) return false;
  if (outcome === "timeout" && !isFair) return false;
  return rejection === null || rejection.status >= 500;
}

const NO_ATTEMPTS_LEFT: DialFailure = {
  outcome: "rejected",
  detail: "retry.session.attempts are used up",
  retryable: true,
  rejection: null,
};

/** What stands where a resume is given up before any dial. */
const NOBODY_FREE: DialFailure = {
  outcome: "rejected",
  detail: "no backend was free to take over",
  retryable: true,
  rejection: null,
};

/** Ends a connection that nobody waits for any more. */
export function discardConnection(connection: Connection, slot: Slot): void {
  const { socket } = connection.upstream;
  if (socket.closed) {
    slot.release();
    return;
  }
  // Its end is no news to anybody; without a listener an error would end the process.
  socket.on("error", () => undefined);
  socket.on("close", () => slot.release());
  socket.destroy();
}
