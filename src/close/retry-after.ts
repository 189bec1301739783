/**
 * When a client that was turned away should come back. Each gets the next place in a virtual queue that
 * the service works off at `acceptRate`; one object per gateway.
 *
 * Drawing at random up to the number turned away would not do: the first of a herd would be drawn into
 * the first seconds before its size is known, at several times the rate, and be turned away again.
 */

/** The `retryAfter` section of the configuration. */
export interface RetryAfterPolicy {
  readonly minMs: number;
  readonly maxMs: number;
  /** Clients per second that the service can take back. */
  readonly acceptRate: number;
}

export class RetryAfter {
  /**
   * By `acceptRate`, when the service will have taken back all who were turned away so far. Routes with
   * the same rate share a queue: policies that are inherited are about one service.
   */
  readonly #servedAtMs = new Map<number, number>();
  readonly #random: () => number;

  /** `random` gives numbers from 0 up to, but not including, 1. */
  constructor(random: () => number = Math.random) {
    this.#random = random;
  }

  /**
   * Counts one client as turned away at `nowMs` (any clock that does not run backwards) and returns
   * after how many whole seconds it should come back: 0 only where `maxMs` is 0.
   */
  turnAway(policy: RetryAfterPolicy, nowMs: number): number {
    const { minMs, maxMs, acceptRate } = policy;
    if (maxMs <= 0) return 0;
    // Whole seconds inside the allowed time; where there is none, the one nearest to it.
    const last = Math.max(1, Math.floor(maxMs / 1000));
    const from = Math.min(last, Math.max(1, Math.ceil(minMs / 1000)));

    const servedAtMs = Math.max(nowMs, this.#servedAtMs.get(acceptRate) ?? nowMs);
    const waitMs = minMs + (servedAtMs - nowMs);
    const nextMs = servedAtMs + 1000 / acceptRate;
    if (waitMs > maxMs || !Number.isFinite(nextMs)) {
      // No place within the allowed time. It takes none, so the queue never grows beyond `maxMs`.
      return from + Math.floor(this.#random() * (last - from + 1));
    }
    this.#keep(acceptRate, nextMs, nowMs);
    // Up or down by chance, in proportion: rounded one way, clients that are turned away one after the
    // other would come back in bunches.
    const seconds = Math.floor(waitMs / 1000 + this.#random());
    return Math.min(last, Math.max(from, seconds));
  }

  /** Queues in which somebody waits, at most one for each rate; for tests of their bound. */
  get queues(): number {
    return this.#servedAtMs.size;
  }

  #keep(acceptRate: number, servedAtMs: number, nowMs: number): void {
    if (!this.#servedAtMs.has(acceptRate)) {
      // Rates that reloads have removed do not stay for ever.
      for (const [rate, otherMs] of this.#servedAtMs) {
        if (otherMs <= nowMs) this.#servedAtMs.delete(rate);
      }
    }
    this.#servedAtMs.set(acceptRate, servedAtMs);
  }
}
