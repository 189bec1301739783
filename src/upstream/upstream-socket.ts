/**
 * A TCP connection to a backend that reads through buffers shared by all of them. A libuv read
 * otherwise allocates 64 KiB for every chunk, and that garbage costs more than relaying does.
 */
import { type OnReadOpts, Socket, type SocketConstructorOpts } from "node:net";
import type { Slab, SlabPool } from "../wire/slab.ts";

/** Takes what a socket reads, and says who needs the chunk afterwards; null: nobody. */
export interface Receiver {
  received(chunk: Buffer): Holder | null;
}

/** Somebody who needs chunks of a slab until further notice. */
export interface Holder {
  /** The holder must call `slab.unpin()` once when it needs none of its chunks any more. */
  pin(slab: Slab): void;
}

/** Keeps chunks for good: their slab is left to the garbage collector. */
export const KEEP: Holder = {
  pin: (slab) => {
    slab.pin();
  },
};

/** As much as libuv asks of the kernel at once. */
const READ_BUFFER_BYTES = 64 * 1024;

/**
 * A leg counts as blocked when this much waits in user space; also the sockets' high-water mark, so
 * that `drain` follows.
 */
export const HIGH_WATER_MARK_BYTES = 64 * 1024;

/** One per gateway: reads are synchronous and never overlap, so one set serves every socket. */
export class ReadBuffers {
  /** What libuv reads into. It cannot be given away: every socket is bound to it. */
  readonly incoming = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  readonly #pool: SlabPool;
  /** Where a chunk lies while its receiver has it. */
  #slab: Slab;
  /** Everything before this may still be needed by a holder. */
  #keptBytes = 0;

  constructor(pool: SlabPool) {
    this.#pool = pool;
    this.#slab = pool.take();
  }

  /**
   * Hands the first `bytes` of `incoming` to the receiver. The copy is what makes the zero-allocation
   * case safe: whether the kernel takes a write at once is known only after the write.
   */
  deliver(bytes: number, receiver: Receiver): void {
    if (this.#slab.isOnlyMine) this.#keptBytes = 0;
    if (bytes > READ_BUFFER_BYTES - this.#keptBytes) {
      this.#slab.unpin();
      this.#slab = this.#pool.take();
      this.#keptBytes = 0;
    }
    const slab = this.#slab;
    const start = this.#keptBytes;
    const chunk = slab.bytes.subarray(start, start + bytes);
    chunk.set(bytes === READ_BUFFER_BYTES ? this.incoming : this.incoming.subarray(0, bytes));
    const holder = receiver.received(chunk);
    if (holder === null) return;
    // Kept chunks lie side by side: one of a few bytes must not hold the memory of thousands.
    this.#keptBytes += bytes;
    holder.pin(slab);
  }
}

export class UpstreamSocket {
  readonly socket: Socket;
  /** Set before the first byte can come, and again when the leg takes over from the dial. */
  receiver: Receiver | null = null;

  constructor(host: string, port: number, buffers: ReadBuffers) {
    const options: TcpOptions = {
      noDelay: true,
      highWaterMark: HIGH_WATER_MARK_BYTES,
      onread: {
        buffer: buffers.incoming,
        callback: (bytes: number): boolean => {
          if (this.receiver !== null) buffers.deliver(bytes, this.receiver);
          return true;
        },
      },
    };
    this.socket = new TcpSocket(options);
    this.socket.connect({ host, port });
  }
}

/** What the constructor of a socket also takes, though its types say so of `connect` only. */
interface TcpOptions extends SocketConstructorOpts {
  readonly noDelay: boolean;
  readonly highWaterMark: number;
  readonly onread: OnReadOpts;
}

type WriteDone = (error?: Error | null) => void;

/**
 * Reads on when a write fails because the backend is gone: what it sent before, its Close among it, may
 * still lie in the kernel, and Node would throw it away with the socket. Reading then ends by itself.
 */
class TcpSocket extends Socket {
  #done: WriteDone | null = null;
  #forgiving: WriteDone = () => undefined;

  override _write(chunk: unknown, encoding: BufferEncoding, done: WriteDone): void {
    // oxlint-disable-next-line no-underscore-dangle -- the name that streams are extended by
    super._write(chunk, encoding, this.#forgive(done));
  }

  override _writev(chunks: { chunk: unknown; encoding: BufferEncoding }[], done: WriteDone): void {
    // oxlint-disable-next-line no-underscore-dangle -- the name that streams are extended by
    super._writev?.(chunks, this.#forgive(done));
  }

  /** A stream has one callback for all its writes: one wrapper serves them all. */
  #forgive(done: WriteDone): WriteDone {
    if (done !== this.#done) {
      this.#done = done;
      this.#forgiving = (error) => done(isGone(error) ? null : error);
    }
    return this.#forgiving;
  }
}

function isGone(error: NodeJS.ErrnoException | null | undefined): boolean {
  return error?.code === "EPIPE" || error?.code === "ECONNRESET";
}
