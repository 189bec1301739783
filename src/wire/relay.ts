/**
 * The frame relay: one direction of a session. It reads frame headers, checks them against RFC 6455
 * §5, and passes frames on as they came. It never unmasks, copies or inflates payload, and what it
 * forwards is always a sequence of whole frames, so that a frame of the gateway's own can be written
 * between any two calls of the sink. No I/O here; who reads, writes and decides is the session.
 *
 *              whole frame: forward it             piece: forward it as a fragment
 *                 ┌──────┐                              ┌──────┐
 *                 │      ▼     header of a frame        ▼      │
 *                 └─── frame ────── > 64 KiB ───────▶ longFrame
 *                        ▲                              │
 *                        └──────── last piece ──────────┘
 *
 *   a Close frame or a violation, from anywhere ──▶ done (everything after it is ignored)
 */

import type { Close } from "../close/causes.ts";
import { parseClosePayload } from "./close-payload.ts";
import {
  FIN,
  LENGTH_BITS,
  MASK,
  MAX_CONTROL_PAYLOAD,
  OPCODE_BINARY,
  OPCODE_BITS,
  OPCODE_CLOSE,
  OPCODE_CONTINUATION,
  OPCODE_PING,
  OPCODE_PONG,
  RSV_BITS,
  RSV1,
} from "./frame.ts";
import type { Slab, SlabPool } from "./slab.ts";

/** A frame with up to this much payload is held until complete and forwarded unchanged. */
export const HOLD_LIMIT_BYTES = 64 * 1024;
/**
 * Pieces of a longer frame are gathered to at least this size before they go out as a fragment.
 * `ws` refuses messages of more than 16,384 fragments (1008): at 16 KiB each that is 256 MiB, where
 * single TCP segments would reach it at 23 MiB and a hostile sender of single bytes at once.
 */
export const MIN_FRAGMENT_BYTES = 16 * 1024;
/** First allocation for a partial frame: most partial frames are short, and a header proves nothing. */
const FIRST_HOLD_BYTES = 1024;
/** From this size on, held bytes lie in a slab: at most eight times what has arrived. */
const SLAB_FROM_BYTES = 8 * 1024;

export type Direction = "clientToUpstream" | "upstreamToClient";

/** What the sender of a direction did wrong. */
export interface Violation {
  readonly kind: "protocol" | "messageTooBig" | "rateLimited";
  readonly detail: string;
}

/** Where a relay's output goes. Called synchronously from `push`. */
export interface RelaySink {
  /**
   * Whole frames: a view of the pushed chunk, or a buffer that the relay has given up. If it lies in a
   * slab of the relay's, whoever needs it after the call pins that.
   */
  forward(frames: Buffer, slab: Slab | null): void;
  /** One fragment of a long frame, in two parts that must be written in one go. */
  forwardFragment(header: Buffer, payload: Buffer, slab: Slab | null): void;
  /** An unmasked Pong payload; true: it answers a ping of the gateway's own and goes no further. */
  takePong(payload: Buffer): boolean;
  /** An unmasked Ping payload, while `answerPings` is on: the gateway answers it, nobody else. */
  takePing(payload: Buffer): void;
  /** A message ended that was not forwarded because of `swallow`. */
  swallowed(): void;
  /** The sender's Close; nothing follows. */
  closeReceived(close: Close): void;
  /** The sender broke a rule; nothing follows. */
  violated(violation: Violation): void;
}

/** Says whether one more message may pass now. */
export interface MessageLimiter {
  take(): boolean;
}

export interface RelayOptions {
  readonly direction: Direction;
  /** permessage-deflate was negotiated: RSV1 may mark the first frame of a message. */
  readonly deflate: boolean;
  /** Payload bytes of one message, over all its fragments, as sent (not inflated); 0: no limit. */
  readonly maxMessageBytes: number;
  readonly limiter: MessageLimiter | null;
  /** Memory for large partial frames. */
  readonly slabs: SlabPool;
  /** The first so many messages are forwarded in calls of their own. Default: 0. */
  readonly apart?: number;
  /** The first so many messages are read and not forwarded. Default: 0. */
  readonly swallow?: number;
}

/** `frame`: the rest of a header or of a frame up to HOLD_LIMIT_BYTES; `longFrame`: more payload. */
type Awaited = "frame" | "longFrame" | "done";

/** Answers of `readHeader` that are not a size. */
const BROKEN = -1;

