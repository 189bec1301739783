/**
 * One leg: a WebSocket connection as the session sees it. Owns the socket's listeners, the only writer
 * to it, its back-pressure and its half of the closing handshake. What kind of socket lies underneath
 * (accepted, dialled, later TLS) is decided outside.
 *
 *          our Close                 peer's Close
 *   open ─────────────▶ closeSent ─────────────────▶ closed ── TCP ends ──▶ gone
 *    │                                                ▲
 *    └──────────────────▶ closeReceived ──────────────┘
 *        peer's Close                     our Close
 */
import type { Socket } from "node:net";
import type { Close, Side } from "../close/causes.ts";
import { makeCloseFrame } from "../wire/frame.ts";
import type { Slab } from "../wire/slab.ts";
import type { Clock } from "./clock.ts";
import { takenBytes } from "./taken-bytes.ts";

export type LegState = "open" | "closeSent" | "closeReceived" | "closed" | "gone";

/** What a leg tells its session. */
export interface LegOwner {
  /** Bytes from the peer. Returns the leg that still has to send some of the chunk; null: none. */
  legRead(leg: Leg, chunk: Buffer): Leg | null;
  /** More waits to be sent than should: stop feeding this leg until `legDrained`. */
  legBlocked(leg: Leg): void;
  legDrained(leg: Leg): void;
  /** The peer's side of TCP has ended or broken. */
  legEnded(leg: Leg, detail: string): void;
  /** The socket is closed and holds nothing any more. The last call. */
  legGone(leg: Leg): void;
}

/** Who needs a chunk after it was received. */
export interface ChunkHolder {
  pin(slab: Slab): void;
}

/** A socket that hands its bytes to whoever is set as receiver. */
export interface LegSocket {
  readonly socket: Socket;
  receiver: { received(chunk: Buffer): ChunkHolder | null } | null;
}

export class Leg {
  readonly side: Side;
  readonly #source: LegSocket;
  readonly #socket: Socket;
  #owner: LegOwner;
  readonly #highWaterMarkBytes: number;
  readonly #clock: Clock;
  #state: LegState = "open";
  /** Since when too much waits to be sent; null: it does not. */
  #blockedSince: number | null = null;
  #takenAtLook = 0;
  /** Sockets come paused: nothing may be read before somebody listens. */
  #paused = true;
  /** A few at most: what waits is bounded by the high-water mark and one chunk. */
  #pinned: readonly Slab[] = NONE;
  sentCode: number | null = null;
  receivedCode: number | null = null;
  /** At the last byte from the peer. */
  lastReadAt: number;

  constructor(
    side: Side,
    source: LegSocket,
    owner: LegOwner,
    highWaterMarkBytes: number,
    clock: Clock,
  ) {
    this.side = side;
    this.#source = source;
    this.#socket = source.socket;
    this.#owner = owner;
    this.#highWaterMarkBytes = highWaterMarkBytes;
    this.#clock = clock;
    this.lastReadAt = clock.now();
    const socket: AttachedSocket = source.socket;
    socket[kLeg] = this;
    socket.on("drain", socketOnDrain);
    socket.on("end", socketOnEnd);
    socket.on("error", socketOnError);
    socket.on("close", socketOnClose);
    source.receiver = this;
  }

  /** From here on somebody else is told. */
  handOver(owner: LegOwner): void {
    this.#owner = owner;
  }

  get state(): LegState {
    return this.#state;
  }

  /** Whether frames may still be written: no Close has gone out. */
  get writable(): boolean {
    return this.#state === "open" || this.#state === "closeReceived";
  }

  get blocked(): boolean {
    return this.#blockedSince !== null;
  }

  get paused(): boolean {
    return this.#paused;
  }

  /** Bytes that wait in user space for the peer to take them. */
  get waitingBytes(): number {
    return this.#socket.writableLength;
  }

