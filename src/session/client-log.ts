/**
 * What a next upstream must get of the client's frames: the unfinished message, with
 * `resend: unconfirmed` also what no pong has confirmed, and while there is no upstream everything.
 * Positions count forwarded bytes since the session began. Pure bookkeeping; no I/O.
 *
 *     0 ─── first messages ───┬──── ... ────┬──────────────┬───────────────┬──▶
 *                         firstsEnd     confirmed       boundary          end
 *                                           │        start of the      what has been
 *                                           │     unfinished message     forwarded
 *                                           └────────── kept with resend: unconfirmed ──┘
 */
import type { SessionRetryConfig } from "../config/config.ts";

/** A view is copied if it keeps more than this many times its size alive. */
const WASTE = 2;
/**
 * Smaller pieces are gathered: a Buffer of its own for each costs half a kilobyte (measured, resident)
 * beside its bytes, and most messages are short.
 */
const GATHER_BELOW_BYTES = 1024;
const FIRST_BLOCK_BYTES = 256;
const MAX_BLOCK_BYTES = 8 * 1024;

type LogConfig = Pick<SessionRetryConfig, "bufferBytes" | "resend" | "replayFirst">;

export class ClientLog {
  readonly #config: LogConfig;
  /** Frames from `#start` to `#end`. */
  #kept: Buffer[] = [];
  /** Where small pieces are gathered, and how much of it they fill. */
  #block: Buffer = EMPTY;
  #blockBytes = 0;
  #start = 0;
  #end = 0;
  #boundary = 0;
  #confirmed = 0;
  /** The unfinished message is larger than the buffer: it cannot be sent again. */
  #outgrown = false;
  /** Up to here something has been given up that only a confirmation makes good. */
  #lostUntil = 0;
  /** The first messages, each with what came before its end. */
  #firsts: Buffer[][] = [];
  #wholeFirsts = 0;
  #firstsEnd = 0;
  #firstsBytes = 0;
  #firstsState: "counting" | "whole" | "outgrown";
  #waiting = false;

  constructor(config: LogConfig) {
    this.#config = config;
    this.#firstsState = config.replayFirst === 0 ? "whole" : "counting";
  }

  get keptBytes(): number {
    return this.#end - this.#start;
  }

  /** Nothing more should be taken from the client for now. */
  get full(): boolean {
    return this.keptBytes >= this.#config.bufferBytes;
  }

  /** Something is kept that a pong could confirm. */
  get unconfirmed(): boolean {
    return this.#boundary > this.#confirmed;
  }

  /** Up to where a pong to a ping that is written now confirms: only whole messages count. */
  get boundary(): number {
    return this.#boundary;
  }

  /** What a new upstream needs has outgrown the buffer. */
  get outgrown(): boolean {
    const isMissing = this.#config.resend === "unconfirmed" && this.#confirmed < this.#lostUntil;
    return this.#outgrown || isMissing || this.#firstsState === "outgrown";
  }

