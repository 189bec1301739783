/** The live sessions of a gateway, and their paced end when it drains. */
import type { Clock } from "./clock.ts";
import type { Session } from "./session.ts";

/** How often drain closes its next few sessions. */
const PACE_MS = 20;
/**
 * The share of the time left to the last sessions for their closing handshake: without it, the ones
 * that are closed at the very end would be destroyed.
 */
const LAST_SHARE = 0.1;

export class SessionTable {
  readonly #sessions = new Map<string, Session>();
  readonly #byRoute = new Map<string, number>();
  #onEmpty: (() => void) | null = null;

  get size(): number {
    return this.#sessions.size;
  }

  add(session: Session): void {
    this.#sessions.set(session.id, session);
    this.#byRoute.set(session.route, (this.#byRoute.get(session.route) ?? 0) + 1);
  }

  delete(session: Session): void {
    if (!this.#sessions.delete(session.id)) return;
    this.#byRoute.set(session.route, (this.#byRoute.get(session.route) ?? 1) - 1);
    if (this.#sessions.size === 0) this.#onEmpty?.();
  }

  get(id: string): Session | undefined {
    return this.#sessions.get(id);
  }

  /** Oldest first. */
  values(): IterableIterator<Session> {
    return this.#sessions.values();
  }

  countByRoute(): ReadonlyMap<string, number> {
    return this.#byRoute;
  }

  /**
   * Closes every session with cause `draining`, spread evenly over `timeoutMs`, oldest first. Resolves
   * when none is left, or at the end of that time with the number that had to be destroyed.
   */
  async drain(timeoutMs: number, clock: Clock): Promise<number> {
    const start = clock.now();
    const paceMs = timeoutMs * (1 - LAST_SHARE);
    const queue = [...this.#sessions.values()];
    let next = 0;
    const closeDue = (): void => {
      const share = paceMs <= 0 ? 1 : Math.min(1, (clock.now() - start) / paceMs);
      const due = Math.ceil(queue.length * share);
      for (; next < due; next += 1) queue[next]?.drain();
    };
    closeDue();
    const pacing = setInterval(closeDue, PACE_MS);
    await this.emptyWithin(timeoutMs);
    clearInterval(pacing);
    const left = [...this.#sessions.values()];
    for (const session of left) session.destroy();
    if (left.length > 0) await this.emptyWithin(DESTROY_MS);
    return left.length;
  }

  /** Resolves when no session is left, at the latest after `timeoutMs`. */
  emptyWithin(timeoutMs: number): Promise<void> {
    if (this.#sessions.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#onEmpty = null;
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#onEmpty = done;
    });
  }
}

/** A destroyed socket closes within a turn of the event loop; this is only a bound. */
const DESTROY_MS = 1000;
