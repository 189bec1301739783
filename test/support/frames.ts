/**
 * Builds and reads WebSocket frames byte by byte, from RFC 6455 §5.2 alone: it shares nothing with
 * `src/wire`, so that it can catch faults there, and it builds illegal frames as readily as legal ones.
 */

/** How the payload length is written: in the 7-bit field, or in 16 or 64 bits behind it. */
type LengthForm = 7 | 16 | 64;

export interface FrameSpec {
  /** Default: true. */
  readonly fin?: boolean;
  readonly rsv1?: boolean;
  readonly rsv2?: boolean;
  readonly rsv3?: boolean;
  readonly opcode: number;
  /** The key, 4 bytes; default: not masked. */
  readonly mask?: Uint8Array | null;
  /** Before masking; text is written as UTF-8. Default: empty. */
  readonly payload?: Uint8Array | string;
  /** Default: the shortest that fits. */
  readonly lengthForm?: LengthForm;
  /** What the header says instead of the real payload length. */
  readonly announcedLength?: number | bigint;
}

export interface ReadFrame {
  readonly fin: boolean;
  readonly rsv1: boolean;
  readonly rsv2: boolean;
  readonly rsv3: boolean;
  readonly opcode: number;
  /** The key; null: the frame is not masked. */
  readonly mask: Buffer | null;
  /** Unmasked; a copy. */
  readonly payload: Buffer;
  readonly lengthForm: LengthForm;
  /** The whole frame as it came; a view. */
  readonly raw: Buffer;
}

/** Bytes from hexadecimal digits; white space is ignored: `hex("81 02 68 69")`. */
export function hex(digits: string): Buffer {
  const compact = digits.replace(/\s+/g, "");
  if (!/^(?:[0-9a-f]{2})*$/i.test(compact)) throw new Error(`not hexadecimal: ${digits}`);
  return Buffer.from(compact, "hex");
}

/** `81 02 68 69`: for messages that a reader can compare. */
export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}

export function buildFrame(spec: FrameSpec): Buffer {
  const plain = Buffer.from(
    typeof spec.payload === "string"
      ? Buffer.from(spec.payload, "utf8")
      : (spec.payload ?? Buffer.alloc(0)),
  );
  const length = BigInt(spec.announcedLength ?? plain.length);
  const form = spec.lengthForm ?? shortestForm(length);
  const flags =
    (spec.fin === false ? 0 : 128) +
    (spec.rsv1 === true ? 64 : 0) +
    (spec.rsv2 === true ? 32 : 0) +
    (spec.rsv3 === true ? 16 : 0);
  const maskFlag = spec.mask ? 128 : 0;
  const header = [flags + spec.opcode];
  if (form === 7) {
    header.push(maskFlag + Number(length));
  } else {
    header.push(maskFlag + (form === 16 ? 126 : 127));
    for (let shift = form - 8; shift >= 0; shift -= 8) {
      header.push(Number((length >> BigInt(shift)) & 255n));
    }
  }
  if (!spec.mask) return Buffer.concat([Buffer.from(header), plain]);
  if (spec.mask.length !== 4) throw new Error("a mask key has 4 bytes");
  return Buffer.concat([Buffer.from(header), spec.mask, applyMask(plain, spec.mask)]);
}

/** The payload of a Close frame. */
export function closePayload(code: number, reason: Uint8Array | string = ""): Buffer {
  const text = typeof reason === "string" ? Buffer.from(reason, "utf8") : reason;
  return Buffer.concat([Buffer.from([Math.floor(code / 256), code % 256]), text]);
}

/** The frames in `bytes`; throws when the bytes do not end with a whole frame. */
export function readFrames(bytes: Uint8Array): ReadFrame[] {
  const { frames, rest } = splitFrames(bytes);
  if (rest.length > 0) {
    throw new Error(
      `torn frame: ${rest.length} bytes left over behind ${frames.length} whole frames, ` +
        `beginning with ${toHex(rest.subarray(0, 16))}`,
    );
  }
  return frames;
}

/** The whole frames at the front of `bytes`, and what follows them. */
export function splitFrames(bytes: Uint8Array): { frames: ReadFrame[]; rest: Buffer } {
  let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: ReadFrame[] = [];
  for (;;) {
    const frame = readFrame(rest);
    if (frame === null) return { frames, rest };
    frames.push(frame);
    rest = rest.subarray(frame.raw.length);
  }
}

/** XOR with the key, starting at its first byte (RFC 6455 §5.3); masks and unmasks. */
export function applyMask(payload: Uint8Array, key: Uint8Array): Buffer {
  const result = Buffer.from(payload);
  for (let i = 0; i < result.length; i += 1) result[i] = (result[i] ?? 0) ^ (key[i % 4] ?? 0);
  return result;
}

function shortestForm(length: bigint): LengthForm {
  if (length < 126n) return 7;
  return length < 65_536n ? 16 : 64;
}

/** Null: `bytes` end before the frame does. */
function readFrame(bytes: Buffer): ReadFrame | null {
  if (bytes.length < 2) return null;
  const [first = 0, second = 0] = bytes;
  let at = 2;
  let length = second % 128;
  let lengthForm: LengthForm = 7;
  if (length >= 126) {
    lengthForm = length === 126 ? 16 : 64;
    const width = lengthForm / 8;
    if (bytes.length < at + width) return null;
    length = 0;
    for (const byte of bytes.subarray(at, at + width)) length = length * 256 + byte;
    at += width;
  }
  let mask: Buffer | null = null;
  if (second >= 128) {
    if (bytes.length < at + 4) return null;
    mask = Buffer.from(bytes.subarray(at, at + 4));
    at += 4;
  }
  if (bytes.length < at + length) return null;
  const payload = bytes.subarray(at, at + length);
  return {
    fin: first >= 128,
    rsv1: Math.floor(first / 64) % 2 === 1,
    rsv2: Math.floor(first / 32) % 2 === 1,
    rsv3: Math.floor(first / 16) % 2 === 1,
    opcode: first % 16,
    mask,
    payload: mask === null ? Buffer.from(payload) : applyMask(payload, mask),
    lengthForm,
    raw: bytes.subarray(0, at + length),
  };
}
