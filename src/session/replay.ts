/**
 * The start of the conversation, repeated to a new upstream at the pace at which it answers: servers
 * take a request before the login is through as an offence (`graphql-ws` closes with 4401), and the
 * client, too, had waited. Pure bookkeeping.
 */

/** What is said. The client may add to it meanwhile. */
export interface Firsts {
  /** The last one may be without its end. */
  readonly firsts: readonly (readonly Buffer[])[];
  /** How many have their end: only those are answered. */
  readonly wholeFirsts: number;
}

export class Replay {
  readonly #log: Firsts;
  /** Messages that have been begun. */
  #begun = 0;
  /** Messages of the new upstream that do not reach the client. */
  readonly swallow: number;
  /** When the new upstream must have answered. */
  endsAt: number;
  #said = 0;
  #answers = 0;

  constructor(log: Firsts, swallow: number, endsAt: number) {
    this.#log = log;
    this.swallow = swallow;
    this.endsAt = endsAt;
  }

  get isOver(): boolean {
    return !this.#hasMore && !this.#awaitsAnswer;
  }

  /** The new upstream has sent a message that is swallowed. */
  answered(): void {
    this.#answers += 1;
  }

  /** What may be said now: the next message waits for the answer to the one before. */
  next(): Buffer[] {
    const frames: Buffer[] = [];
    while (this.#hasMore && !this.#awaitsAnswer) frames.push(...this.#say());
    return frames;
  }

  /** Everything else, without waiting. */
  rest(): Buffer[] {
    const frames: Buffer[] = [];
    while (this.#hasMore) frames.push(...this.#say());
    return frames;
  }

  get #hasMore(): boolean {
    return this.#begun < this.#log.firsts.length;
  }

  get #awaitsAnswer(): boolean {
    return this.#answers < Math.min(this.#said, this.swallow);
  }

  #say(): readonly Buffer[] {
    const message = this.#log.firsts[this.#begun] ?? [];
    this.#begun += 1;
    if (this.#begun <= this.#log.wholeFirsts) this.#said += 1;
    return message;
  }
}
