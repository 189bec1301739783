/** A relay with a sink that checks each of its calls, and the other parser that judges the output. */
import { createHash } from "node:crypto";
import { type PerMessageDeflate, Receiver } from "ws";
import type { Close } from "../../../src/close/causes.ts";
import {
  type Direction,
  FrameRelay,
  HOLD_LIMIT_BYTES,
  type RelayOptions,
  type RelaySink,
  type Violation,
} from "../../../src/wire/relay.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { type ReadFrame, readFrames } from "../../support/frames.ts";

/** Two bytes, a 64-bit length and a mask key. */
const LONGEST_HEADER = 14;

/** What a relay may be asked to do; a plain relay of the given direction unless told otherwise. */
export function relayOptions(
  direction: Direction,
  options: Partial<RelayOptions> = {},
): RelayOptions {
  const slabs = new SlabPool();
  return { direction, deflate: false, maxMessageBytes: 0, limiter: null, slabs, ...options };
}

/** Records what a relay does. A call that is torn, empty or after the end throws at once. */
export class CheckedRelay implements RelaySink {
  readonly relay: FrameRelay;
  /** What was forwarded, call by call. */
  readonly calls: Buffer[] = [];
  readonly frames: ReadFrame[] = [];
  /** The same, call by call, and what the relay said was unfinished during the call. */
  readonly framesOfCalls: ReadFrame[][] = [];
  readonly unfinished: number[] = [];
  swallows = 0;
  /** Every Ping payload that the gateway is to answer, in hexadecimal. */
  readonly pings: string[] = [];
  /** Every Pong payload that was shown to the sink, in hexadecimal. */
  readonly pongs: string[] = [];
  /** Pongs with this payload are the gateway's own. */
  ownPong: string | null = null;
  close: Close | null = null;
  violation: Violation | null = null;
  /** Runs inside each forwarding call. */
  onForward: () => void = () => {};

  constructor(options: RelayOptions) {
    this.relay = new FrameRelay(options, this);
  }

  get output(): Buffer {
    return Buffer.concat(this.calls);
  }

  push(...chunks: readonly Uint8Array[]): this {
    for (const chunk of chunks) {
      // A copy: the chunk belongs to the relay.
      this.relay.push(Buffer.from(chunk));
      this.#checkHeld();
    }
    return this;
  }

  forward(frames: Buffer): void {
    this.#take(frames);
  }

  forwardFragment(header: Buffer, payload: Buffer): void {
    if (this.#take(Buffer.concat([header, payload])) !== 1) {
      throw new Error("a fragment is not exactly one frame");
    }
  }

  takePing(payload: Buffer): void {
    this.#checkOpen("takePing");
    this.pings.push(payload.toString("hex"));
  }

  takePong(payload: Buffer): boolean {
    this.#checkOpen("takePong");
    this.pongs.push(payload.toString("hex"));
    return payload.toString("utf8") === this.ownPong;
  }

  swallowed(): void {
    this.#checkOpen("swallowed");
    this.swallows += 1;
  }

  closeReceived(close: Close): void {
    this.#checkOpen("closeReceived");
    this.close = close;
  }

  violated(violation: Violation): void {
    this.#checkOpen("violated");
    this.violation = violation;
  }

  #take(bytes: Buffer): number {
    this.#checkOpen("forward");
    this.#checkHeld();
    // A copy: later writes of the relay into bytes that it gave away must not go unnoticed.
    this.calls.push(Buffer.from(bytes));
    const frames = readFrames(Buffer.from(bytes));
    if (frames.length === 0) throw new Error("nothing was forwarded");
    this.frames.push(...frames);
    this.framesOfCalls.push(frames);
    this.unfinished.push(this.relay.unfinishedBytes);
    this.onForward();
    return frames.length;
  }

  #checkOpen(call: string): void {
    if (this.close !== null || this.violation !== null) throw new Error(`${call} after the end`);
  }

  #checkHeld(): void {
    if (this.relay.heldBytes >= HOLD_LIMIT_BYTES + LONGEST_HEADER) {
      throw new Error(`${this.relay.heldBytes} bytes are held`);
    }
  }
}

/** Cuts `bytes` into pieces of the given sizes, used in turn. */
export function cut(bytes: Buffer, sizes: readonly number[]): Buffer[] {
  const chunks: Buffer[] = [];
  let turn = 0;
  for (let at = 0; at < bytes.length; ) {
    const size = Math.max(1, sizes[turn % sizes.length] ?? bytes.length);
    chunks.push(bytes.subarray(at, at + size));
    at += size;
    turn += 1;
  }
  return chunks;
}

/** A payload in a form that is cheap to compare and short to print. */
export function digest(payload: Uint8Array): string {
  if (payload.length <= 16) return Buffer.from(payload).toString("hex");
  return `${payload.length} bytes, ${createHash("sha1").update(payload).digest("hex")}`;
}

/** What `ws` reads from `bytes`: its messages, pings, pongs and Close in order, and its error at last. */
export async function readWithWs(
  bytes: Buffer,
  direction: Direction,
  deflate: PerMessageDeflate | null = null,
  maxPayload = 0,
): Promise<string[]> {
  const seen: string[] = [];
  const receiver = new Receiver({
    isServer: direction === "clientToUpstream",
    extensions: deflate === null ? {} : { "permessage-deflate": deflate },
    maxPayload,
    maxFragments: 0,
    maxBufferedChunks: 0,
    skipUTF8Validation: true,
  });
  receiver.on("message", (data: Buffer, isBinary: boolean) => {
    seen.push(`${isBinary ? "binary" : "text"} ${digest(data)}`);
  });
  receiver.on("ping", (data: Buffer) => seen.push(`ping ${digest(data)}`));
  receiver.on("pong", (data: Buffer) => seen.push(`pong ${digest(data)}`));
  receiver.on("conclude", (code: number, reason: Buffer) => {
    seen.push(`close ${code} ${digest(reason)}`);
  });
  // The callback comes with the same error, and earlier.
  receiver.on("error", () => undefined);
  // A copy: the parser unmasks in place.
  await new Promise<void>((resolve) => {
    receiver.write(Buffer.from(bytes), (error) => {
      if (error) seen.push(`error: ${error.message}`);
      resolve();
    });
  });
  return seen;
}
