/** Latencies in fixed buckets: constant memory, no sorting of millions of numbers on a busy core. */

const BUCKET_US = 5;

/** 250 ms; what takes longer is counted in the last bucket. */
const BUCKETS = 50_000;

export class LatencyHistogram {
  readonly #counts = new Uint32Array(BUCKETS);
  #total = 0;

  add(ms: number, times: number): void {
    const bucket = Math.min(BUCKETS - 1, Math.floor((ms * 1000) / BUCKET_US));
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + times;
    this.#total += times;
  }

  reset(): void {
    this.#counts.fill(0);
    this.#total = 0;
  }

  /** Upper edge of the bucket that holds the given share of all values. */
  percentileUs(share: number): number {
    const rank = Math.ceil(this.#total * share);
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#counts[bucket] ?? 0;
      if (seen >= rank) return (bucket + 1) * BUCKET_US;
    }
    return BUCKETS * BUCKET_US;
  }
}
