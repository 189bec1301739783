/**
 * The echo server behind every proxy: hand-written over `net`, so that it costs less than what is
 * measured. All frames of a chunk are answered in one write.
 */
import * as net from "node:net";
import {
  acceptFor,
  headerBytesOf,
  headerValue,
  OPCODE_CLOSE,
  OPCODE_PING,
  OPCODE_PONG,
  payloadLengthAt,
  unmaskedFrame,
  writeHeader,
} from "./frames.ts";
import { serve } from "./proxies/serve.ts";

const MASK_BYTES = 4;

class EchoConnection {
  readonly #socket: net.Socket;
  #open = false;
  #pending: Buffer | undefined;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    // A client that vanishes is part of the load.
    socket.on("error", () => socket.destroy());
  }

  #onData(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#pending !== undefined) {
      bytes = Buffer.concat([this.#pending, chunk]);
      this.#pending = undefined;
    }
    if (!this.#open) {
      const end = bytes.indexOf("\r\n\r\n");
      if (end < 0) {
        this.#pending = bytes;
        return;
      }
      this.#handshake(bytes.toString("latin1", 0, end));
      bytes = bytes.subarray(end + 4);
    }
    const { wholeBytes, replyBytes } = measure(bytes);
    if (wholeBytes < bytes.length) this.#pending = bytes.subarray(wholeBytes);
    if (replyBytes > 0) this.#reply(bytes.subarray(0, wholeBytes), replyBytes);
  }

  #handshake(head: string): void {
    const key = headerValue(head, "Sec-WebSocket-Key");
    if (key === "") {
      this.#socket.end("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n");
      return;
    }
    this.#open = true;
    this.#socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${acceptFor(key)}\r\n\r\n`,
    );
  }

  #reply(frames: Buffer, replyBytes: number): void {
    const reply = Buffer.allocUnsafe(replyBytes);
    let read = 0;
    let written = 0;
    while (read < frames.length) {
      const firstByte = frames[read] ?? 0;
      const opcode = firstByte & 0x0f;
      const payloadBytes = payloadLengthAt(frames, read);
      const maskAt = read + headerBytesOf(frames[read + 1] ?? 0);
      const payloadAt = maskAt + MASK_BYTES;
      read = payloadAt + payloadBytes;
      if (opcode === OPCODE_PONG) continue;
      if (opcode === OPCODE_CLOSE) {
        const code = Buffer.alloc(Math.min(2, payloadBytes));
        unmask(frames, maskAt, payloadAt, code, 0, code.length);
        this.#socket.end(
          Buffer.concat([reply.subarray(0, written), unmaskedFrame(OPCODE_CLOSE, code)]),
        );
        return;
      }
      const replyFirstByte = opcode === OPCODE_PING ? 0x80 | OPCODE_PONG : firstByte;
      written += writeHeader(reply, written, replyFirstByte, payloadBytes);
      unmask(frames, maskAt, payloadAt, reply, written, payloadBytes);
      written += payloadBytes;
    }
    this.#socket.write(reply.subarray(0, written));
  }
}

/** How many bytes at the front are whole frames, and room for their replies. */
function measure(bytes: Buffer): { wholeBytes: number; replyBytes: number } {
  let at = 0;
  let replyBytes = 0;
  while (bytes.length - at >= 2) {
    const headerBytes = headerBytesOf(bytes[at + 1] ?? 0);
    if (bytes.length - at < headerBytes + MASK_BYTES) break;
    const payloadBytes = payloadLengthAt(bytes, at);
    const frameEnd = at + headerBytes + MASK_BYTES + payloadBytes;
    if (frameEnd > bytes.length) break;
    replyBytes += headerBytes + payloadBytes;
    at = frameEnd;
  }
  return { wholeBytes: at, replyBytes };
}

/** From this size on, word-wise unmasking saves more than its set-up costs. */
const WORDWISE_FROM_BYTES = 512;

function unmask(
  from: Buffer,
  maskAt: number,
  payloadAt: number,
  to: Buffer,
  toAt: number,
  length: number,
): void {
  let done = 0;
  if (length >= WORDWISE_FROM_BYTES && ((to.byteOffset + toAt) & 3) === 0) {
    from.copy(to, toAt, payloadAt, payloadAt + length);
    const words = new Int32Array(to.buffer, to.byteOffset + toAt, length >> 2);
    const key = from.readInt32LE(maskAt);
    for (let i = 0; i < words.length; i++) words[i] = (words[i] ?? 0) ^ key;
    done = words.length * 4;
  }
  for (let i = done; i < length; i++) {
    to[toAt + i] = (from[payloadAt + i] ?? 0) ^ (from[maskAt + (i & 3)] ?? 0);
  }
}

serve(net.createServer({ noDelay: true }, (socket) => void new EchoConnection(socket)));
