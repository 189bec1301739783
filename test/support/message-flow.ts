/**
 * Gigabytes of messages through a bare socket, cheaply: every message has its number and a pattern in
 * its payload, is sent by back-pressure, and is checked on arrival, byte for byte, however it was
 * fragmented. Client messages are masked with a zero key, so that payload bytes look the same
 * everywhere.
 */
import type { Socket } from "node:net";

/** Every payload byte at offset `o` of message `n` is PATTERN[(o + n) % PERIOD]. */
export const PERIOD = 251;
const PATTERN = Buffer.alloc(
  PERIOD * 1024,
  Buffer.from(Array.from({ length: PERIOD }, (_, i) => i)),
);
const PIECE = PATTERN.length - PERIOD;
const FIN_BINARY = 0x82;

export interface FlowOptions {
  readonly messages: number;
  readonly payloadBytes: number;
  readonly masked: boolean;
}

/** Writes all messages, waiting for `drain` whenever the socket is full. Resolves when all is written. */
export async function sendFlow(socket: Socket, options: FlowOptions): Promise<void> {
  const { messages, payloadBytes, masked } = options;
  for (let number = 0; number < messages; number += 1) {
    await write(socket, header(payloadBytes, masked));
    for (let offset = 0; offset < payloadBytes; ) {
      const start = (offset + number) % PERIOD;
      const piece = PATTERN.subarray(start, start + Math.min(PIECE, payloadBytes - offset));
      offset += piece.length;
      await write(socket, piece);
    }
  }
}

/** Messages per write where they are small: one system call a message would be what is measured. */
export async function sendSmallFlow(socket: Socket, options: FlowOptions): Promise<void> {
  const { messages, payloadBytes, masked } = options;
  const head = header(payloadBytes, masked);
  for (let number = 0; number < messages; ) {
    const parts: Buffer[] = [];
    for (let i = 0; i < 512 && number < messages; i += 1) {
      const start = number % PERIOD;
      parts.push(head, PATTERN.subarray(start, start + payloadBytes));
      number += 1;
    }
    await write(socket, Buffer.concat(parts));
  }
}

async function write(socket: Socket, bytes: Buffer): Promise<void> {
  if (socket.write(bytes)) return;
  await new Promise<void>((resolve, reject) => {
    const done = (): void => {
      socket.off("drain", done);
      socket.off("close", closed);
      resolve();
    };
    const closed = (): void => reject(new Error("closed while sending"));
    socket.once("drain", done);
    socket.once("close", closed);
  });
}

function header(length: number, masked: boolean): Buffer {
  const lengthBytes = length < 126 ? 0 : length < 0x1_0000 ? 2 : 8;
  const bytes = Buffer.alloc(2 + lengthBytes + (masked ? 4 : 0));
  bytes[0] = FIN_BINARY;
  bytes[1] = (masked ? 128 : 0) + (lengthBytes === 0 ? length : lengthBytes === 2 ? 126 : 127);
  if (lengthBytes === 2) bytes.writeUInt16BE(length, 2);
  else if (lengthBytes === 8) bytes.writeBigUInt64BE(BigInt(length), 2);
  return bytes;
}

/** Checks what arrives. Throws from `add` at the first byte that is not the expected one. */
export class FlowCheck {
  /** Whole messages so far. */
  messages = 0;
  payloadBytes = 0;
  #offset = 0;
  #head: Buffer = Buffer.alloc(0);
  #remaining = 0;
  #fin = false;
  readonly #size: number;

  constructor({ payloadBytes }: Pick<FlowOptions, "payloadBytes">) {
    this.#size = payloadBytes;
  }

  add(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#remaining === 0) {
        // Byte by byte only while a header is torn between two chunks.
        const torn = this.#head.length > 0;
        const bytes = torn ? Buffer.concat([this.#head, chunk.subarray(at)]) : chunk.subarray(at);
        const length = this.#readHeader(bytes);
        if (length === 0) {
          this.#head = Buffer.from(bytes);
          return;
        }
        at += length - (torn ? this.#head.length : 0);
        this.#head = Buffer.alloc(0);
      }
      const piece = chunk.subarray(at, at + this.#remaining);
      this.#check(piece);
      at += piece.length;
    }
  }

  /** Returns the header's length; 0: it is not whole. */
  #readHeader(bytes: Buffer): number {
    if (bytes.length < 2) return 0;
    const short = (bytes[1] ?? 0) % 128;
    const masked = (bytes[1] ?? 0) >= 128;
    const lengthBytes = short < 126 ? 0 : short === 126 ? 2 : 8;
    const size = 2 + lengthBytes + (masked ? 4 : 0);
    if (bytes.length < size) return 0;
    const opcode = (bytes[0] ?? 0) % 16;
    const expected = this.#offset === 0 ? 2 : 0;
    if (opcode !== expected) throw new Error(`opcode ${opcode} in message ${this.messages}`);
    if (masked && bytes.readUInt32BE(size - 4) !== 0) throw new Error("the mask key has changed");
    this.#fin = (bytes[0] ?? 0) >= 128;
    this.#remaining =
      lengthBytes === 0
        ? short
        : lengthBytes === 2
          ? bytes.readUInt16BE(2)
          : Number(bytes.readBigUInt64BE(2));
    return size;
  }

  #check(piece: Buffer): void {
    for (let from = 0; from < piece.length; from += PIECE) {
      const part = piece.subarray(from, from + PIECE);
      const start = (this.#offset + this.messages) % PERIOD;
      if (part.compare(PATTERN, start, start + part.length) !== 0) {
        throw new Error(`wrong bytes in message ${this.messages} behind offset ${this.#offset}`);
      }
      this.#offset += part.length;
    }
    this.payloadBytes += piece.length;
    this.#remaining -= piece.length;
    if (this.#remaining > 0 || !this.#fin) return;
    if (this.#offset !== this.#size) {
      throw new Error(`message ${this.messages} has ${this.#offset} bytes`);
    }
    this.messages += 1;
    this.#offset = 0;
  }
}
