/**
 * `listeners[].acceptRate`: a token bucket for the handshakes of each listener. Knows names and rates
 * only, so that a reload that changes a rate, or binds the listener anew, keeps the bucket's level.
 */
import type { ListenerConfig } from "../config/config.ts";
import type { Clock } from "../session/clock.ts";

interface Bucket {
  /** Handshakes that may come at once. */
  level: number;
  filledAtMs: number;
  /** As of `filledAtMs`. */
  rate: number;
}

export class AcceptRate {
  readonly #clock: Clock;
  /** By listener. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Whether one more handshake may come in now; if so, it counts. */
  take({ name, acceptRate }: Pick<ListenerConfig, "name" | "acceptRate">): boolean {
    if (acceptRate <= 0) {
      this.#buckets.delete(name);
      return true;
    }
    const nowMs = this.#clock.now();
    const bucket = this.#buckets.get(name) ?? this.#start(name, acceptRate, nowMs);
    bucket.level = levelAt(bucket, acceptRate, nowMs);
    bucket.filledAtMs = Math.max(bucket.filledAtMs, nowMs);
    bucket.rate = acceptRate;
    if (bucket.level < 1) return false;
    bucket.level -= 1;
    return true;
  }

  /** Listeners whose bucket is not known to be full; for tests of their bound. */
  get size(): number {
    return this.#buckets.size;
  }

  #start(name: string, rate: number, nowMs: number): Bucket {
    // A full bucket says as much as none: listeners that reloads have removed do not stay for ever.
    for (const [other, bucket] of this.#buckets) {
      if (levelAt(bucket, bucket.rate, nowMs) >= burstOf(bucket.rate)) this.#buckets.delete(other);
    }
    const bucket = { level: burstOf(rate), filledAtMs: nowMs, rate };
    this.#buckets.set(name, bucket);
    return bucket;
  }
}

/**
 * One second's worth. `retry-after` is in whole seconds, so clients that were thrown off together come
 * back together, a second's share at one moment: a smaller burst would turn part of every share away
 * though the rate is kept. A herd that never stops finds the bucket empty: after its first second no
 * more than the rate gets in.
 */
function burstOf(rate: number): number {
  return Math.max(1, rate);
}

function levelAt(bucket: Bucket, rate: number, nowMs: number): number {
  const elapsedMs = Math.max(0, nowMs - bucket.filledAtMs);
  return Math.min(burstOf(rate), bucket.level + (elapsedMs * rate) / 1000);
}
