/** Waiting without sleeping: a condition is tried again until it holds. */

const TRY_EVERY_MS = 5;
const DEFAULT_LIMIT_MS = 8_000;
/** Where networks with faults, or other processes, take their time. */
export const LONG_MS = 30_000;

/** Resolves with what `probe` returns once it no longer throws. Fails with its last error. */
export async function eventually<T>(
  probe: () => T | Promise<T>,
  limitMs: number = DEFAULT_LIMIT_MS,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  while (true) {
    try {
      return await probe();
    } catch (error) {
      if (performance.now() >= deadline) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, TRY_EVERY_MS));
  }
}
