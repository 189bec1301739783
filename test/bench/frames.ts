/**
 * The few RFC 6455 bytes that the benchmark's own peers need: client frames, an opening handshake and
 * the accept hash. Written by hand and independent of src/wire, so that a bug there cannot hide here.
 */
import { createHash } from "node:crypto";

export const OPCODE_TEXT = 0x1;
export const OPCODE_BINARY = 0x2;
export const OPCODE_CLOSE = 0x8;
export const OPCODE_PING = 0x9;
export const OPCODE_PONG = 0xa;

const FIN = 0x80;
const MASKED = 0x80;

/** RFC 6455 §1.3. */
const ACCEPT_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** One fixed key for every handshake: the accept hash is then a constant, and the client stays cheap. */
const CLIENT_KEY = "c29mdGNsb3NlLWJlbmNoIQ==";

/** Not zero: `ws` skips unmasking for a zero key, which no real client sends. */
const MASK_KEY = Buffer.from([0x5a, 0xc3, 0x17, 0x9e]);

export function acceptFor(key: string): string {
  return createHash("sha1")
    .update(key + ACCEPT_GUID)
    .digest("base64");
}

export const EXPECTED_ACCEPT = acceptFor(CLIENT_KEY);

export function upgradeRequest(port: number, path: string): string {
  return (
    `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${CLIENT_KEY}\r\n\r\n`
  );
}

/** The value of a header in a raw HTTP head, or an empty string. */
export function headerValue(head: string, name: string): string {
  const match = new RegExp(`^${name}:[ \\t]*(.*?)[ \\t]*\\r?$`, "im").exec(head);
  return match?.[1] ?? "";
}

/** Header bytes of a frame whose second byte is `lengthByte`, without a mask key. */
export function headerBytesOf(lengthByte: number): 2 | 4 | 10 {
  const length7 = lengthByte & 0x7f;
  return length7 < 126 ? 2 : length7 === 126 ? 4 : 10;
}

/** Payload length of the frame whose header starts at `at`; the whole header must be in `bytes`. */
export function payloadLengthAt(bytes: Buffer, at: number): number {
  const length7 = (bytes[at + 1] ?? 0) & 0x7f;
  if (length7 < 126) return length7;
  if (length7 === 126) return bytes.readUInt16BE(at + 2);
  return Number(bytes.readBigUInt64BE(at + 2));
}

/** Writes an unmasked header (or, with `maskBit`, all of a masked one but its key); returns its length. */
export function writeHeader(
  out: Buffer,
  at: number,
  firstByte: number,
  payloadBytes: number,
  maskBit = 0,
): number {
  out[at] = firstByte;
  if (payloadBytes < 126) {
    out[at + 1] = maskBit | payloadBytes;
    return 2;
  }
  if (payloadBytes < 0x10000) {
    out[at + 1] = maskBit | 126;
    out.writeUInt16BE(payloadBytes, at + 2);
    return 4;
  }
  out[at + 1] = maskBit | 127;
  out.writeBigUInt64BE(BigInt(payloadBytes), at + 2);
  return 10;
}

/** A whole masked frame, as a client sends it. */
export function maskedFrame(opcode: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(14 + payload.length);
  let at = writeHeader(frame, 0, FIN | opcode, payload.length, MASKED);
  at += MASK_KEY.copy(frame, at);
  for (let i = 0; i < payload.length; i++) {
    frame[at + i] = (payload[i] ?? 0) ^ (MASK_KEY[i & 3] ?? 0);
  }
  return frame.subarray(0, at + payload.length);
}

/** A whole unmasked frame, as a server sends it. */
export function unmaskedFrame(opcode: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(10 + payload.length);
  const at = writeHeader(frame, 0, FIN | opcode, payload.length);
  frame.set(payload, at);
  return frame.subarray(0, at + payload.length);
}

export function closePayload(code: number): Buffer {
  const payload = Buffer.allocUnsafe(2);
  payload.writeUInt16BE(code);
  return payload;
}
