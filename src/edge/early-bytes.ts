/**
 * The client between its request and its 101: keeps what it sends early, within a bound, and notices
 * when it leaves.
 */
import type { ClientSocket } from "./client-socket.ts";

/** What a client may send ahead of its 101. Beyond it the socket is paused, and nothing is lost. */
export const MAX_EARLY_BYTES = 64 * 1024;

export class EarlyBytes {
  readonly #client: ClientSocket;
  readonly #onLeft: () => void;
  #chunks: Buffer[];
  #size: number;

  /** `head`: what came behind the request's head. `onLeft` is called at most once. */
  constructor(client: ClientSocket, head: Buffer, onLeft: () => void) {
    this.#client = client;
    this.#onLeft = onLeft;
    this.#chunks = head.length > 0 ? [head] : [];
    this.#size = head.length;
    const { socket } = client;
    client.receiver = this;
    socket.on("end", this.#left);
    socket.on("close", this.#left);
    if (this.#size >= MAX_EARLY_BYTES) socket.pause();
  }

  received(chunk: Buffer): null {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    if (this.#size >= MAX_EARLY_BYTES) this.#client.socket.pause();
    // Accepted sockets read into memory of their own: there is nothing to give back.
    return null;
  }

  /** Stops watching; the socket is paused and its bytes so far are the caller's. */
  take(): Buffer {
    const { socket } = this.#client;
    socket.pause();
    socket.removeListener("end", this.#left);
    socket.removeListener("close", this.#left);
    this.#client.receiver = null;
    const bytes = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
    this.#chunks = [];
    return bytes ?? EMPTY;
  }

  readonly #left = (): void => {
    this.take();
    this.#onLeft();
  };
}

const EMPTY = Buffer.alloc(0);
