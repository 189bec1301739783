/**
 * Which of the client's messages the upstream has read (`resend: unconfirmed`). Frames are ordered, so a
 * pong to a ping that was written after a message proves it. Says when such a ping is due; pure
 * bookkeeping over the log.
 */
import type { ClientLog } from "./client-log.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** Without traffic that fills the buffer, what is unconfirmed is confirmed this often. */
const INTERVAL_MS = 1_000;
/** A log that has filled to this share is confirmed at once: a client should not have to wait for it. */
const EARLY_SHARE = 0.25;

/**
 * Pings that may wait for their pongs. An upstream that sends something and answers no ping lives for
 * the heartbeat, which goes on pinging: beyond this the latest takes the place of the one before.
 */
export const MAX_BARRIERS = 16;

interface Barrier {
  readonly ping: number;
  readonly sentAt: number;
  readonly position: number;
}

export class Confirmation {
  readonly #log: ClientLog;
  readonly #earlyBytes: number;
  #barriers: Barrier[] = [];
  #pingedAt = 0;

  constructor(log: ClientLog, bufferBytes: number) {
    this.#log = log;
    this.#earlyBytes = bufferBytes * EARLY_SHARE;
  }

  /** When a ping is due; Infinity: there is nothing to confirm, or a pong is on its way. */
  get dueAt(): number {
    if (!this.#log.unconfirmed || this.#barriers.length > 0) return NEVER;
    return this.#log.keptBytes >= this.#earlyBytes ? 0 : this.#pingedAt + INTERVAL_MS;
  }

  /**
   * Since when the client is held up by a pong that does not come; Infinity: it is not. The heartbeat
   * does not see this: an upstream that sends something lives, even if it answers no ping.
   */
  get starvedSince(): number {
    const oldest = this.#barriers[0];
    return this.#log.full && oldest !== undefined ? oldest.sentAt : NEVER;
  }

  /** A ping went out: its pong confirms everything up to here. */
  pinged(ping: number, now: number): void {
    this.#pingedAt = now;
    if (this.#barriers.length === MAX_BARRIERS) this.#barriers.pop();
    this.#barriers.push({ ping, sentAt: now, position: this.#log.boundary });
  }

  /** A pong came: what was written before its ping has been read; false: it was no ping of these. */
  ponged(ping: number): boolean {
    const index = this.#barriers.findIndex((barrier) => barrier.ping === ping);
    const barrier = this.#barriers[index];
    if (barrier === undefined) return false;
    this.#barriers.splice(0, index + 1);
    this.#log.confirm(barrier.position);
    return true;
  }

  /** The upstream is lost: it answers no ping any more. */
  reset(): void {
    this.#barriers = [];
  }
}
