/**
 * The share that a backend gets while it warms up: after it has come back from being down or ejected,
 * or has joined a running pool. Pure arithmetic over a time that the caller brings; no timers.
 */

/** From nothing at all a backend would never get the first session that warms it. */
const FIRST_SHARE = 0.1;

export class SlowStart {
  /** 0: off. A reload may change it; a ramp that runs goes on by the new length. */
  durationMs: number;
  #begunAtMs = Number.NEGATIVE_INFINITY;

  constructor(durationMs: number) {
    this.durationMs = durationMs;
  }

  /** Starts the ramp, from its foot even if one is running. */
  begin(now: number): void {
    this.#begunAtMs = now;
  }

  /** FIRST_SHARE, rising in a straight line, then 1. */
  share(now: number): number {
    const elapsedMs = Math.max(0, now - this.#begunAtMs);
    if (elapsedMs >= this.durationMs) return 1;
    return FIRST_SHARE + (1 - FIRST_SHARE) * (elapsedMs / this.durationMs);
  }

  /**
   * The cap for now. Always one slot at least; 0, no limit, stays 0: there the weight alone ramps. May
   * be below the connections that a backend has kept: then it gets none until the cap has passed them.
   */
  capOf(maxConnections: number, now: number): number {
    if (maxConnections === 0) return 0;
    return Math.max(1, Math.floor(maxConnections * this.share(now)));
  }

  weightOf(weight: number, now: number): number {
    return weight * this.share(now);
  }

  /** When the cap has grown, for those who queue for a slot: no event tells them; null: it is whole. */
  capGrowsAtMs(maxConnections: number, now: number): number | null {
    const cap = this.capOf(maxConnections, now);
    if (cap >= maxConnections) return null;
    const progress = ((cap + 1) / maxConnections - FIRST_SHARE) / (1 - FIRST_SHARE);
    const at = Math.ceil(this.#begunAtMs + Math.min(1, progress) * this.durationMs);
    // Rounding may have put it a hair's breadth too early.
    return this.capOf(maxConnections, at) > cap ? at : at + 1;
  }
}
