/**
 * Reads the rest of an answer that was not a 101, so that `refuse: http` can show the backend's own
 * status and body. The body's framing (length, chunked, until close) is left to Node's HTTP parser: it
 * gets the bytes through a stream that replays what has been read already.
 */
import { request as httpRequest, type IncomingMessage } from "node:http";
import { Duplex } from "node:stream";
import type { ResponseHead } from "../wire/response-head.ts";
import { type Holder, KEEP, type Receiver, type UpstreamSocket } from "./upstream-socket.ts";

export interface Rejection {
  readonly status: number;
  readonly headers: ResponseHead["headers"];
  /** Decoded from chunks, at most MAX_BODY_BYTES; empty where it was not asked for. */
  readonly body: Buffer;
}

/** An error page is small; more is cut off. */
export const MAX_BODY_BYTES = 64 * 1024;

/**
 * Calls back once, with what has come of the body by its end, its break or its limit, or by the time
 * that the returned function is called.
 */
export function readRejection(
  upstream: UpstreamSocket,
  head: ResponseHead,
  bytes: Buffer,
  done: (rejection: Rejection) => void,
): () => void {
  const replay = new Replay();
  const chunks: Buffer[] = [];
  let size = 0;
  let ended = false;
  const finish = (): void => {
    if (ended) return;
    ended = true;
    replay.destroy();
    const body = Buffer.concat(chunks).subarray(0, MAX_BODY_BYTES);
    done({ status: head.status, headers: head.headers, body });
  };
  const request = httpRequest({ createConnection: () => replay });
  request.on("error", finish);
  request.on("response", (response: IncomingMessage) => {
    response.on("data", (chunk: Buffer) => {
      chunks.push(chunk);
      size += chunk.length;
      if (size >= MAX_BODY_BYTES) finish();
    });
    response.on("end", finish);
    response.on("error", finish);
    response.on("close", finish);
  });
  request.end();
  upstream.socket.on("end", () => replay.push(null));
  upstream.receiver = replay;
  replay.received(bytes);
  return finish;
}

/** Readable side: the backend's bytes. Writable side: nowhere, as the request has been sent before. */
class Replay extends Duplex implements Receiver {
  received(chunk: Buffer): Holder {
    if (!this.destroyed) this.push(chunk);
    return KEEP;
  }

  override _read(): void {
    // Pushed as it comes: the body's limit ends the reading long before memory matters.
  }

  override _write(_chunk: Buffer, _encoding: BufferEncoding, callback: () => void): void {
    callback();
  }
}
