/**
 * The frame relay: any bytes in any chunks are whole legal frames and one verdict, as the model says, and
 * `ws` agrees. An input is 8 bytes of options and the stream; a mark in the stream stands for long filler.
 */
import { deepEqual, equal, notEqual } from "node:assert/strict";
import type { PerMessageDeflate } from "ws";
import { type Direction, HOLD_LIMIT_BYTES, MIN_FRAGMENT_BYTES } from "../../../src/wire/relay.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { buildFrame, closePayload, type FrameSpec } from "../../support/frames.ts";
import { CheckedRelay, cut, readWithWs } from "../../unit/wire/relay-harness.ts";
import { expectedOf } from "../../unit/wire/relay-model.ts";
import {
  type Asked,
  checkDiscard,
  checkOutcome,
  checkStop,
} from "../../unit/wire/relay-outcome.ts";
import { latin1, type Target } from "../target.ts";

const OPTION_BYTES = 8;
const LIMITS = [0, 0, 1, 10, 125, 300, 65_536, 100_000];
const OWN_PONG = "own";
/** Two bytes follow it: how much filler, in pairs of bytes. */
const FILLER_MARK = Buffer.from([0xf1, 0x11]);
const LONGEST_STREAM = 256 * 1024;
/** Longer streams are not cut into single bytes. */
const SINGLE_BYTES_UP_TO = 400;
/** The relay demands the shortest form; `ws` is told not to look at UTF-8. */
const STRICTER_THAN_WS: ReadonlySet<string> = new Set([
  "payload length not in its shortest form",
  "Close reason is not UTF-8",
]);

interface Case {
  readonly direction: Direction;
  readonly deflate: boolean;
  readonly maxMessageBytes: number;
  readonly apart: number;
  readonly swallow: number;
  readonly asked: Asked;
  readonly sizes: readonly number[];
  readonly discardAt: number;
  /** So many calls of the sink, and it stops the relay. */
  readonly stopAfter: number;
  readonly stream: Buffer;
}

export function relayTarget(): Target {
  return { seeds: seeds(), tokens: tokens(), maxInputBytes: 2048, check };
}

async function check(input: Buffer): Promise<void> {
  const { stream, asked, sizes, discardAt, stopAfter, ...rest } = readCase(input);
  const slabs = new SlabPool();
  const options = { ...rest, limiter: null, slabs };
  const outcome = checkOutcome(stream, options, sizes, asked);
  deepEqual(checkOutcome(stream, options, [stream.length], asked), outcome);
  if (stream.length <= SINGLE_BYTES_UP_TO) {
    deepEqual(checkOutcome(stream, options, [1], asked), outcome);
  }
  if (stream.length > HOLD_LIMIT_BYTES) {
    // Fragments that begin at any offset.
    deepEqual(
      checkOutcome(stream, options, [MIN_FRAGMENT_BYTES + (sizes[0] ?? 0)], asked),
      outcome,
    );
  }
  checkDiscard(stream, options, sizes, discardAt);
  checkStop(stream, options, sizes, stopAfter);
  const plain = { ...options, apart: 0, swallow: 0 };
  await compareWithWs(stream, plain, new CheckedRelay(plain).push(...cut(stream, sizes)));
}

function readCase(input: Buffer): Case {
  const [
    flags = 0,
    limit = 0,
    counts = 0,
    messages = 0,
    size1 = 0,
    size2 = 0,
    discard = 0,
    stop = 0,
  ] = input;
  const stream = withFiller(input.subarray(OPTION_BYTES));
  // Even the smallest chunks of a long stream are not too many.
  const least = Math.ceil(stream.length / SINGLE_BYTES_UP_TO);
  return {
    direction: (flags & 1) === 0 ? "clientToUpstream" : "upstreamToClient",
    deflate: (flags & 2) !== 0,
    maxMessageBytes: LIMITS[limit % LIMITS.length] ?? 0,
    apart: counts & 3,
    swallow: (counts >> 2) & 3,
    asked: {
      answerPings: (flags & 4) !== 0,
      ...((flags & 8) === 0 ? {} : { ownPong: OWN_PONG }),
      ...((flags & 16) === 0 ? {} : { messageLimit: messages & 7 }),
    },
    sizes: [least + size1, least + size2 * 97],
    discardAt: Math.floor((stream.length * discard) / 255),
    stopAfter: 1 + stop,
    stream,
  };
}

function withFiller(bytes: Buffer): Buffer {
  const parts: Buffer[] = [];
  let length = 0;
  for (let at = 0; at < bytes.length && length < LONGEST_STREAM; ) {
    const mark = bytes.indexOf(FILLER_MARK, at);
    const hasMark = mark !== -1 && mark + 4 <= bytes.length;
    const plain = bytes.subarray(at, hasMark ? mark : bytes.length);
    const filler = hasMark ? Buffer.alloc(2 * bytes.readUInt16BE(mark + 2), "filler") : plain;
    parts.push(plain, ...(hasMark ? [filler] : []));
    length += plain.length + filler.length;
    at = hasMark ? mark + 4 : bytes.length;
  }
  return Buffer.concat(parts);
}

