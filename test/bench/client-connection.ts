/**
 * A WebSocket client on a raw socket, as light as Node allows: all connections read into one shared
 * buffer, frames are counted rather than decoded, and only what a check asks for is copied.
 */
import * as net from "node:net";
import {
  closePayload,
  EXPECTED_ACCEPT,
  headerBytesOf,
  headerValue,
  maskedFrame,
  OPCODE_CLOSE,
  OPCODE_PING,
  OPCODE_PONG,
  payloadLengthAt,
  upgradeRequest,
} from "./frames.ts";

export interface ClientHandlers {
  /** The 101 has arrived and its accept hash is right. */
  onOpen(connection: ClientConnection): void;
  /** `count` whole data messages ended in the chunk that was just read. */
  onMessages(connection: ClientConnection, count: number): void;
  /** The socket is gone; `error` says why when it was not by a closing handshake. */
  onEnd(connection: ClientConnection, error: Error | undefined): void;
}

/** What Node's own reads use; larger chunks bring nothing on loopback. */
const READ_BUFFER_BYTES = 65_536;

/** A response head is far below this; more means that the peer does not speak HTTP. */
const MAX_HEAD_BYTES = 16_384;

/** Longest wait for the peer to finish a closing handshake. */
const CLOSE_TIMEOUT_MS = 5_000;

const NORMAL_CLOSURE = 1000;
const NO_STATUS = 1005;

const sharedReadBuffer = Buffer.allocUnsafe(READ_BUFFER_BYTES);

type State = "awaitingHead" | "open" | "closing" | "ended";

export class ClientConnection {
  /** When the last frames were written; the load generator's latency clock. */
  sentAtMs = 0;
  /** Messages written and not yet echoed; kept by the load generator. */
  outstanding = 0;
  /** The code of the Close frame that the peer sent (1005 for an empty one). */
  closeCode: number | undefined;

  readonly #handlers: ClientHandlers;
  readonly #socket: net.Socket;
  #state: State = "awaitingHead";
  #head = "";
  /** A frame header or control frame that was cut by the end of a chunk. */
  #held: Buffer | undefined;
  #payloadLeftBytes = 0;
  #finalFragment = false;
  #captured: Buffer[] | undefined;
  #closeTimer: NodeJS.Timeout | undefined;
  #error: Error | undefined;

