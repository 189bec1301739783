/**
 * How much of what was written to a socket the kernel has taken. `writableLength` does not tell: what goes
 * out at once leaves it at once, with its last byte, and a peer that takes 1 kB/s needs two minutes for that.
 */
import type { Socket } from "node:net";

/** Grows with every byte that the kernel takes. Compare it with an earlier value; by itself it says nothing. */
export function takenBytes(socket: Socket): number {
  const { _handle: handle }: SocketWithHandle = socket;
  // Not there once the socket is closed. NaN: a Node that has other words for it.
  const taken = handle ? handle.bytesWritten - handle.writeQueueSize : Number.NaN;
  return Number.isNaN(taken) ? -socket.writableLength : taken;
}

/** What Node's own idle timer looks at (`Socket._onTimeout`), as there is no public word for it. */
interface SocketWithHandle extends Socket {
  readonly _handle?: {
    /** Handed to libuv. */
    readonly bytesWritten: number;
    /** Of that, what the kernel has not taken yet. */
    readonly writeQueueSize: number;
  } | null;
}
