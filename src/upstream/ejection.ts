/**
 * Passive outlier ejection of one backend, from what real sessions show: too many failures in a while
 * take it out, for longer each time, and one trial session brings it back. Owns no timer and no clock:
 * every call brings the time. How many backends of a pool may be out at once is `ejection-rule.ts`.
 */
import type { EjectionConfig } from "../config/config.ts";

export type EjectionState = "in" | "ejected" | "halfOpen";

/** `abandoned`: the client left, or something else ended the trial that says nothing of the backend. */
export type TrialOutcome = "good" | "bad" | "abandoned";

export interface EjectionHooks {
  /** Asked at the moment of an ejection; false: the backend stays in, and its next failure asks again. */
  mayEject(): boolean;
  /** Out for this long, then a trial. Told again after each trial that failed. */
  ejected(durationMs: number, now: number): void;
  /** Back in: the trial passed, or the ejection was lifted. */
  returned(now: number): void;
}

/**
 * How long a trial session has to live to pass. A backend that accepts and then falls over does so on
 * the first messages; a session that lives for an hour must not keep the others out for an hour.
 */
export const TRIAL_MS = 5_000;

type Phase =
  | { readonly state: "in" }
  /** From `untilMs` on the next session is the trial. */
  | { readonly state: "ejected"; readonly untilMs: number }
  | { readonly state: "halfOpen"; readonly untilMs: number; readonly trial: Trial };

/*
 *                 failures in window, mayEject()
 *        +-----> in ----------------------------> ejected <-----------------+
 *        |        ^                                |   |                    |
 *        |        +------------ lift() ------------+   | duration over,     | trial bad: twice the
 *        |        |                                    | taken() by one     | duration, up to max;
 *        |        |                                    v                    | abandoned: at once the
 *        |        +------------ lift() ----------- halfOpen ----------------+ next session's turn
 *        |                                             |
 *        +------- trial good, or lived TRIAL_MS -------+
 *
 * Times are monotonic milliseconds.
 */
export class Ejection {
  /** A reload may replace it: it holds from the next failure or ejection on. */
  config: EjectionConfig;
  readonly #hooks: EjectionHooks;
  /** Times of the last failures while `in`, oldest first; never more than `config.failures`. */
  readonly #failures: number[] = [];
  #phase: Phase = { state: "in" };
  /** Of the ejection that the next one doubles; 0: none is remembered. */
  #lastDurationMs = 0;
  /** When it last came back, or had failures enough to be ejected. */
  #restlessAtMs = Number.NEGATIVE_INFINITY;

  constructor(config: EjectionConfig, hooks: EjectionHooks) {
    this.config = config;
    this.#hooks = hooks;
  }

  state(now: number): EjectionState {
    this.#settle(now);
    return this.#phase.state;
  }

  /** Whether one more session may go to the backend: it is in, or a trial is due. */
  canTake(now: number): boolean {
    this.#settle(now);
    const phase = this.#phase;
    return phase.state === "in" || (phase.state === "ejected" && now >= phase.untilMs);
  }

