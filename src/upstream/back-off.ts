/** Exponential back-off with jitter, pure. */
import type { BackoffConfig } from "../config/config.ts";

/**
 * Milliseconds to wait before try number `retry` (1 is the first repetition): initial, times factor
 * each time, at most max; of that, the share `jitter` is drawn at random, so that sessions that lost
 * the same backend do not come back as one.
 */
export function backoffMs(config: BackoffConfig, retry: number, random: () => number): number {
  // The power grows beyond all numbers, and no wait times that is NaN.
  const power = Math.min(Number.MAX_VALUE, config.factor ** (retry - 1));
  const full = Math.min(config.maxMs, config.initialMs * power);
  return full * (1 - config.jitter * random());
}