/** What the relay passes on, `ws` reads as it reads the input; what the relay refuses, `ws` refuses. */
async function compareWithWs(
  stream: Buffer,
  options: Parameters<typeof expectedOf>[1],
  checked: CheckedRelay,
): Promise<void> {
  const { end, rest } = expectedOf(stream, options);
  const read = (bytes: Buffer): Promise<string[]> =>
    readWithWs(
      bytes,
      options.direction,
      options.deflate ? noInflater() : null,
      options.maxMessageBytes,
    );
  if (end === "protocol" || end === "messageTooBig") {
    if (STRICTER_THAN_WS.has(checked.violation?.detail ?? "")) return;
    notEqual(
      (await read(stream)).find(isError),
      undefined,
      `ws takes: ${checked.violation?.detail}`,
    );
    return;
  }
  const whole = end === "open" ? stream.subarray(0, stream.length - rest.length) : stream;
  const seen = await read(whole);
  equal(seen.find(isError), undefined);
  if (end === "close") {
    const { code, reason } = checked.close ?? { code: 0, reason: "" };
    equal(seen.at(-1)?.startsWith(`close ${code} `), true);
    equal(reason.length <= 123, true);
  }
  // Fragments of a long frame that has not ended are in the output only.
  const output = (await read(checked.output)).slice(0, seen.length);
  deepEqual(output, end === "close" ? seen.slice(0, -1) : seen);
}

function isError(line: string): boolean {
  return line.startsWith("error");
}

/** Noise cannot be inflated; that `ws` takes a frame for a deflated one is enough. */
function noInflater(): PerMessageDeflate {
  const stub = {
    decompress: (data: Buffer, _fin: boolean, done: (error: null, data: Buffer) => void): void => {
      queueMicrotask(() => done(null, data));
    },
    cleanup: (): void => undefined,
  };
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what the parser uses of it is here
  return stub as unknown as PerMessageDeflate;
}

const KEY = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

function seeds(): Buffer[] {
  const streams: FrameSpec[][] = [
    [{ opcode: 1, payload: "hello" }],
    [
      { opcode: 1, fin: false, payload: "a" },
      { opcode: 9, payload: "b" },
      { opcode: 0, payload: "c" },
    ],
    [
      { opcode: 2, rsv1: true, fin: false, payload: "a" },
      { opcode: 0, payload: "b" },
    ],
    [{ opcode: 10, payload: OWN_PONG }, { opcode: 10 }, { opcode: 9, payload: "x".repeat(125) }],
    [{ opcode: 2, payload: "x".repeat(126) }, { opcode: 8 }],
    [
      { opcode: 2, payload: "x".repeat(100) },
      { opcode: 1, payload: "y".repeat(100) },
    ],
    [
      { opcode: 2 },
      { opcode: 1 },
      { opcode: 2 },
      { opcode: 8, payload: closePayload(1000, "bye") },
    ],
    [{ opcode: 8, payload: closePayload(1006) }],
    [{ opcode: 8, payload: Buffer.from([3]) }],
    [{ opcode: 8, payload: closePayload(1001, Buffer.from([0xc3])) }],
  ];
  const long = { opcode: 2, announcedLength: 80_000, lengthForm: 64 } as const;
  const filler = Buffer.from([...FILLER_MARK, 40_000 >> 8, 40_000 & 255]);
  return [0, 1, 2, 3].flatMap((flags) => {
    const mask = (flags & 1) === 0 ? KEY : null;
    // With nothing asked of the relay but a limit that the short messages keep, and with all of it.
    const plain = Buffer.from([flags, 4, 0, 0, 3, 1, 128, 1]);
    const asked = Buffer.from([flags | 28, 0, 5, 7, 3, 1, 128, 1]);
    const short = streams.map((frames) => frames.map((frame) => buildFrame({ mask, ...frame })));
    const after = buildFrame({ mask, opcode: 1, payload: "after" });
    const longFrames = [buildFrame({ mask, ...long }), filler, after];
    return [
      ...[...short, longFrames].map((frames) => Buffer.concat([asked, ...frames])),
      ...short.map((frames) => Buffer.concat([plain, ...frames])),
      Buffer.concat([Buffer.from([flags, 0, 0, 0, 3, 1, 128, 1]), ...longFrames]),
    ];
  });
}

function tokens(): Buffer[] {
  const frames: FrameSpec[] = [
    { opcode: 1, payload: "t" },
    { opcode: 2, fin: false },
    { opcode: 0 },
    { opcode: 0, fin: false, payload: "abc" },
    { opcode: 9, payload: "p" },
    { opcode: 10, payload: OWN_PONG },
    { opcode: 8, payload: closePayload(1000) },
    { opcode: 1, rsv1: true, payload: "z" },
    { opcode: 2, announcedLength: 65_536 },
    { opcode: 2, announcedLength: 65_537, fin: false },
    { opcode: 2, announcedLength: 16_384 },
    { opcode: 0, rsv1: true, payload: "z" },
    { opcode: 2, announcedLength: 125, lengthForm: 16 },
    { opcode: 2, announcedLength: 126, lengthForm: 16 },
    { opcode: 2, announcedLength: 65_535, lengthForm: 64 },
    { opcode: 2, announcedLength: 5, lengthForm: 64 },
    { opcode: 2, announcedLength: 1n << 63n },
    { opcode: 2, announcedLength: 1n << 53n },
  ];
  return [
    ...frames.flatMap((frame) => [buildFrame({ mask: KEY, ...frame }), buildFrame(frame)]),
    ...[0, 1, 8191, 8192, 32_767, 32_768, 40_000].map((pairs) =>
      Buffer.from([...FILLER_MARK, pairs >> 8, pairs & 255]),
    ),
    latin1("\x81\x7e"),
    latin1("\x82\xff"),
  ];
}
