import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { HOLD_LIMIT_BYTES, MIN_FRAGMENT_BYTES } from "../../../src/wire/relay.ts";
import { type ReadFrame, readFrames } from "../../support/frames.ts";
import { chunkSizes, type LegalStream, legalStream } from "./legal-streams.ts";
import { CheckedRelay, cut, readWithWs, relayOptions } from "./relay-harness.ts";

/** Pushes `chunks`; the checked relay throws when a sink call is torn or too much is held. */
function relayed(stream: LegalStream, chunks: readonly Buffer[]): CheckedRelay {
  return new CheckedRelay(relayOptions(stream.direction, { deflate: stream.deflate })).push(
    ...chunks,
  );
}

/** Small chunks of a large stream are made larger: the number of chunks stays below about 2,000. */
function cutting(stream: LegalStream, sizes: readonly number[]): Buffer[] {
  const sum = sizes.reduce((total, size) => total + size, 0);
  const rounds = stream.bytes.length / sum;
  const enough = rounds * sizes.length <= 2000;
  return cut(stream.bytes, enough ? sizes : [...sizes, Math.ceil(stream.bytes.length / 250)]);
}

/** Everything that a relay promises of a legal stream but the verdict of `ws`, which it returns. */
async function checkRelayed(
  stream: LegalStream,
  chunks: readonly Buffer[],
): Promise<{ input: string[]; output: string[] }> {
  const checked = relayed(stream, chunks);
  const frames = stream.frames.flatMap((bytes) => readFrames(bytes));
  const last = frames.at(-1);
  const endsWithClose = last?.opcode === 0x8;
  const passed = endsWithClose ? frames.slice(0, -1) : frames;

  expect(checked.violation).toBeNull();
  expect(checked.close === null).toBe(!endsWithClose);
  compareFrames(passed, checked.frames);
  expect(checked.relay.heldBytes).toBe(0);
  expect(checked.relay.midMessage).toBe(false);
  expect(checked.relay.bytes).toBe(checked.output.length);
  const messages = passed.filter((frame) => frame.opcode < 0x8 && frame.fin).length;
  expect(checked.relay.messages).toBe(messages);
  expect(checked.relay.droppedMessages).toBe(0);
  expect(checked.pongs).toEqual(
    passed.filter((frame) => frame.opcode === 0xa).map((frame) => frame.payload.toString("hex")),
  );

  // Deflated messages hold noise here, which no inflater takes: those are tested with real ones.
  if (passed.some((frame) => frame.rsv1)) return { input: [], output: [] };
  const input = Buffer.concat(passed.map((frame) => frame.raw));
  return {
    input: await readWithWs(input, stream.direction),
    output: await readWithWs(checked.output, stream.direction),
  };
}

/** Frames with payload up to the limit are the same bytes; longer ones are fragments of the same payload. */
function compareFrames(input: readonly ReadFrame[], output: readonly ReadFrame[]): void {
  let at = 0;
  for (const frame of input) {
    if (frame.payload.length <= HOLD_LIMIT_BYTES) {
      const same = output[at]?.raw.equals(frame.raw) ?? false;
      expect(same, `frame ${at} of ${frame.raw.length} bytes is unchanged`).toBe(true);
      at += 1;
      continue;
    }
    const fragments: ReadFrame[] = [];
    for (let sum = 0; sum < frame.payload.length; at += 1) {
      const fragment = output[at];
      if (fragment === undefined) throw new Error("the output ends inside a long frame");
      fragments.push(fragment);
      sum += fragment.payload.length;
    }
    compareLongFrame(frame, fragments);
  }
  expect(output.length).toBe(at);
}

function compareLongFrame(frame: ReadFrame, fragments: readonly ReadFrame[]): void {
  let offset = 0;
  for (const [i, fragment] of fragments.entries()) {
    const isLast = i === fragments.length - 1;
    expect(fragment.opcode).toBe(i === 0 ? frame.opcode : 0x0);
    expect(fragment.rsv1).toBe(i === 0 && frame.rsv1);
    expect(fragment.rsv2 || fragment.rsv3).toBe(false);
    expect(fragment.fin).toBe(isLast && frame.fin);
    if (!isLast) expect(fragment.payload.length).toBeGreaterThanOrEqual(MIN_FRAGMENT_BYTES);
    const { mask } = frame;
    const rotated = mask === null ? null : Buffer.from([0, 1, 2, 3].map((k) => turned(mask, k)));
    expect(fragment.mask).toEqual(rotated);
    offset += fragment.payload.length;
  }
  expect(Buffer.concat(fragments.map((one) => one.payload)).equals(frame.payload)).toBe(true);
  // Masked as it came: the payload was not touched.
  expect(Buffer.concat(fragments.map(asSent)).equals(asSent(frame))).toBe(true);

  function turned(mask: Buffer, k: number): number {
    return mask[(offset + k) % 4] ?? 0;
  }
}

/** The payload as it was on the wire, still masked. */
function asSent(frame: ReadFrame): Buffer {
  return frame.raw.subarray(frame.raw.length - frame.payload.length);
}

describe("Any legal frames, cut into any chunks, are relayed whole", () => {
  test("when they are short and arrive byte by byte", async () => {
    await fc.assert(
      fc.asyncProperty(legalStream("small"), async (stream) => {
        const { input, output } = await checkRelayed(stream, cut(stream.bytes, [1]));
        expect(output).toEqual(input);
      }),
      { numRuns: 100 },
    );
  });

  test("when they are short", async () => {
    await fc.assert(
      fc.asyncProperty(legalStream("small"), chunkSizes, async (stream, sizes) => {
        const { input, output } = await checkRelayed(stream, cutting(stream, sizes));
        expect(output).toEqual(input);
      }),
      { numRuns: 300 },
    );
  });

  test("when they are up to 300 KiB long", async () => {
    await fc.assert(
      fc.asyncProperty(legalStream("any"), chunkSizes, async (stream, sizes) => {
        const { input, output } = await checkRelayed(stream, cutting(stream, sizes));
        expect(output).toEqual(input);
      }),
      { numRuns: 250 },
    );
  });

  test("when they arrive in one piece, without copying them", () => {
    fc.assert(
      fc.property(legalStream("small"), (stream) => {
        const chunk = Buffer.from(stream.bytes);
        const checked = new CheckedRelay(
          relayOptions(stream.direction, { deflate: stream.deflate }),
        );
        const forward = checked.forward.bind(checked);
        checked.forward = (frames) => {
          expect(frames.buffer).toBe(chunk.buffer);
          forward(frames);
        };
        checked.relay.push(chunk);
        expect(checked.calls.length).toBeLessThanOrEqual(1);
      }),
      { numRuns: 50 },
    );
  });
});
