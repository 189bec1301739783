/** Backends that are being left: each one's sessions move, or end, evenly over the time of its drain. */
import type { Backend } from "../upstream/backend.ts";
import type { Clock } from "./clock.ts";
import { Pacing } from "./pacing.ts";
import type { SessionTable } from "./session-table.ts";

export class BackendDrains {
  readonly #sessions: SessionTable;
  readonly #clock: Clock;
  readonly #pacings = new Map<Backend, Pacing>();

  constructor(sessions: SessionTable, clock: Clock) {
    this.#sessions = sessions;
    this.#clock = clock;
  }

  /**
   * Returns how many sessions will leave, as long as the backend is drained or down. One that is being
   * left already goes on as it does: asking again must not put its end off.
   */
  begin(backend: Backend, timeoutMs: number): number {
    const served = [...this.#sessions.values()].filter(({ served: by }) => by === backend);
    if (served.length === 0 || this.#pacings.has(backend)) return served.length;
    const leave = served.map((session) => () => {
      // It may have gone elsewhere, or the backend come back.
      const mustLeave = backend.draining || !backend.isUp;
      if (mustLeave && session.served === backend) session.move();
    });
    let isOver = false;
    const pacing = new Pacing(leave, timeoutMs, this.#clock, () => {
      isOver = true;
      this.#pacings.delete(backend);
    });
    if (!isOver) this.#pacings.set(backend, pacing);
    return served.length;
  }

  /** Leaves the sessions of backends alone that are in service again. */
  forgetReturned(): void {
    for (const [backend, pacing] of this.#pacings) {
      if (backend.draining || !backend.isUp) continue;
      pacing.stop();
      this.#pacings.delete(backend);
    }
  }

  stop(): void {
    for (const pacing of this.#pacings.values()) pacing.stop();
    this.#pacings.clear();
  }
}
