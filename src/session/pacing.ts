/** Does something to many, evenly over a time, so that what follows from it is spread out, too. */
import type { Clock } from "./clock.ts";

/** How often the next few are due. */
const PACE_MS = 20;

export class Pacing {
  readonly #timer: NodeJS.Timeout;
  readonly #onDone: () => void;

  /**
   * Calls each of `items` once, in order, from the next turn of its timer on; all at once where there is
   * no time. `onDone` comes after the last one, unless it is stopped before.
   */
  constructor(
    items: readonly (() => void)[],
    durationMs: number,
    clock: Clock,
    onDone: () => void = () => undefined,
  ) {
    this.#onDone = onDone;
    const start = clock.now();
    let next = 0;
    const actOnDue = (): void => {
      const share = durationMs <= 0 ? 1 : Math.min(1, (clock.now() - start) / durationMs);
      const due = Math.ceil(items.length * share);
      for (; next < due; next += 1) items[next]?.();
      if (next < items.length) return;
      this.stop();
      this.#onDone();
    };
    this.#timer = setInterval(actOnDue, PACE_MS);
    actOnDue();
  }

  /** Leaves the rest alone. */
  stop(): void {
    clearInterval(this.#timer);
  }
}
