/** Arbitrary legal frame streams, and arbitrary ways to cut them into chunks. */
import * as fc from "fast-check";
import { type Direction, HOLD_LIMIT_BYTES, MIN_FRAGMENT_BYTES } from "../../../src/wire/relay.ts";
import { buildFrame, closePayload, type FrameSpec, toHex } from "../../support/frames.ts";

export interface LegalStream {
  readonly direction: Direction;
  readonly deflate: boolean;
  readonly bytes: Buffer;
  /** With the Close that may end it. */
  readonly frames: readonly Buffer[];
}

/** Payloads are slices of this: cheap, and no two offsets look alike. */
const NOISE = Buffer.alloc(400 * 1024);
for (let i = 0, state = 1; i < NOISE.length; i += 1) {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
  NOISE[i] = state >>> 16;
}

const noiseOf = (size: fc.Arbitrary<number>): fc.Arbitrary<Buffer> =>
  fc.tuple(size, fc.nat(1024)).map(([length, from]) => NOISE.subarray(from, from + length));

const smallSize = fc.oneof(fc.constantFrom(0, 1, 2, 124, 125, 126, 127), fc.nat(300));

/** Header bytes: 4 or 8 with a 16-bit length, 10 or 14 with a 64-bit one, unmasked or masked. */
const frameSizesAroundTheLimit = [4, 8, 10, 14].flatMap((header) =>
  [-1, 0, 1].map((off) => HOLD_LIMIT_BYTES - header + off),
);
const anySize = fc.oneof(
  { weight: 3, arbitrary: smallSize },
  {
    weight: 3,
    arbitrary: fc.constantFrom(
      65_535,
      65_536,
      65_537,
      MIN_FRAGMENT_BYTES - 1,
      MIN_FRAGMENT_BYTES,
      MIN_FRAGMENT_BYTES + 1,
      4 * MIN_FRAGMENT_BYTES + 1,
      5 * MIN_FRAGMENT_BYTES,
      ...frameSizesAroundTheLimit,
    ),
  },
  { weight: 1, arbitrary: fc.integer({ min: 300, max: 300 * 1024 }) },
);

const control: fc.Arbitrary<FrameSpec> = fc.record({
  opcode: fc.constantFrom(0x9, 0xa),
  payload: noiseOf(fc.constantFrom(0, 1, 4, 60, 124, 125)),
});

const close: fc.Arbitrary<FrameSpec> = fc
  .oneof(
    fc.constant(Buffer.alloc(0)),
    fc
      .tuple(fc.constantFrom(1000, 1001, 1011, 3000, 4999), fc.constantFrom("", "bye", "žluťoučký"))
      .map(([code, reason]) => closePayload(code, reason)),
  )
  .map((payload) => ({ opcode: 0x8, payload }));

/** One message, with control frames between its fragments. */
function message(deflate: boolean, size: fc.Arbitrary<number>): fc.Arbitrary<FrameSpec[]> {
  return fc
    .record({
      opcode: fc.constantFrom(0x1, 0x2),
      rsv1: deflate ? fc.boolean() : fc.constant(false),
      fragments: fc.array(noiseOf(size), { minLength: 1, maxLength: 4 }),
      between: fc.array(fc.array(control, { maxLength: 2 }), { minLength: 4, maxLength: 4 }),
    })
    .map(({ opcode, rsv1, fragments, between }) =>
      fragments.flatMap((payload, i): FrameSpec[] => [
        ...(i === 0 ? [] : (between[i] ?? [])),
        {
          fin: i === fragments.length - 1,
          rsv1: i === 0 && rsv1,
          opcode: i === 0 ? opcode : 0x0,
          payload,
        },
      ]),
    );
}

/** A counterexample prints its frames' headers, not 300 KiB of numbers. */
function describedStream(direction: Direction, deflate: boolean, frames: Buffer[]): LegalStream {
  const headers = frames.map((one) => `${one.length} bytes: ${toHex(one.subarray(0, 14))} ...`);
  const text = `${direction}${deflate ? ", deflate" : ""}, frames:\n  ${headers.join("\n  ")}`;
  const stream: LegalStream = { direction, deflate, frames, bytes: Buffer.concat(frames) };
  return Object.assign(stream, { [fc.toStringMethod]: () => text });
}

/** `small` streams stay short enough to be pushed byte by byte. */
export function legalStream(kind: "small" | "any"): fc.Arbitrary<LegalStream> {
  return fc
    .record({
      direction: fc.constantFrom<Direction>("clientToUpstream", "upstreamToClient"),
      deflate: fc.boolean(),
    })
    .chain(({ direction, deflate }) =>
      fc
        .record({
          parts: fc.array(
            fc.oneof(
              { weight: 3, arbitrary: message(deflate, kind === "small" ? smallSize : anySize) },
              { weight: 1, arbitrary: control.map((one) => [one]) },
            ),
            { minLength: 1, maxLength: kind === "small" ? 6 : 4 },
          ),
          end: fc.option(close, { nil: null }),
          keys: fc.array(fc.uint8Array({ minLength: 4, maxLength: 4 }), {
            minLength: 3,
            maxLength: 3,
          }),
        })
        .map(({ parts, end, keys }) => {
          const specs = [...parts.flat(), ...(end === null ? [] : [end])];
          const frames = specs.map((spec, i) =>
            buildFrame(
              direction === "clientToUpstream"
                ? { ...spec, mask: keys[i % keys.length] ?? null }
                : spec,
            ),
          );
          return describedStream(direction, deflate, frames);
        }),
    );
}

/** Chunk sizes, to be used in turn; `cutting` keeps the number of chunks bounded. */
export const chunkSizes: fc.Arbitrary<number[]> = fc.array(
  fc.oneof(
    fc.integer({ min: 1, max: 20 }),
    fc.constantFrom(1448, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537),
    fc.integer({ min: 1, max: 70_000 }),
    fc.constant(1_000_000),
  ),
  { minLength: 1, maxLength: 8 },
);
