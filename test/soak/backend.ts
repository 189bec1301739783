/**
 * The backend of the soak: a process of its own whose behaviour is chosen by the request path. It
 * echoes, closes at once, closes after the first message, or resets after the first message.
 */
import * as net from "node:net";
import {
  acceptFor,
  closePayload,
  headerBytesOf,
  headerValue,
  OPCODE_CLOSE,
  OPCODE_PING,
  OPCODE_PONG,
  payloadLengthAt,
  unmaskedFrame,
} from "../bench/frames.ts";
import { serve } from "../bench/proxies/serve.ts";
import { BACKEND_CLOSE_CODE, PATHS } from "./cycles.ts";

const MASK_BYTES = 4;

class BackendConnection {
  readonly #socket: net.Socket;
  #path = "";
  #pending: Buffer = Buffer.alloc(0);
  #closeSent = false;

  constructor(socket: net.Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    // Ends of every kind are what the soak is about.
    socket.on("error", () => socket.destroy());
  }

  #onData(chunk: Buffer): void {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    if (this.#path === "" && !this.#handshake()) return;
    while (!this.#socket.destroyed && this.#takeFrame());
  }

  #handshake(): boolean {
    const end = this.#pending.indexOf("\r\n\r\n");
    if (end < 0) return false;
    const head = this.#pending.toString("latin1", 0, end);
    this.#pending = this.#pending.subarray(end + 4);
    this.#path = head.split(" ", 2)[1] ?? "/";
    this.#socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
        `Sec-WebSocket-Accept: ${acceptFor(headerValue(head, "Sec-WebSocket-Key"))}\r\n\r\n`,
    );
    if (this.#path === PATHS.closeAtOnce) this.#close(closePayload(BACKEND_CLOSE_CODE));
    return true;
  }

  #takeFrame(): boolean {
    const bytes = this.#pending;
    if (bytes.length < 2) return false;
    const maskAt = headerBytesOf(bytes[1] ?? 0);
    if (bytes.length < maskAt + MASK_BYTES) return false;
    const payloadAt = maskAt + MASK_BYTES;
    const end = payloadAt + payloadLengthAt(bytes, 0);
    if (bytes.length < end) return false;
    this.#pending = bytes.subarray(end);
    const payload = Buffer.from(bytes.subarray(payloadAt, end));
    for (let i = 0; i < payload.length; i++) {
      payload[i] = (payload[i] ?? 0) ^ (bytes[maskAt + (i & 3)] ?? 0);
    }
    this.#onFrame((bytes[0] ?? 0) & 0x0f, payload);
    return true;
  }

  #onFrame(opcode: number, payload: Buffer): void {
    if (opcode === OPCODE_PONG) return;
    if (opcode === OPCODE_PING) {
      this.#socket.write(unmaskedFrame(OPCODE_PONG, payload));
      return;
    }
    if (opcode === OPCODE_CLOSE) {
      if (!this.#closeSent) this.#close(payload.subarray(0, 2));
      this.#socket.end();
      return;
    }
    if (this.#path === PATHS.resetAfterMessage) this.#socket.resetAndDestroy();
    else if (this.#path === PATHS.closeAfterMessage) this.#close(closePayload(BACKEND_CLOSE_CODE));
    else this.#socket.write(unmaskedFrame(opcode, payload));
  }

  #close(payload: Buffer): void {
    this.#closeSent = true;
    this.#socket.write(unmaskedFrame(OPCODE_CLOSE, payload));
  }
}

serve(net.createServer({ noDelay: true }, (socket) => void new BackendConnection(socket)));
