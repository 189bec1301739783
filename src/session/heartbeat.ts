/**
 * The heartbeat of one leg: when to ping, and when silence means that the peer is gone. No I/O and no
 * timer: the session asks it on each turn of the wheel and tells it what happened.
 */
import { randomBytes } from "node:crypto";
import type { HeartbeatConfig } from "../config/config.ts";

/** What is due now. */
export type HeartbeatVerdict = "ping" | "unresponsive" | "nothing";

/**
 * The mark in the gateway's own pings. Drawn at random once per gateway, so that a pong that answers
 * somebody else's ping is never swallowed (one in 2^64).
 */
export class PingMark {
  readonly #mark = randomBytes(MARK_BYTES);
  #count = 0;

  /** A payload that `matches` recognises. */
  payload(): Buffer {
    const payload = Buffer.allocUnsafe(PAYLOAD_BYTES);
    this.#mark.copy(payload);
    this.#count = (this.#count + 1) >>> 0;
    payload.writeUInt32BE(this.#count, MARK_BYTES);
    return payload;
  }

  /** Which of the gateway's pings a payload that `matches` belongs to. */
  numberOf(payload: Buffer): number {
    return payload.readUInt32BE(MARK_BYTES);
  }

  matches(payload: Buffer): boolean {
    return (
      payload.length === PAYLOAD_BYTES &&
      payload.compare(this.#mark, 0, MARK_BYTES, 0, MARK_BYTES) === 0
    );
  }
}

const MARK_BYTES = 8;
const PAYLOAD_BYTES = MARK_BYTES + 4;
const NEVER = Number.POSITIVE_INFINITY;
/** What stands for a ping and has no number. */
export const NO_PING = -1;

export class Heartbeat {
  readonly #intervalMs: number;
  readonly #timeoutMs: number;
  readonly #expectsAnswer: boolean;
  #pingAt: number;
  /** When the ping was sent whose answer is awaited; null: none is. */
  #awaitedSince: number | null = null;
  #awaitedPing = NO_PING;
  #standingStillSince: number | null = null;

  /**
   * The first ping comes after half to a whole interval, at random: sessions that began together, as
   * after a deploy, do not tick together.
   */
  constructor(config: HeartbeatConfig, now: number, random: () => number) {
    this.#intervalMs = config.intervalMs;
    this.#timeoutMs = config.timeoutMs;
    this.#expectsAnswer = config.payload === "ping";
    this.#pingAt = config.intervalMs === 0 ? NEVER : now + config.intervalMs * (1 - random() / 2);
  }

  /** When `verdict` should be asked next. */
  get nextAt(): number {
    if (this.#awaitedSince === null || this.#standingStillSince !== null) return this.#pingAt;
    return Math.min(this.#pingAt, this.#awaitedSince + this.#timeoutMs);
  }

  /** `lastReadAt`: when the last byte came from the peer; any byte is life. */
  verdict(now: number, lastReadAt: number): HeartbeatVerdict {
    if (this.#awaitedSince !== null && lastReadAt >= this.#awaitedSince) this.#awaitedSince = null;
    if (
      this.#awaitedSince !== null &&
      this.#standingStillSince === null &&
      now - this.#awaitedSince >= this.#timeoutMs
    ) {
      return "unresponsive";
    }
    return now >= this.#pingAt ? "ping" : "nothing";
  }

  /** A ping went out: its number, or NO_PING. An older one that is still unanswered keeps its deadline. */
  pinged(now: number, ping: number): void {
    this.#pingAt = Math.max(this.#pingAt + this.#intervalMs, now + this.#intervalMs / 2);
    // Nobody is bound to answer an application's text: it keeps hops awake and proves nothing.
    if (!this.#expectsAnswer || this.#awaitedSince !== null) return;
    this.#awaitedSince = now;
    this.#awaitedPing = ping;
  }

  /**
   * The pong to ping number `ping`. Milliseconds since that ping; null: it was not the awaited one. On a
   * long way a pong may come after other bytes have shown life, and after the next ping.
   */
  ponged(now: number, ping: number): number | null {
    const since = ping === this.#awaitedPing ? this.#awaitedSince : null;
    this.#awaitedSince = null;
    return since === null ? null : now - since;
  }

  /** The peer cannot be heard (we read nothing from it) or asked (nothing reaches it): time stops. */
  standStill(now: number): void {
    this.#standingStillSince ??= now;
  }

  /**
   * The peer can be heard again; the deadline moves by the time that was lost. `lastReadAt`: what came
   * before counts as life; a deadline that moves past it would forget it.
   */
  goOn(now: number, lastReadAt: number): void {
    const since = this.#standingStillSince;
    if (since === null) return;
    this.#standingStillSince = null;
    if (this.#awaitedSince === null) return;
    if (lastReadAt >= this.#awaitedSince) this.#awaitedSince = null;
    else this.#awaitedSince += now - Math.max(since, this.#awaitedSince);
  }
}
