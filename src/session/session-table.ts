/** The live sessions of a gateway, and their paced end when it drains. */
import type { Clock } from "./clock.ts";
import { Pacing } from "./pacing.ts";
import type { Session } from "./session.ts";

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
    const left = (this.#byRoute.get(session.route) ?? 1) - 1;
    // Routes come and go with reloads.
    if (left === 0) this.#byRoute.delete(session.route);
    else this.#byRoute.set(session.route, left);
    if (this.#sessions.size === 0) this.#onEmpty?.();
  }

  get(id: string): Session | undefined {
    return this.#sessions.get(id);
  }

  /** Oldest first. */
  values(): IterableIterator<Session> {
    return this.#sessions.values();
  }

  /** Routes without a session are not in it; ones that have left the configuration may be. */
  countByRoute(): ReadonlyMap<string, number> {
    return this.#byRoute;
  }

  /**
   * Closes every session with cause `draining`, spread evenly over `timeoutMs`, oldest first. Resolves
   * when none is left, or at the end of that time with the number that had to be destroyed.
   */
  async drain(timeoutMs: number, clock: Clock): Promise<number> {
    const closes = Array.from(this.#sessions.values(), (session) => () => session.drain());
    const pacing = new Pacing(closes, timeoutMs * (1 - LAST_SHARE), clock);
    await this.emptyWithin(timeoutMs);
    pacing.stop();
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