  /**
   * Counts frames that are being forwarded and that no upstream will need again; false: they, or what
   * is kept, may be needed, so they have to be appended. Meant for every frame of a session that is well.
   */
  skip(bytes: number, unfinishedBytes: number): boolean {
    if (this.#waiting || this.#firstsState === "counting") return false;
    const end = this.#end + bytes;
    const boundary = end - unfinishedBytes;
    if (this.#outgrown && boundary < this.#start) {
      // Still the message that has outgrown the buffer.
      this.#start = end;
    } else if (this.#config.resend === "none" && unfinishedBytes === 0) {
      this.#outgrown = false;
      if (this.#kept.length > 0) this.#keepNothing();
      this.#start = end;
    } else {
      return false;
    }
    this.#end = end;
    this.#boundary = boundary;
    return true;
  }

  /**
   * Takes frames that are being forwarded, or kept because there is no upstream. `unfinishedBytes`: how
   * many of all bytes so far belong to a message without its end; `messages`: whole ones so far.
   */
  append(frames: Buffer, unfinishedBytes: number, messages: number): void {
    this.#end += frames.length;
    this.#boundary = this.#end - unfinishedBytes;
    // Pings and pongs between messages are none of the first messages, and may go on for ever.
    const isMessage = unfinishedBytes > 0 || messages > this.#wholeFirsts;
    if (this.#firstsState === "counting" && isMessage) this.#countFirsts(frames, messages);
    if (this.#outgrown && this.#boundary < this.#start) {
      // Still the same message.
      this.#start = this.#end;
      return;
    }
    this.#keep(frames);
    if (this.#outgrown) {
      this.#outgrown = false;
      this.#lostUntil = this.#boundary;
      this.#dropBefore(this.#boundary);
    }
    if (!this.#waiting) this.#trim();
  }

  /** The upstream is known to have read everything up to this position. */
  confirm(position: number): void {
    this.#confirmed = Math.max(this.#confirmed, position);
    if (this.#waiting) this.#dropBefore(this.#confirmed);
    else this.#trim();
  }

  /** There is no upstream: from here on everything is kept. */
  wait(): void {
    this.#waiting = true;
  }

  /** What a new upstream gets before anything else; the last one may be unfinished. */
  get firsts(): readonly (readonly Buffer[])[] {
    return this.#firsts;
  }

  /** How many of them have their end. */
  get wholeFirsts(): number {
    return this.#wholeFirsts;
  }

  /** What a new upstream gets after the first messages, in order; and with that there is one again. */
  resume(): Buffer[] {
    this.#waiting = false;
    // What is replayed is not sent a second time as unconfirmed.
    if (this.#firsts.length > 0) this.#dropBefore(this.#firstsEnd);
    const frames = this.#kept.slice();
    this.#trim();
    return frames;
  }

  #keep(frames: Buffer): void {
    if (frames.length >= GATHER_BELOW_BYTES) {
      this.#kept.push(ownCopy(frames));
      return;
    }
    const last = this.#kept.at(-1);
    const goesOn = last !== undefined && last.buffer === this.#block.buffer;
    const start = this.#blockBytes;
    const end = start + frames.length;
    if (goesOn && end <= this.#block.length) {
      this.#block.set(frames, start);
      this.#blockBytes = end;
      this.#kept[this.#kept.length - 1] = this.#block.subarray(last.byteOffset, end);
      return;
    }
    // Each block twice the one before: what is not filled is never more than what is.
    const size = goesOn ? Math.min(2 * this.#block.length, MAX_BLOCK_BYTES) : FIRST_BLOCK_BYTES;
    this.#block = Buffer.allocUnsafeSlow(Math.max(size, frames.length));
    this.#block.set(frames);
    this.#blockBytes = frames.length;
    this.#kept.push(this.#block.subarray(0, frames.length));
  }

  #trim(): void {
    const { resend } = this.#config;
    const needed = resend === "unconfirmed" ? this.#confirmed : this.#boundary;
    this.#dropBefore(Math.min(needed, this.#boundary));
    // Nothing but an unfinished message is left: no confirmation will make room.
    const isUnfinished = this.#start >= this.#boundary && this.#end > this.#boundary;
    if (!this.full || !isUnfinished) return;
    this.#outgrown = true;
    this.#keepNothing();
    this.#start = this.#end;
  }

  #dropBefore(position: number): void {
    let drop = Math.min(position, this.#end) - this.#start;
    if (drop <= 0) return;
    this.#start += drop;
    let whole = 0;
    while (drop > 0) {
      const first = this.#kept[whole];
      if (first === undefined) break;
      if (first.length > drop) {
        this.#kept[whole] = ownCopy(first.subarray(drop));
        break;
      }
      drop -= first.length;
      whole += 1;
    }
    if (whole === this.#kept.length) this.#keepNothing();
    else this.#kept.splice(0, whole);
  }

  #keepNothing(): void {
    this.#kept = [];
    this.#block = EMPTY;
  }

  /** The relay forwards the first messages in calls of their own, so one ends where `frames` ends. */
  #countFirsts(frames: Buffer, messages: number): void {
    const message = (this.#firsts[this.#wholeFirsts] ??= []);
    const last = message.at(-1);
    // Fragments of a few bytes each would take many times the memory of what is in them.
    if (last !== undefined && last.length < GATHER_BELOW_BYTES) {
      message[message.length - 1] = Buffer.concat([last, frames]);
    } else {
      message.push(ownCopy(frames));
    }
    this.#firstsEnd = this.#end;
    this.#firstsBytes += frames.length;
    this.#wholeFirsts = messages;
    if (this.#firstsBytes > this.#config.bufferBytes) {
      this.#firsts = [];
      this.#firstsState = "outgrown";
    } else if (messages >= this.#config.replayFirst) {
      this.#firstsState = "whole";
    }
  }
}

const EMPTY = Buffer.alloc(0);

/** A view of a few bytes must not keep a chunk of 64 KiB alive. */
function ownCopy(frames: Buffer): Buffer {
  return frames.length * WASTE < frames.buffer.byteLength ? Buffer.from(frames) : frames;
}
