/**
 * A pool's queue: clients that wait for a slot, first come, first served. Owns the order, the
 * deadlines and the bound on how many may wait; what a slot is and when one may be free is the pool's.
 *
 *   joins ──▶ waiting ──slot──▶ over
 *                ├──── timeout, line closed ──▶ over (told so)
 *                └──── leave() ──▶ over (not told)
 *
 * Nobody overtakes: while `length` is above 0, whoever wants a slot joins, even if there is a free one.
 */
import type { QueueConfig } from "../config/config.ts";
import type { Slot } from "./backend.ts";

/** How a wait ends. `closed`: the gateway drains, and nobody is served any more. */
export type Turn = Slot | "timeout" | "closed";

export interface Waiting {
  /** A slot for this client; null: there is none now. Asked only while it is the first in the line. */
  readonly take: () => Slot | null;
  /** Called once at most, never from within `join`. A slot that it gets is the client's to release. */
  readonly onTurn: (turn: Turn) => void;
}

/** A place in the line. */
export interface Place {
  /** The client is gone: it is not called any more. Does nothing when the wait is over. */
  leave(): void;
}

export class WaitingLine {
  readonly #now: () => number;
  #config: QueueConfig;
  #state: "open" | "serving" | "closed" = "open";
  /** In order of arrival; none is empty. */
  #stretches: Stretch[] = [];
  #length = 0;
  /** Number of the last who joined. */
  #joined = 0;
  /** One for all who wait: at the earliest deadline, or before it. */
  #timer: NodeJS.Timeout | undefined;
  #timerAt = NEVER;
  #nextPass: NodeJS.Immediate | undefined;

  /** `now`: monotonic milliseconds. */
  constructor(config: QueueConfig, now: () => number) {
    this.#config = config;
    this.#now = now;
  }

  /** How many wait. */
  get length(): number {
    return this.#length;
  }

  /** Goes to the end of the line; null: there is no room, or no line. */
  join(waiting: Waiting): Place | null {
    const { size, timeoutMs } = this.#config;
    if (this.#state === "closed" || this.#length >= size) return null;
    let stretch = this.#stretches.at(-1);
    if (stretch?.timeoutMs !== timeoutMs) {
      stretch = new Stretch(timeoutMs);
      this.#stretches.push(stretch);
    }
    this.#joined += 1;
    this.#length += 1;
    const waiter = new Waiter(waiting, this.#joined, this.#now() + timeoutMs, stretch);
    stretch.append(waiter);
    this.#wakeUpAt(waiter.deadline);
    return { leave: () => this.#leave(waiter) };
  }

  /**
   * Hands out slots for as long as the first in the line can take one. To be called whenever there may
   * be one. May be called from within `onTurn`: the pass that is under way sees what has become free.
   */
  serve(): void {
    if (this.#state !== "open" || this.#length === 0) return;
    this.#state = "serving";
    // Those who join again from their own turn are for the next pass: this one has to end.
    const last = this.#joined;
    let isOut = false;
    try {
      for (let head = this.#head(); head !== null && head.number <= last; head = this.#head()) {
        const slot = head.take();
        if (slot === null) {
          isOut = true;
          break;
        }
        this.#remove(head);
        head.end(slot);
      }
    } finally {
      this.#endPass();
    }
    if (!isOut && this.#length > 0) this.#serveSoon();
  }

  /** A reload: for those who come from now on. Who waits keeps its place, and the time that it was given. */
  reconfigure(config: QueueConfig): void {
    this.#config = config;
  }

  /** Everyone who waits is told `closed`, and nobody can join any more. */
  close(): void {
    this.#state = "closed";
    for (let head = this.#head(); head !== null; head = this.#head()) {
      this.#remove(head);
      head.end("closed");
    }
  }

  #head(): Waiter | null {
    return this.#stretches[0]?.first ?? null;
  }

  #leave(waiter: Waiter): void {
    if (waiter.state === "inLine") this.#remove(waiter);
    waiter.forget();
  }

  #remove(waiter: Waiter): void {
    const { stretch } = waiter;
    stretch.remove(waiter);
    this.#length -= 1;
    if (stretch.first === null) this.#stretches = this.#stretches.filter((one) => one !== stretch);
    if (this.#length > 0) return;
    clearTimeout(this.#timer);
    clearImmediate(this.#nextPass);
    this.#timer = undefined;
    this.#timerAt = NEVER;
    this.#nextPass = undefined;
  }

  #endPass(): void {
    if (this.#state === "serving") this.#state = "open";
  }

  /** In a turn of the event loop of its own: waiters that fail and come back at once must not stop it. */
  #serveSoon(): void {
    this.#nextPass ??= setImmediate(() => {
      this.#nextPass = undefined;
      this.serve();
    });
  }

  #wakeUpAt(deadline: number): void {
    if (deadline >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = deadline;
    const delayMs = Math.max(1, Math.ceil(deadline - this.#now()));
    this.#timer = setTimeout(() => this.#wokenUp(), delayMs);
  }

  #wokenUp(): void {
    this.#timer = undefined;
    this.#timerAt = NEVER;
    // Nobody is turned away from a slot that has become free by the passing of time alone.
    this.serve();
    const now = this.#now();
    // All are taken out before any is told: what they do then finds the line as it will be.
    const overdue: Waiter[] = [];
    for (const stretch of this.#stretches) {
      let { first } = stretch;
      while (first !== null && first.deadline <= now) {
        this.#remove(first);
        overdue.push(first);
        first = stretch.first;
      }
    }
    for (const { first } of this.#stretches) if (first !== null) this.#wakeUpAt(first.deadline);
    for (const waiter of overdue) waiter.end("timeout");
  }
}

const NEVER = Number.POSITIVE_INFINITY;

/**
 * Neighbours in the line with the same timeout, so that they come to their deadlines in the order in
 * which they came. There is more than one stretch only after a reload that changed the timeout.
 */
class Stretch {
  readonly timeoutMs: number;
  first: Waiter | null = null;
  #last: Waiter | null = null;

  constructor(timeoutMs: number) {
    this.timeoutMs = timeoutMs;
  }

  append(waiter: Waiter): void {
    waiter.before = this.#last;
    if (this.#last === null) this.first = waiter;
    else this.#last.after = waiter;
    this.#last = waiter;
  }

  remove(waiter: Waiter): void {
    const { before, after } = waiter;
    if (before === null) this.first = after;
    else before.after = after;
    if (after === null) this.#last = before;
    else after.before = before;
    waiter.before = null;
    waiter.after = null;
    waiter.state = "over";
  }
}

class Waiter {
  readonly number: number;
  readonly deadline: number;
  readonly stretch: Stretch;
  state: "inLine" | "over" = "inLine";
  before: Waiter | null = null;
  after: Waiter | null = null;
  #waiting: Waiting | null;

  constructor(waiting: Waiting, number: number, deadline: number, stretch: Stretch) {
    this.#waiting = waiting;
    this.number = number;
    this.deadline = deadline;
    this.stretch = stretch;
  }

  take(): Slot | null {
    return this.#waiting?.take() ?? null;
  }

  end(turn: Turn): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    waiting?.onTurn(turn);
  }

  /** Also for one that is out of the line already but has not been told. */
  forget(): void {
    this.#waiting = null;
  }
}