  /** Grows whenever the kernel takes some of what waits. */
  get takenBytes(): number {
    return takenBytes(this.#socket);
  }

  /**
   * Since when the peer has taken nothing although something waits; null: nothing keeps it. Seen from
   * one look to the next, as the kernel says no more.
   */
  stalledSince(now: number): number | null {
    if (this.#blockedSince === null) return null;
    const taken = this.takenBytes;
    if (taken > this.#takenAtLook) this.#blockedSince = now;
    this.#takenAtLook = taken;
    return this.#blockedSince;
  }

  /** Bytes from the socket. */
  received(chunk: Buffer): Leg | null {
    this.lastReadAt = this.#clock.now();
    return this.#owner.legRead(this, chunk);
  }

  /** Writes whole frames. `slab`: where they lie, if they lie in one. */
  write(frames: Buffer, slab: Slab | null = null): void {
    if (!this.writable) return;
    this.#socket.write(frames);
    if (slab !== null && this.waitingBytes > 0) this.pin(slab);
    this.#blockIfFull();
  }

  /** Writes one frame whose header and payload lie apart. */
  writeInTwo(header: Buffer, payload: Buffer, slab: Slab | null): void {
    if (!this.writable) return;
    this.#socket.cork();
    this.#socket.write(header);
    this.#socket.write(payload);
    this.#socket.uncork();
    if (slab !== null && this.waitingBytes > 0) this.pin(slab);
    this.#blockIfFull();
  }

  /** Keeps the memory of chunks that wait to be sent, until none do. */
  pin(slab: Slab): void {
    if (this.#pinned.includes(slab)) return;
    slab.pin();
    this.#pinned = [...this.#pinned, slab];
  }

  /** Whether chunks' memory is kept. */
  get pins(): boolean {
    return this.#pinned.length > 0;
  }

  /** Gives the memory back if all is sent. 'drain' tells of it only above the high-water mark. */
  unpinIfSent(): void {
    if (this.#pinned.length > 0 && this.waitingBytes === 0) this.#unpin();
  }

  #unpin(): void {
    const pinned = this.#pinned;
    this.#pinned = NONE;
    for (const slab of pinned) slab.unpin();
  }

  /** Sends the leg's one and only Close; false: it has gone out before, or the socket is closed. */
  sendClose(close: Close): boolean {
    if (!this.writable || !this.#socket.writable) return false;
    this.#socket.write(makeCloseFrame(close, this.side === "upstream"));
    this.sentCode = close.code;
    this.#state = this.#state === "closeReceived" ? "closed" : "closeSent";
    this.#endIfClosed();
    return true;
  }

  /** The peer's Close has been read. */
  closeReceived(close: Close): void {
    this.receivedCode = close.code;
    if (this.#state === "open") this.#state = "closeReceived";
    else if (this.#state === "closeSent") this.#state = "closed";
    this.#endIfClosed();
  }

  /** RFC 6455 §7.1.7: the peer broke the protocol, so its Close cannot be read and is not waited for. */
  readNoMore(): void {
    if (this.#state === "closeSent") this.#state = "closed";
    this.#endIfClosed();
  }

  /** Reads nothing until `resume`. */
  pause(): void {
    if (this.#paused || this.#state === "gone") return;
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#paused || this.#state === "gone") return;
    this.#paused = false;
    this.#socket.resume();
  }

  /** Sends what waits, then closes without waiting for the peer. */
  destroySoon(): void {
    this.#socket.destroySoon();
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** RFC 6455 §7.1.1: the server closes TCP first; towards an upstream, the upstream is the server. */
  #endIfClosed(): void {
    if (this.#state === "closed" && this.side === "client") this.#socket.end();
  }

  #blockIfFull(): void {
    if (this.#blockedSince !== null) return;
    if (this.waitingBytes < this.#highWaterMarkBytes) return;
    this.#blockedSince = this.#clock.now();
    this.#takenAtLook = this.takenBytes;
    this.#owner.legBlocked(this);
  }

  /** For the listeners below. */
  onDrain(): void {
    this.unpinIfSent();
    if (this.#blockedSince === null) return;
    this.#blockedSince = null;
    this.#owner.legDrained(this);
  }

  onEnd(detail: string): void {
    this.#owner.legEnded(this, detail);
  }

  onClose(): void {
    this.#state = "gone";
    this.#unpin();
    this.#source.receiver = null;
    this.#owner.legGone(this);
  }
}

const NONE: readonly Slab[] = [];

const kLeg = Symbol("leg");

interface AttachedSocket extends Socket {
  [kLeg]?: Leg;
}

function socketOnDrain(this: AttachedSocket): void {
  this[kLeg]?.onDrain();
}

function socketOnEnd(this: AttachedSocket): void {
  this[kLeg]?.onEnd("connection ended without a Close");
}

function socketOnError(this: AttachedSocket, error: NodeJS.ErrnoException): void {
  this[kLeg]?.onEnd(error.code ?? error.message);
}

/** `close` is always the last event, after `error` and after `destroy()`. */
function socketOnClose(this: AttachedSocket): void {
  this[kLeg]?.onClose();
}