export class FrameRelay {
  /** Whole messages forwarded. */
  messages = 0;
  /** Bytes of frames forwarded, headers included. */
  bytes = 0;
  /** Messages read but not forwarded, because the relay was told to discard. */
  droppedMessages = 0;
  /** Pings from the sender go to `takePing` instead of the receiver. */
  answerPings = false;

  readonly #sink: RelaySink;
  readonly #masked: boolean;
  readonly #deflate: boolean;
  readonly #maxMessageBytes: number;
  readonly #limiter: MessageLimiter | null;

  #awaited: Awaited = "frame";
  #discarding = false;
  /** Messages yet to be swallowed, the current one included. */
  #toSwallow: number;
  readonly #apart: number;
  /** `bytes` where the current message began. */
  #messageStart = 0;
  /** Bytes of an incomplete header or frame, or of a fragment below MIN_FRAGMENT_BYTES. */
  #held: Buffer | null = null;
  #heldBytes = 0;
  /** Where the held bytes lie, once they are many; while they are forwarded, too. */
  #slab: Slab | null = null;
  readonly #slabs: SlabPool;

  /** Between the first frame of a message and the one with FIN. */
  #inMessage = false;
  /** Payload bytes of the current message in the frames before the current one. */
  #messageBytes = 0;

  // The header read last.
  #firstByte = 0;
  #headerBytes = 0;
  #payloadBytes = 0;
  #violation: Violation | null = null;

  // The long frame that goes out in fragments.
  #longRemaining = 0;
  #longOffset = 0;
  #longFirstByte = 0;
  #longMaskKey: Buffer = NO_KEY;

  constructor(options: RelayOptions, sink: RelaySink) {
    this.#sink = sink;
    this.#masked = options.direction === "clientToUpstream";
    this.#deflate = options.deflate;
    this.#maxMessageBytes = options.maxMessageBytes;
    this.#limiter = options.limiter;
    this.#slabs = options.slabs;
    this.#apart = options.apart ?? 0;
    this.#toSwallow = options.swallow ?? 0;
  }

  /** Part of a message has been forwarded and its end has not. */
  get midMessage(): boolean {
    return this.#toSwallow === 0 && (this.#inMessage || this.#longOffset > 0);
  }

  /** Forwarded bytes since the start of the message that is unfinished; 0: none is. */
  get unfinishedBytes(): number {
    return this.midMessage ? this.bytes - this.#messageStart : 0;
  }

