/**
 * The last records, for the admin page and its API. A ring: its memory is bounded by its capacity,
 * however many sessions pass through.
 */
import type { SessionRecord } from "../session/record.ts";

const DEFAULT_CAPACITY = 1000;

export class Ledger {
  readonly #capacity: number;
  readonly #ring: SessionRecord[] = [];
  /** Where the next record goes once the ring is full: the oldest one's place. */
  #next = 0;

  constructor(capacity: number = DEFAULT_CAPACITY) {
    if (!Number.isInteger(capacity) || capacity < 1) {
      throw new RangeError(`ledger capacity must be a whole number above 0, not ${capacity}`);
    }
    this.#capacity = capacity;
  }

  add(record: SessionRecord): void {
    this.#ring[this.#next] = record;
    this.#next = (this.#next + 1) % this.#capacity;
  }

  /** Newest first, at most `limit`. */
  newest(limit: number): SessionRecord[] {
    const length = this.#ring.length;
    const wanted = Math.max(0, Math.min(limit, length));
    const records: SessionRecord[] = [];
    for (let back = 1; back <= wanted; back++) {
      const record = this.#ring[(this.#next - back + length) % length];
      if (record !== undefined) records.push(record);
    }
    return records;
  }
}
