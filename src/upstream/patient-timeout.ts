/**
 * A time limit for a peer that does not blame it for a stall of this process (no CPU, SIGSTOP, a long
 * collection). After one, Node's timers may come before its sockets: what the peer has sent lies unread in
 * the kernel, and what it is to answer may not have gone out.
 *
 * So the time is counted in slices, one timer after the other. A slice that a stall has stretched counts
 * as one, and the peer has the others left; behind a last one there is one more.
 */

/** What a stall costs the peer at most: one of them. */
const SLICES = 10;
/** From here on a timer is late. They are by 1 or 2 ms by themselves. */
const LATE_MS = 10;

export class PatientTimeout {
  readonly #sliceMs: number;
  readonly #onTimeout: () => void;
  #leftMs: number;
  #timer: NodeJS.Timeout;

  /** `onTimeout` is called once, unless `clear` comes first. */
  constructor(timeoutMs: number, onTimeout: () => void) {
    this.#sliceMs = Math.ceil(timeoutMs / SLICES);
    this.#onTimeout = onTimeout;
    this.#leftMs = timeoutMs;
    this.#timer = this.#nextSlice();
  }

  clear(): void {
    clearTimeout(this.#timer);
  }

  #nextSlice(): NodeJS.Timeout {
    const sliceMs = Math.min(this.#sliceMs, this.#leftMs);
    this.#leftMs -= sliceMs;
    const lateAt = performance.now() + sliceMs + LATE_MS;
    return setTimeout(() => {
      if (this.#leftMs > 0) {
        this.#timer = this.#nextSlice();
      } else if (performance.now() >= lateAt) {
        // No more than one: on a machine that is always busy the limit has to come, too.
        this.#timer = setTimeout(this.#onTimeout, this.#sliceMs);
      } else {
        this.#onTimeout();
      }
    }, sliceMs);
  }
}
