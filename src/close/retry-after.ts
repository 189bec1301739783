/**
 * When a client that was turned away should come back. Counts those turned away lately and spreads
 * their return over the time that the service needs to take them all; one object per gateway.
 */

/** The `retryAfter` section of the configuration. */
export interface RetryAfterPolicy {
  readonly minMs: number;
  readonly maxMs: number;
  /** Clients per second that the service can take back. */
  readonly acceptRate: number;
}

/** One bucket a second: an hour is remembered, and a longer `max` counts that hour only. */
const BUCKETS = 3600;

export class RetryAfter {
  /** A ring; the bucket of a second is its number modulo BUCKETS. */
  readonly #counts = new Uint32Array(BUCKETS);
  readonly #random: () => number;
  #newestSecond = 0;

  /** `random` gives numbers from 0 up to, but not including, 1. */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /**
   * Counts one client as turned away at `nowMs` (any clock that does not run backwards) and returns
   * after how many whole seconds it should come back: 0 only where `maxMs` is 0.
   */
  turnAway(policy: RetryAfterPolicy, nowMs: number): number {
    this.#advance(Math.floor(nowMs / 1000));
    const bucket = this.#newestSecond % BUCKETS;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    if (policy.maxMs <= 0) return 0;

    const spreadMs = (this.#turnedAwayIn(policy.maxMs) / policy.acceptRate) * 1000;
    const latestMs = Math.min(policy.maxMs, policy.minMs + spreadMs);
    // Whole seconds inside the allowed time; where there is none, the one nearest to it.
    const last = Math.max(1, Math.floor(policy.maxMs / 1000));
    const from = Math.min(last, Math.max(1, Math.ceil(policy.minMs / 1000)));
    const to = Math.max(from, Math.floor(latestMs / 1000));
    return from + Math.floor(this.#random() * (to - from + 1));
  }

  #turnedAwayIn(windowMs: number): number {
    const seconds = Math.min(BUCKETS, Math.max(1, Math.ceil(windowMs / 1000)));
    let sum = 0;
    for (let age = 0; age < seconds && age <= this.#newestSecond; age++) {
      sum += this.#counts[(this.#newestSecond - age) % BUCKETS] ?? 0;
    }
    return sum;
  }

  /** Moves on to `second`, emptying the buckets of the seconds in which nothing happened. */
  #advance(second: number): void {
    if (second <= this.#newestSecond) return;
    const skipped = Math.min(BUCKETS, second - this.#newestSecond);
    for (let back = 0; back < skipped; back++) this.#counts[(second - back) % BUCKETS] = 0;
    this.#newestSecond = second;
  }
}