  constructor(port: number, path: string, handlers: ClientHandlers, host = "127.0.0.1") {
    this.#handlers = handlers;
    this.#socket = net.connect({
      host,
      port,
      noDelay: true,
      onread: {
        buffer: sharedReadBuffer,
        callback: (bytesRead, buffer) => {
          this.#onBytes(Buffer.from(buffer.buffer, buffer.byteOffset, bytesRead));
          return true;
        },
      },
    });
    this.#socket.on("error", (error) => {
      this.#error ??= error;
    });
    this.#socket.on("close", () => this.#onSocketClose());
    this.#socket.write(upgradeRequest(port, path));
  }

  write(frames: Buffer): void {
    this.#socket.write(frames);
  }

  /** From now on payload is kept, until `takeCaptured`. */
  capture(): void {
    this.#captured = [];
  }

  takeCaptured(): Buffer {
    const captured = Buffer.concat(this.#captured ?? []);
    this.#captured = undefined;
    return captured;
  }

  /** Starts the closing handshake; `onEnd` follows. */
  close(code = NORMAL_CLOSURE): void {
    if (this.#state !== "open") return;
    this.#startClosing();
    this.#socket.write(maskedFrame(OPCODE_CLOSE, closePayload(code)));
  }

  /** Ends TCP without a Close frame: by FIN, or by RST. */
  abandon(how: "fin" | "reset"): void {
    this.#state = "closing";
    if (how === "fin") this.#socket.destroy();
    else this.#socket.resetAndDestroy();
  }

  #startClosing(): void {
    this.#state = "closing";
    this.#closeTimer = setTimeout(
      () => this.#fail("the peer did not finish the closing handshake"),
      CLOSE_TIMEOUT_MS,
    );
  }

  #fail(message: string): void {
    this.#error ??= new Error(message);
    this.#socket.destroy();
  }

  #onSocketClose(): void {
    clearTimeout(this.#closeTimer);
    if (this.#state === "awaitingHead" || this.#state === "open") {
      this.#error ??= new Error(`connection ended while ${this.#state}`);
    }
    this.#state = "ended";
    this.#handlers.onEnd(this, this.#error);
  }

  #onBytes(chunk: Buffer): void {
    if (this.#state !== "awaitingHead") {
      this.#onFrames(chunk);
      return;
    }
    this.#head += chunk.toString("latin1");
    const end = this.#head.indexOf("\r\n\r\n");
    if (end < 0) {
      if (this.#head.length > MAX_HEAD_BYTES) this.#fail("response head too long");
      return;
    }
    const head = this.#head.slice(0, end);
    const rest = Buffer.from(this.#head.slice(end + 4), "latin1");
    this.#head = "";
    if (!head.startsWith("HTTP/1.1 101 ")) {
      this.#fail(`handshake answered with "${head.slice(0, head.indexOf("\r\n"))}"`);
      return;
    }
    if (headerValue(head, "Sec-WebSocket-Accept") !== EXPECTED_ACCEPT) {
      this.#fail("wrong Sec-WebSocket-Accept");
      return;
    }
    this.#state = "open";
    this.#handlers.onOpen(this);
    if (rest.length > 0) this.#onFrames(rest);
  }

  /** Counts the messages that end in `chunk`; headers may be cut anywhere. */
  #onFrames(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#held !== undefined) {
      bytes = Buffer.concat([this.#held, chunk]);
      this.#held = undefined;
    }
    let messages = 0;
    let at = 0;
    while (at < bytes.length) {
      if (this.#payloadLeftBytes > 0) {
        const taken = Math.min(this.#payloadLeftBytes, bytes.length - at);
        this.#captured?.push(Buffer.from(bytes.subarray(at, at + taken)));
        at += taken;
        this.#payloadLeftBytes -= taken;
        if (this.#payloadLeftBytes === 0 && this.#finalFragment) messages++;
        continue;
      }
      const available = bytes.length - at;
      const headerBytes = available < 2 ? 2 : headerBytesOf(bytes[at + 1] ?? 0);
      if (available < headerBytes) {
        this.#held = Buffer.from(bytes.subarray(at));
        break;
      }
      const firstByte = bytes[at] ?? 0;
      const payloadBytes = payloadLengthAt(bytes, at);
      if ((firstByte & 0x08) === 0) {
        at += headerBytes;
        this.#payloadLeftBytes = payloadBytes;
        this.#finalFragment = firstByte >= 0x80;
        if (payloadBytes === 0 && this.#finalFragment) messages++;
        continue;
      }
      const frameBytes = headerBytes + payloadBytes;
      if (available < frameBytes) {
        this.#held = Buffer.from(bytes.subarray(at));
        break;
      }
      this.#onControl(firstByte & 0x0f, bytes.subarray(at + headerBytes, at + frameBytes));
      at += frameBytes;
    }
    if (messages > 0) this.#handlers.onMessages(this, messages);
  }

  #onControl(opcode: number, payload: Buffer): void {
    if (opcode === OPCODE_PING) {
      this.#socket.write(maskedFrame(OPCODE_PONG, payload));
      return;
    }
    if (opcode !== OPCODE_CLOSE) return;
    if (this.closeCode !== undefined) {
      this.#fail("a second Close frame");
      return;
    }
    this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : NO_STATUS;
    // RFC 6455 §7.1.1: the server ends TCP first, so this side only echoes and waits.
    if (this.#state === "open") {
      this.#startClosing();
      this.#socket.write(maskedFrame(OPCODE_CLOSE, payload.subarray(0, 2)));
    }
  }
}
