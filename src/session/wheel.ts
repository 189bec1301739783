/**
 * A timer wheel: one interval for all sessions. An entry says when it wants to be looked at next; what
 * is due then is the entry's own business. With 10,000 sessions and a heartbeat of 25 s that is 400
 * looks a second, and no timer per session.
 */
import type { Clock } from "./clock.ts";

/** The precision of heartbeats and deadlines, and what an idle gateway wakes up for. */
const TICK_MS = 50;
/** From here on a turn is late: the process was busy, or had no CPU. */
const LATE_TICKS = 3;
/** 1024 ticks of 50 ms: 51 s. What is further away is looked at once a turn and put back. */
const BUCKETS = 1024;

export interface WheelEntry {
  /** Called when due. Returns when to call again (the wheel's clock), or Infinity for never. */
  check(now: number): number;
}

export class Wheel {
  readonly #clock: Clock;
  readonly #buckets: Set<WheelEntry>[] = Array.from({ length: BUCKETS }, () => new Set());
  readonly #places = new Map<WheelEntry, Set<WheelEntry>>();
  #timer: NodeJS.Timeout | undefined;
  /** A late turn that waits for what lies in the kernel to be read. */
  #lateTurn: NodeJS.Immediate | undefined;
  /** Number of the tick that was handled last. */
  #tick = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#places.size;
  }

  /** Calls `entry.check` at `at` or up to two ticks later; replaces what was asked before. */
  schedule(entry: WheelEntry, at: number): void {
    this.remove(entry);
    if (at === Number.POSITIVE_INFINITY) return;
    if (this.#timer === undefined) {
      this.#tick = Math.floor(this.#clock.now() / TICK_MS);
      this.#timer = setInterval(() => this.#turnOrRead(), TICK_MS);
    }
    const ticks = Math.ceil(at / TICK_MS) - this.#tick;
    const bucket = this.#bucket(this.#tick + Math.min(BUCKETS - 1, Math.max(1, ticks)));
    bucket.add(entry);
    this.#places.set(entry, bucket);
  }

  remove(entry: WheelEntry): void {
    this.#places.get(entry)?.delete(entry);
    this.#places.delete(entry);
  }

  /** Stops the interval; entries are forgotten. */
  stop(): void {
    clearInterval(this.#timer);
    clearImmediate(this.#lateTurn);
    this.#timer = undefined;
    this.#lateTurn = undefined;
    for (const bucket of this.#buckets) bucket.clear();
    this.#places.clear();
  }

  /**
   * Timers come before sockets in Node's event loop: after a stall, peers would be judged for a silence
   * that was ours, with their answers unread. A late turn waits until the sockets have been read.
   */
  #turnOrRead(): void {
    if (this.#lateTurn !== undefined) return;
    if (Math.floor(this.#clock.now() / TICK_MS) - this.#tick < LATE_TICKS) {
      this.#turn();
      return;
    }
    this.#lateTurn = setImmediate(() => {
      this.#lateTurn = undefined;
      this.#turn();
    });
  }

  #turn(): void {
    const now = this.#clock.now();
    const target = Math.floor(now / TICK_MS);
    // After a long stall every bucket is due once, not once per missed turn.
    this.#tick = Math.max(this.#tick, target - BUCKETS);
    while (this.#tick < target) {
      this.#tick += 1;
      const bucket = this.#bucket(this.#tick);
      if (bucket.size === 0) continue;
      // Nothing is scheduled into this bucket meanwhile: `schedule` goes at least one tick ahead.
      for (const entry of bucket) {
        this.remove(entry);
        this.schedule(entry, entry.check(now));
      }
    }
    if (this.#places.size === 0) this.stop();
  }

  #bucket(tick: number): Set<WheelEntry> {
    return this.#buckets[tick % BUCKETS] ?? NEVER;
  }
}

/** Only for the type: every index below BUCKETS has its bucket. */
const NEVER = new Set<WheelEntry>();
