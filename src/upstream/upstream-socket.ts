/**
 * A TCP connection to a backend that reads through buffers shared by all of them. A libuv read
 * otherwise allocates 64 KiB for every chunk, and that garbage costs more than relaying does.
 */
import { connect, type Socket } from "node:net";

/**
 * Takes what a socket reads. Returns whether it still needs the chunk afterwards (or has handed it to
 * somebody who does): if not, the next read goes into the same memory.
 */
export interface Receiver {
  received(chunk: Buffer): boolean;
}

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
  /** Where chunks lie while their receivers have them; replaced when no room is left in it. */
  #slab = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
  /** Everything before this belongs to receivers that have kept it. */
  #keptBytes = 0;

  /**
   * Hands the first `bytes` of `incoming` to the receiver. The copy is what makes the zero-allocation
   * case safe: whether the kernel takes a write at once is known only after the write.
   */
  deliver(bytes: number, receiver: Receiver): void {
    if (bytes > READ_BUFFER_BYTES - this.#keptBytes) {
      this.#slab = Buffer.allocUnsafeSlow(READ_BUFFER_BYTES);
      this.#keptBytes = 0;
    }
    const start = this.#keptBytes;
    this.#slab.set(
      bytes === READ_BUFFER_BYTES ? this.incoming : this.incoming.subarray(0, bytes),
      start,
    );
    // Kept chunks lie side by side: one of a few bytes must not hold the memory of thousands.
    if (receiver.received(this.#slab.subarray(start, start + bytes))) this.#keptBytes += bytes;
  }
}

export class UpstreamSocket {
  readonly socket: Socket;
  /** Set before the first byte can come, and again when the leg takes over from the dial. */
  receiver: Receiver | null = null;

  constructor(host: string, port: number, buffers: ReadBuffers) {
    const options = {
      host,
      port,
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
    this.socket = connect(options);
  }
}
