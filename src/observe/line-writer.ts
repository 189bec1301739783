/**
 * Writes log lines to a file descriptor without ever stopping the event loop or the process: a reader
 * that hangs costs lines beyond a bound, and a broken pipe or a full disk costs lines, never sessions.
 */
import { write, writeSync } from "node:fs";

/** Lines that may wait for a slow reader; beyond it, new lines are dropped and counted. */
const DEFAULT_MAX_WAITING_CHARS = 4 * 1024 * 1024;
/** How long to wait for a non-blocking pipe that is full. */
const FULL_PIPE_PAUSE_MS = 20;

export interface LineWriterOptions {
  readonly maxWaitingChars?: number;
  /** Called when lines flow again after some were dropped. */
  readonly onDropped?: (lines: number) => void;
}

export class LineWriter {
  readonly #fd: number;
  readonly #maxWaitingChars: number;
  readonly #onDropped: (lines: number) => void;
  #waiting: string[] = [];
  #waitingChars = 0;
  #writing = false;
  #dropped = 0;
  #onWritten: (() => void)[] = [];

  constructor(fd: number, options: LineWriterOptions = {}) {
    this.#fd = fd;
    this.#maxWaitingChars = options.maxWaitingChars ?? DEFAULT_MAX_WAITING_CHARS;
    this.#onDropped = options.onDropped ?? (() => undefined);
  }

  write(line: string): void {
    if (this.#waitingChars + line.length > this.#maxWaitingChars) {
      this.#dropped++;
      return;
    }
    this.#waiting.push(line);
    this.#waitingChars += line.length;
    if (!this.#writing) this.#writeWaiting();
  }

  /** Calls back when every line so far is written, or lost. */
  flush(done: () => void): void {
    if (this.#writing) this.#onWritten.push(done);
    else done();
  }

  /** For the exit of the process: what waits is written now, or lost if it cannot be. */
  flushSync(): void {
    let rest = this.#takeWaiting();
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(this.#fd, rest));
    } catch {
      // Nobody is left to tell.
    }
  }

  #writeWaiting(): void {
    this.#writing = true;
    this.#writeChunk(this.#takeWaiting());
  }

  #writeChunk(chunk: Buffer): void {
    write(this.#fd, chunk, 0, chunk.length, null, (error, written) => {
      if (error?.code === "EAGAIN") {
        setTimeout(() => this.#writeChunk(chunk), FULL_PIPE_PAUSE_MS);
      } else if (error === null && written < chunk.length) {
        this.#writeChunk(chunk.subarray(written));
      } else {
        // Any other error: these lines are lost, the next ones try again.
        this.#chunkDone();
      }
    });
  }

  #chunkDone(): void {
    this.#writing = false;
    if (this.#dropped > 0) {
      const dropped = this.#dropped;
      this.#dropped = 0;
      this.#onDropped(dropped);
    }
    if (this.#writing) return;
    if (this.#waiting.length > 0) {
      this.#writeWaiting();
      return;
    }
    const written = this.#onWritten;
    this.#onWritten = [];
    for (const done of written) done();
  }

  #takeWaiting(): Buffer {
    const chunk = Buffer.from(this.#waiting.join(""));
    this.#waiting = [];
    this.#waitingChars = 0;
    return chunk;
  }
}
