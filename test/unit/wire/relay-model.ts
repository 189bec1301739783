/**
 * What a relay must make of any bytes, written down the slow way: no state between chunks, one frame
 * after the other, from RFC 6455 §5 and the promises of the relay. The relay is held against it.
 */
import { isUtf8 } from "node:buffer";
import type { RelayOptions } from "../../../src/wire/relay.ts";
import { type ReadFrame, readFrames, splitFrames } from "../../support/frames.ts";
import { digest } from "./relay-harness.ts";

export interface Expected {
  /** The frames that are let pass, without the Close. */
  readonly frames: readonly ReadFrame[];
  readonly end: "open" | "close" | "protocol" | "messageTooBig";
  /** The unfinished frame at the end of an open stream. */
  readonly rest: Buffer;
  /** Whole messages in `frames`. */
  readonly messages: number;
}

export function expectedOf(
  bytes: Buffer,
  options: Pick<RelayOptions, "direction" | "deflate" | "maxMessageBytes">,
): Expected {
  const frames: ReadFrame[] = [];
  let rest = bytes;
  let open = false;
  let messageBytes = 0n;
  let messages = 0;
  for (;;) {
    const verdict = judgeHeader(rest, options, open, messageBytes);
    if (verdict !== "legal") return { frames, end: verdict, rest, messages };
    const frame = firstFrame(rest);
    if (frame === null) return { frames, end: "open", rest, messages };
    if (frame.opcode === 0x8) {
      return { frames, end: isLegalClose(frame.payload) ? "close" : "protocol", rest, messages };
    }
    frames.push(frame);
    rest = rest.subarray(frame.raw.length);
    if (frame.opcode < 0x8) {
      messageBytes = (open ? messageBytes : 0n) + BigInt(frame.payload.length);
      open = !frame.fin;
      if (frame.fin) messages += 1;
    }
  }
}

/** Judges what is there of a header: its first two bytes, then its length once it is whole. */
function judgeHeader(
  bytes: Buffer,
  options: Pick<RelayOptions, "direction" | "deflate" | "maxMessageBytes">,
  open: boolean,
  messageBytes: bigint,
): "legal" | "protocol" | "messageTooBig" {
  if (bytes.length < 2) return "legal";
  const bits = [...bytes.subarray(0, 2)].map((byte) => byte.toString(2).padStart(8, "0")).join("");
  const [fin, rsv1, rsv2, rsv3] = bits;
  const opcode = Number.parseInt(bits.slice(4, 8), 2);
  const masked = bits[8] === "1";
  const short = Number.parseInt(bits.slice(9), 2);
  if (masked !== (options.direction === "clientToUpstream")) return "protocol";
  if (![0, 1, 2, 8, 9, 10].includes(opcode)) return "protocol";
  if (rsv2 === "1" || rsv3 === "1") return "protocol";
  if (rsv1 === "1" && !(options.deflate && (opcode === 1 || opcode === 2))) return "protocol";
  if (opcode >= 8 && (fin === "0" || short > 125)) return "protocol";
  if (opcode === 0 && !open) return "protocol";
  if ((opcode === 1 || opcode === 2) && open) return "protocol";

  const width = short === 126 ? 2 : short === 127 ? 8 : 0;
  if (bytes.length < 2 + width + (masked ? 4 : 0)) return "legal";
  let length = BigInt(short);
  if (width > 0) length = BigInt(`0x${bytes.subarray(2, 2 + width).toString("hex")}`);
  if (length >= 1n << 63n) return "protocol";
  if (width === 2 && length < 126n) return "protocol";
  if (width === 8 && length < 65_536n) return "protocol";
  if (length >= 1n << 53n) return "messageTooBig";
  if (opcode < 8 && options.maxMessageBytes > 0) {
    const total = (open ? messageBytes : 0n) + length;
    if (total > BigInt(options.maxMessageBytes)) return "messageTooBig";
  }
  return "legal";
}

function firstFrame(bytes: Buffer): ReadFrame | null {
  // Only as much as one frame can need is split off, or long streams would take quadratic time.
  const short = (bytes[1] ?? 0) % 128;
  const masked = (bytes[1] ?? 0) >= 128 ? 4 : 0;
  let length = 2 + masked + short;
  if (short === 126) length = 4 + masked + (bytes.length >= 4 ? bytes.readUInt16BE(2) : 0);
  if (short === 127) {
    length = 10 + masked + (bytes.length >= 10 ? Number(bytes.readBigUInt64BE(2)) : 0);
  }
  return splitFrames(bytes.subarray(0, Math.min(length, bytes.length))).frames[0] ?? null;
}

function isLegalClose(payload: Buffer): boolean {
  if (payload.length === 0) return true;
  if (payload.length === 1) return false;
  const code = payload.readUInt16BE(0);
  const standard = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014];
  const isLegalCode = standard.includes(code) || (code > 2999 && code < 5000);
  return isLegalCode && isUtf8(payload.subarray(2));
}

/**
 * Frames as what they mean: neighbouring fragments of a message are one item, so that two streams
 * that differ in fragment borders alone read the same.
 */
export function meaningOf(frames: readonly ReadFrame[]): string[] {
  const items: string[] = [];
  let pieces: Buffer[] = [];
  let kind = "";
  let inMessage = false;
  const flush = (end: string): void => {
    if (kind !== "") items.push(`${kind} ${digest(Buffer.concat(pieces))} ${end}`);
    pieces = [];
    kind = "";
  };
  for (const frame of frames) {
    if (frame.opcode >= 0x8) {
      flush("unfinished");
      items.push(`control ${frame.opcode} ${digest(frame.raw)}`);
      continue;
    }
    if (inMessage !== (frame.opcode === 0x0)) throw new Error("fragments out of order");
    if (kind === "") {
      kind = frame.opcode === 0x0 ? "more" : `message ${frame.opcode}${frame.rsv1 ? " rsv1" : ""}`;
    }
    pieces.push(frame.payload);
    inMessage = !frame.fin;
    if (frame.fin) flush("finished");
  }
  flush("unfinished");
  return items;
}

/** The frame that begins `rest`, with as much of its payload as there is, as a whole frame. */
export function frontOf(rest: Buffer, payloadBytes: number, headerBytes: number): ReadFrame {
  const masked = (rest[1] ?? 0) >= 128;
  const first = (rest[0] ?? 0) % 128;
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(payloadBytes));
  const [frame] = readFrames(
    Buffer.concat([
      Buffer.from([first, masked ? 0xff : 0x7f]),
      length,
      rest.subarray(headerBytes - (masked ? 4 : 0), headerBytes + payloadBytes),
    ]),
  );
  if (frame === undefined) throw new Error("no frame");
  return frame;
}
