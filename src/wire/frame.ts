/**
 * Names of RFC 6455 §5.2 and the frames that the gateway itself makes (Ping, Pong, Close, text).
 * Relayed frames are never built here: they pass as they came (`relay.ts`).
 */
import { Sender } from "ws";
import type { Close } from "../close/causes.ts";

export const OPCODE_CONTINUATION = 0x0;
export const OPCODE_TEXT = 0x1;
export const OPCODE_BINARY = 0x2;
export const OPCODE_CLOSE = 0x8;
export const OPCODE_PING = 0x9;
export const OPCODE_PONG = 0xa;

export const FIN = 0x80;
export const RSV1 = 0x40;
export const RSV_BITS = 0x70;
export const OPCODE_BITS = 0x0f;
export const MASK = 0x80;
export const LENGTH_BITS = 0x7f;

/** RFC 6455 §5.5: control frames carry at most 125 bytes. */
export const MAX_CONTROL_PAYLOAD = 125;

/** One unfragmented frame; masked (with a fresh key) when it goes to an upstream. */
export function makeFrame(opcode: number, payload: Buffer, masked: boolean): Buffer {
  const parts = Sender.frame(payload, {
    fin: true,
    rsv1: false,
    opcode,
    mask: masked,
    readOnly: true,
  });
  return parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts);
}

/** A Close frame. Code 1005 makes an empty one; the close policy has cut the reason to 123 bytes. */
export function makeCloseFrame(close: Close, masked: boolean): Buffer {
  if (close.code === 1005) return makeFrame(OPCODE_CLOSE, Buffer.alloc(0), masked);
  const reason = Buffer.from(close.reason, "utf8");
  const payload = Buffer.allocUnsafe(2 + reason.length);
  payload.writeUInt16BE(close.code, 0);
  reason.copy(payload, 2);
  return makeFrame(OPCODE_CLOSE, payload, masked);
}
