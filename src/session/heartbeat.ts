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
  /** When the first ping was sent since which no life has been seen; null: none is unanswered. */
  #awaitedSince: number | null = null;
  /** The ping by which the round trip is measured, and when it was sent. */
  #measuredPing = NO_PING;
  #measuredSince = 0;
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
    if (!this.#expectsAnswer) return;
    this.#awaitedSince ??= now;
    // RFC 6455 §5.5.3: of several pings only the last need be answered, so this one's pong may never come.
    const waitedMs = (this.#standingStillSince ?? now) - this.#measuredSince;
    if (this.#measuredPing !== NO_PING && waitedMs < this.#timeoutMs) return;
    this.#measuredPing = ping;
    this.#measuredSince = now;
  }

  /**
   * The pong to ping number `ping`, which may be one that others sent over this leg: it is life all the same.
   * Milliseconds since that ping; null: it is not the measured one. On a long way its pong may come after
   * other bytes have shown life, and after the next ping.
   */
  ponged(now: number, ping: number): number | null {
    this.#awaitedSince = null;
    if (ping !== this.#measuredPing) return null;
    this.#measuredPing = NO_PING;
    return now - this.#measuredSince;
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
    this.#measuredSince += now - Math.max(since, this.#measuredSince);
    if (this.#awaitedSince === null) return;
    if (lastReadAt >= this.#awaitedSince) this.#awaitedSince = null;
    else this.#awaitedSince += now - Math.max(since, this.#awaitedSince);
  }
}