  /** Bytes kept in memory: at most one frame with HOLD_LIMIT_BYTES of payload. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** The receiver is gone: go on reading for the sender's Close, forward nothing, count what is lost. */
  discard(): void {
    if (this.#discarding || this.#awaited === "done") return;
    this.#discarding = true;
    // A long frame of which nothing has gone out yet has been accounted for as forwarded.
    const begun = this.#inMessage || this.#awaited === "longFrame";
    if (begun && this.#toSwallow === 0) this.droppedMessages += 1;
  }

  /** Stop for good: everything from here on is ignored. */
  stop(): void {
    this.#awaited = "done";
    this.#held = null;
    this.#heldBytes = 0;
    this.#releaseSlab();
  }

  #releaseSlab(): void {
    this.#slab?.unpin();
    this.#slab = null;
  }

  /** The next bytes from the sender. What the relay keeps of the chunk, it copies. */
  push(chunk: Buffer): void {
    let position = 0;
    while (position < chunk.length) {
      switch (this.#awaited) {
        case "frame":
          position =
            this.#held === null ? this.#scan(chunk, position) : this.#fill(chunk, position);
          break;
        case "longFrame":
          position = this.#fragment(chunk, position);
          break;
        case "done":
          return;
      }
    }
  }

  /** Forwards the run of whole frames that starts at `start`; returns where the scan stopped. */
  #scan(chunk: Buffer, start: number): number {
    const end = chunk.length;
    let runStart = start;
    let position = start;
    while (position < end) {
      const needed = this.#readHeader(chunk, position, end);
      if (needed === BROKEN) {
        this.#forwardRun(chunk, runStart, position);
        return this.#fail(end);
      }
      if (needed > end - position) {
        this.#forwardRun(chunk, runStart, position);
        if (!this.#isDone()) this.#append(chunk, position, end, needed);
        return end;
      }
      const opcode = this.#firstByte & OPCODE_BITS;
      if (opcode >= OPCODE_CLOSE) {
        if (opcode !== OPCODE_PING || this.answerPings) {
          const payload = this.#controlPayload(chunk, position);
          if (opcode === OPCODE_CLOSE) {
            this.#forwardRun(chunk, runStart, position);
            return this.#closeReceived(payload, end);
          }
          const taken = this.#takeControl(opcode, payload);
          if (this.#isDone()) return end;
          if (taken) {
            this.#forwardRun(chunk, runStart, position);
            if (this.#isDone()) return end;
            runStart = position + needed;
          }
        }
        position += needed;
        continue;
      }
      // Before the accounts: the sink may stop the relay or tell it to discard from inside a call.
      const isLong = this.#payloadBytes > HOLD_LIMIT_BYTES;
      if (isLong) {
        this.#forwardRun(chunk, runStart, position);
        if (this.#isDone()) return end;
        runStart = position;
      }
      if (!this.#inMessage) this.#messageStart = this.bytes + position - runStart;
      if (!this.#enterDataFrame()) {
        this.#forwardRun(chunk, runStart, position);
        return this.#fail(end);
      }
      if (isLong) {
        this.#startLongFrame(chunk, position);
        return position + this.#headerBytes;
      }
      const swallowed = this.#toSwallow > 0;
      if (swallowed) {
        this.#forwardRun(chunk, runStart, position);
        if (this.#isDone()) return end;
      }
      this.#leaveDataFrame();
      position += needed;
      if (swallowed) {
        runStart = position;
      } else if (!this.#inMessage && this.messages <= this.#apart) {
        this.#forwardRun(chunk, runStart, position);
        runStart = position;
      }
      if (this.#isDone()) return end;
    }
    this.#forwardRun(chunk, runStart, position);
    return position;
  }

  /**
   * Reads and checks the header at `position`. Returns how many bytes from there make the next step
   * possible (2, a whole header, or a whole frame; of a long frame only its header), or BROKEN.
   */
  #readHeader(buffer: Buffer, position: number, end: number): number {
    const available = end - position;
    if (available < 2) return 2;
    const firstByte = buffer[position] ?? 0;
    const secondByte = buffer[position + 1] ?? 0;
    const opcode = firstByte & OPCODE_BITS;
    const shortLength = secondByte & LENGTH_BITS;
    const masked = (secondByte & MASK) !== 0;
    const isControl = opcode >= OPCODE_CLOSE;

    if (masked !== this.#masked) return this.#broken(masked ? MASKED : UNMASKED);
    if (isControl) {
      if (opcode > OPCODE_PONG) return this.#broken(RESERVED_OPCODE);
      if ((firstByte & FIN) === 0) return this.#broken(FRAGMENTED_CONTROL);
      if (shortLength > MAX_CONTROL_PAYLOAD) return this.#broken(LONG_CONTROL);
      if ((firstByte & RSV_BITS) !== 0) return this.#broken(RSV);
    } else {
      if (opcode > OPCODE_BINARY) return this.#broken(RESERVED_OPCODE);
      const rsv = firstByte & RSV_BITS;
      if (rsv !== 0 && (rsv !== RSV1 || !this.#deflate || opcode === OPCODE_CONTINUATION)) {
        return this.#broken(RSV);
      }
      if (this.#inMessage !== (opcode === OPCODE_CONTINUATION)) {
        return this.#broken(this.#inMessage ? START_INSIDE : CONTINUATION_WITHOUT_START);
      }
    }

    let headerBytes = masked ? 6 : 2;
    let payloadBytes = shortLength;
    if (shortLength === 126) {
      headerBytes += 2;
      if (available < headerBytes) return headerBytes;
      payloadBytes = ((buffer[position + 2] ?? 0) << 8) | (buffer[position + 3] ?? 0);
      if (payloadBytes < 126) return this.#broken(NOT_SHORTEST);
    } else if (shortLength === 127) {
      headerBytes += 8;
      if (available < headerBytes) return headerBytes;
      const high = buffer.readUInt32BE(position + 2);
      if (high >= 0x8000_0000) return this.#broken(TOP_BIT);
      payloadBytes = high * 0x1_0000_0000 + buffer.readUInt32BE(position + 6);
      if (payloadBytes < 0x1_0000) return this.#broken(NOT_SHORTEST);
      // Above 2^53 the number is no longer exact; no message of that size can ever be meant.
      if (high >= 0x20_0000) return this.#broken(TOO_BIG);
    } else if (available < headerBytes) {
      return headerBytes;
    }
    if (!isControl && this.#maxMessageBytes > 0) {
      const before = this.#inMessage ? this.#messageBytes : 0;
      if (before + payloadBytes > this.#maxMessageBytes) return this.#broken(TOO_BIG);
    }

    this.#firstByte = firstByte;
    this.#headerBytes = headerBytes;
    this.#payloadBytes = payloadBytes;
    return payloadBytes > HOLD_LIMIT_BYTES ? headerBytes : headerBytes + payloadBytes;
  }

  #broken(violation: Violation): number {
    this.#violation = violation;
    return BROKEN;
  }

  /** Accounts for the data frame just read; false: the limiter refuses its message. */
  #enterDataFrame(): boolean {
    if (!this.#inMessage) {
      if (this.#limiter !== null && !this.#limiter.take()) {
        this.#violation = RATE_LIMITED;
        return false;
      }
      this.#messageBytes = 0;
      if (this.#discarding && this.#toSwallow === 0) this.droppedMessages += 1;
    }
    this.#messageBytes += this.#payloadBytes;
    return true;
  }

  #leaveDataFrame(): void {
    const final = (this.#firstByte & FIN) !== 0;
    this.#inMessage = !final;
    if (!final) return;
    if (this.#toSwallow > 0) {
      this.#toSwallow -= 1;
      this.#sink.swallowed();
    } else if (!this.#discarding) {
      this.messages += 1;
    }
  }

  /** Whether a Ping or Pong goes no further. */
  #takeControl(opcode: number, payload: Buffer): boolean {
    if (opcode === OPCODE_PONG) return this.#sink.takePong(payload);
    this.#sink.takePing(payload);
    return true;
  }

  #forwardRun(chunk: Buffer, from: number, to: number): void {
    if (from === to || this.#discarding) return;
    this.bytes += to - from;
    const run = from === 0 && to === chunk.length ? chunk : chunk.subarray(from, to);
    this.#sink.forward(run, this.#slab);
  }

  #controlPayload(chunk: Buffer, position: number): Buffer {
    const start = position + this.#headerBytes;
    const payload = chunk.subarray(start, start + this.#payloadBytes);
    if (!this.#masked) return payload;
    // A copy: the frame itself may still be forwarded, masked as it came.
    const unmasked = Buffer.allocUnsafe(payload.length);
    for (let i = 0; i < payload.length; i += 1) {
      unmasked[i] = (payload[i] ?? 0) ^ (chunk[start - 4 + (i & 3)] ?? 0);
    }
    return unmasked;
  }

  #closeReceived(payload: Buffer, end: number): number {
    if (this.#isDone()) return end;
    const close = parseClosePayload(payload);
    if ("violation" in close) {
      this.#violation = { kind: "protocol", detail: close.violation };
      return this.#fail(end);
    }
    this.stop();
    this.#sink.closeReceived(close);
    return end;
  }

  #fail(end: number): number {
    if (this.#isDone()) return end;
    const violation = this.#violation ?? RESERVED_OPCODE;
    this.stop();
    this.#sink.violated(violation);
    return end;
  }

  /** The sink may call `stop` from inside any of its calls; nothing may come after that. */
  #isDone(): boolean {
    return this.#awaited === "done";
  }

  /** Adds bytes to the partial header or frame; once it is whole, scans it like a chunk of its own. */
  #fill(chunk: Buffer, start: number): number {
    let position = start;
    let held = this.#held ?? EMPTY;
    while (true) {
      const needed = this.#readHeader(held, 0, this.#heldBytes);
      if (needed === BROKEN) return this.#fail(chunk.length);
      if (needed <= this.#heldBytes) break;
      if (position === chunk.length) return position;
      const to = Math.min(chunk.length, position + needed - this.#heldBytes);
      held = this.#append(chunk, position, to, needed);
      position = to;
    }
    const whole = held.subarray(0, this.#heldBytes);
    this.#held = null;
    this.#heldBytes = 0;
    this.#scan(whole, 0);
    this.#releaseSlab();
    return position;
  }

  /**
   * Grows by doubling towards `needed`: memory follows what has arrived, not what was announced. What
   * has become large moves into a slab.
   */
  #append(chunk: Buffer, from: number, to: number, needed: number): Buffer {
    const size = this.#heldBytes + to - from;
    let held = this.#held;
    if (held === null || held.length < size) {
      const grown = this.#grow(size, needed);
      held?.copy(grown, 0, 0, this.#heldBytes);
      held = grown;
      this.#held = grown;
    }
    chunk.copy(held, this.#heldBytes, from, to);
    this.#heldBytes = size;
    return held;
  }

  #grow(size: number, needed: number): Buffer {
    // A sender of a long frame has proven that it sends: its next fragment needs no slow start.
    const wanted = Math.max(FIRST_HOLD_BYTES, 2 * size, this.#longOffset);
    const bytes = Math.max(size, Math.min(needed, wanted));
    if (bytes < SLAB_FROM_BYTES) return Buffer.allocUnsafeSlow(bytes);
    this.#slab = this.#slabs.take();
    return this.#slab.bytes;
  }

  #startLongFrame(chunk: Buffer, position: number): void {
    this.#awaited = "longFrame";
    this.#longRemaining = this.#payloadBytes;
    this.#longOffset = 0;
    this.#longFirstByte = this.#firstByte;
    if (this.#masked) {
      const keyStart = position + this.#headerBytes - 4;
      this.#longMaskKey = Buffer.from(chunk.subarray(keyStart, keyStart + 4));
    }
  }

  /** Takes the next piece of a long frame and forwards it as a fragment (RFC 6455 §5.4). */
  #fragment(chunk: Buffer, start: number): number {
    // What is held is filled up to a fragment; the rest of the chunk then goes out uncopied.
    const room =
      this.#heldBytes > 0 ? MIN_FRAGMENT_BYTES - this.#heldBytes : Number.POSITIVE_INFINITY;
    const to = Math.min(chunk.length, start + Math.min(this.#longRemaining, room));
    this.#longRemaining -= to - start;
    const last = this.#longRemaining === 0;
    let piece = chunk.subarray(start, to);
    if (this.#heldBytes > 0 || (piece.length < MIN_FRAGMENT_BYTES && !last)) {
      const gathered = this.#append(chunk, start, to, MIN_FRAGMENT_BYTES);
      if (this.#heldBytes < MIN_FRAGMENT_BYTES && !last) return to;
      piece = gathered.subarray(0, this.#heldBytes);
      this.#held = null;
      this.#heldBytes = 0;
    }
    const silent = this.#discarding || this.#toSwallow > 0;
    const header = silent ? null : this.#fragmentHeader(piece.length, last);
    // The state first, the sink last: it may stop the relay from inside the call.
    if (last) {
      this.#awaited = "frame";
      this.#longOffset = 0;
      this.#firstByte = this.#longFirstByte;
      this.#leaveDataFrame();
    } else {
      this.#longOffset += piece.length;
    }
    if (header !== null) {
      this.bytes += header.length + piece.length;
      this.#sink.forwardFragment(header, piece, this.#slab);
    }
    this.#releaseSlab();
    return to;
  }

  #fragmentHeader(length: number, last: boolean): Buffer {
    const lengthBytes = length < 126 ? 0 : length < 0x1_0000 ? 2 : 8;
    const header = Buffer.allocUnsafe(2 + lengthBytes + (this.#masked ? 4 : 0));
    const opening = this.#longOffset === 0 ? this.#longFirstByte & ~FIN : OPCODE_CONTINUATION;
    header[0] = last ? opening | (this.#longFirstByte & FIN) : opening;
    const maskBit = this.#masked ? MASK : 0;
    if (lengthBytes === 0) {
      header[1] = maskBit | length;
    } else if (lengthBytes === 2) {
      header[1] = maskBit | 126;
      header.writeUInt16BE(length, 2);
    } else {
      header[1] = maskBit | 127;
      header.writeUInt32BE(0, 2);
      header.writeUInt32BE(length, 6);
    }
    if (this.#masked) {
      // The payload stays masked as it came, so the key turns with the offset (RFC 6455 §5.3).
      for (let i = 0; i < 4; i += 1) {
        header[2 + lengthBytes + i] = this.#longMaskKey[(this.#longOffset + i) & 3] ?? 0;
      }
    }
    return header;
  }
}

const NO_KEY = Buffer.alloc(4);
const EMPTY = Buffer.alloc(0);

const protocol = (detail: string): Violation => ({ kind: "protocol", detail });
const MASKED = protocol("frame from an upstream is masked");
const UNMASKED = protocol("frame from a client is not masked");
const RESERVED_OPCODE = protocol("reserved opcode");
const FRAGMENTED_CONTROL = protocol("control frame without FIN");
const LONG_CONTROL = protocol("control frame longer than 125 bytes");
const RSV = protocol("RSV bit that was not negotiated");
const START_INSIDE = protocol("new message inside an unfinished one");
const CONTINUATION_WITHOUT_START = protocol("continuation frame without a start");
const NOT_SHORTEST = protocol("payload length not in its shortest form");
const TOP_BIT = protocol("payload length with the top bit set");
const TOO_BIG: Violation = {
  kind: "messageTooBig",
  detail: "message exceeds limits.maxMessageSize",
};
const RATE_LIMITED: Violation = {
  kind: "rateLimited",
  detail: "messages exceed limits.messageRate",
};