  /**
   * To be called whenever a session has got the backend, before its dial. Not null: the session is the
   * trial, which is then told how the dial and the session go, in place of `failed` and `succeeded`.
   */
  taken(now: number): Trial | null {
    this.#settle(now);
    const phase = this.#phase;
    if (phase.state !== "ejected" || now < phase.untilMs) return null;
    const trial = new Trial((outcome, endedAt) => this.#trialEnded(trial, outcome, endedAt));
    this.#phase = { state: "halfOpen", untilMs: phase.untilMs, trial };
    return trial;
  }

  /**
   * A dial failed, or a session ended by the backend's fault: lost, unresponsive, Close 1011 or 1014.
   * Counts only while `in`: when a backend dies, the many sessions that it takes along are one event.
   */
  failed(now: number): void {
    this.#settle(now);
    if (this.#phase.state !== "in") return;
    const { failures, windowMs } = this.config;
    this.#failures.push(now);
    this.#forget(now - windowMs);
    if (this.#failures.length < failures) return;
    this.#restlessAtMs = now;
    if (this.#hooks.mayEject()) this.#eject(now);
  }

  /**
   * A session ended well. Takes nothing out of the window: a backend that fails every second session is
   * no good. It lets go of the doubling, once the backend has been calm (in, and short of an ejection)
   * for `maxDuration`. A success has to show it, as a backend that nobody used, or that was down by its
   * probe, may still be as bad as before.
   */
  succeeded(now: number): void {
    this.#settle(now);
    if (this.#phase.state !== "in") return;
    if (now - this.#restlessAtMs >= this.config.maxDurationMs) this.#lastDurationMs = 0;
  }

  /** Ends the ejection without a trial: the pool cannot do without this backend. */
  lift(now: number): void {
    this.#settle(now);
    if (this.#phase.state !== "in") this.#return(now);
  }

  /** When a trial becomes due, or a running one has passed, if nothing else happens; null: never. */
  changesAtMs(now: number): number | null {
    this.#settle(now);
    const phase = this.#phase;
    if (phase.state === "ejected") return phase.untilMs > now ? phase.untilMs : null;
    return phase.state === "halfOpen" ? phase.trial.passesAtMs : null;
  }

  /** When the ejection ends, or ended and a trial was due; null: not ejected. */
  ejectedUntilMs(now: number): number | null {
    this.#settle(now);
    return this.#phase.state === "in" ? null : this.#phase.untilMs;
  }

  /** Failures in the window: how near the backend is to an ejection. */
  recentFailures(now: number): number {
    this.#settle(now);
    this.#forget(now - this.config.windowMs);
    return this.#failures.length;
  }

  #trialEnded(trial: Trial, outcome: TrialOutcome, now: number): void {
    this.#settle(now);
    const phase = this.#phase;
    if (phase.state !== "halfOpen" || phase.trial !== trial) {
      // It has passed by its length, or the ejection was lifted: a session like any other.
      if (outcome === "bad") this.failed(now);
      else if (outcome === "good") this.succeeded(now);
      return;
    }
    switch (outcome) {
      case "good":
        this.#return(now);
        break;
      case "bad":
        // The pool's rule is not asked: the backend is out already.
        this.#eject(now);
        break;
      case "abandoned":
        this.#phase = { state: "ejected", untilMs: phase.untilMs };
        break;
    }
  }

  /** A trial that lives needs nobody to say so: whoever asks next finds the backend in. */
  #settle(now: number): void {
    if (this.#phase.state !== "halfOpen") return;
    const { passesAtMs } = this.#phase.trial;
    if (passesAtMs !== null && now >= passesAtMs) this.#return(now);
  }

  #eject(now: number): void {
    const { durationMs, maxDurationMs } = this.config;
    const wanted = Math.max(durationMs, this.#lastDurationMs * 2);
    this.#lastDurationMs = Math.min(maxDurationMs, wanted);
    this.#failures.length = 0;
    this.#phase = { state: "ejected", untilMs: now + this.#lastDurationMs };
    this.#hooks.ejected(this.#lastDurationMs, now);
  }

  #return(now: number): void {
    this.#phase = { state: "in" };
    this.#restlessAtMs = now;
    this.#hooks.returned(now);
  }

  /** Drops what has left the window, and what the ring has no place for. */
  #forget(beforeMs: number): void {
    let count = Math.max(0, this.#failures.length - this.config.failures);
    while ((this.#failures[count] ?? Number.POSITIVE_INFINITY) <= beforeMs) count += 1;
    if (count > 0) this.#failures.splice(0, count);
  }
}

/** The one session that shows whether an ejected backend works again. */
export class Trial {
  #passesAtMs: number | null = null;
  #end: ((outcome: TrialOutcome, now: number) => void) | null;

  constructor(end: (outcome: TrialOutcome, now: number) => void) {
    this.#end = end;
  }

  /** null: its dial has not connected yet. */
  get passesAtMs(): number | null {
    return this.#passesAtMs;
  }

  connected(now: number): void {
    this.#passesAtMs ??= now + TRIAL_MS;
  }

  /** The session has ended, or its dial has failed; a second call does nothing. */
  ended(outcome: TrialOutcome, now: number): void {
    const end = this.#end;
    this.#end = null;
    end?.(outcome, now);
  }
}
