import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { Direction } from "../../../src/wire/relay.ts";
import { buildFrame, closePayload } from "../../support/frames.ts";
import { chunkSizes, legalStream } from "./legal-streams.ts";
import { CheckedRelay, readWithWs, relayOptions } from "./relay-harness.ts";
import { checkOutcome } from "./relay-outcome.ts";

type Damage =
  | { readonly kind: "flip"; readonly at: number; readonly bit: number }
  | { readonly kind: "cutOff"; readonly at: number }
  | { readonly kind: "insert"; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: "remove"; readonly at: number; readonly count: number };

const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const damage: fc.Arbitrary<Damage> = fc.oneof(
  fc.record({ kind: fc.constant("flip" as const), at: place, bit: fc.nat(7) }),
  fc.record({ kind: fc.constant("cutOff" as const), at: place }),
  fc.record({
    kind: fc.constant("insert" as const),
    at: place,
    bytes: fc.uint8Array({ minLength: 1, maxLength: 20 }),
  }),
  fc.record({
    kind: fc.constant("remove" as const),
    at: place,
    count: fc.integer({ min: 1, max: 9 }),
  }),
);

function damaged(bytes: Buffer, damages: readonly Damage[]): Buffer {
  let result = Buffer.from(bytes);
  for (const one of damages) {
    const at = Math.floor(one.at * result.length);
    switch (one.kind) {
      case "flip":
        result[at] = (result[at] ?? 0) ^ (1 << one.bit);
        break;
      case "cutOff":
        result = result.subarray(0, at);
        break;
      case "insert":
        result = Buffer.concat([result.subarray(0, at), one.bytes, result.subarray(at)]);
        break;
      case "remove":
        result = Buffer.concat([result.subarray(0, at), result.subarray(at + one.count)]);
        break;
    }
  }
  return result;
}

const limit = fc.constantFrom(0, 0, 0, 10, 300, 65_536, 100_000);

describe("Any bytes at all are relayed or end in one violation, whatever the chunks", () => {
  test("short legal frames with damage", () => {
    fc.assert(
      fc.property(
        legalStream("small"),
        fc.array(damage, { minLength: 1, maxLength: 3 }),
        limit,
        chunkSizes,
        (stream, damages, maxMessageBytes, sizes) => {
          const bytes = damaged(stream.bytes, damages);
          const options = relayOptions(stream.direction, {
            deflate: stream.deflate,
            maxMessageBytes,
          });
          const outcome = checkOutcome(bytes, options, sizes);
          expect(checkOutcome(bytes, options, [1])).toEqual(outcome);
          expect(checkOutcome(bytes, options, [bytes.length])).toEqual(outcome);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("long legal frames with damage", () => {
    fc.assert(
      fc.property(
        legalStream("any"),
        fc.array(damage, { minLength: 1, maxLength: 2 }),
        limit,
        chunkSizes,
        (stream, damages, maxMessageBytes, sizes) => {
          const bytes = damaged(stream.bytes, damages);
          const options = relayOptions(stream.direction, {
            deflate: stream.deflate,
            maxMessageBytes,
          });
          const bounded = [...sizes, Math.ceil(bytes.length / 100)];
          const outcome = checkOutcome(bytes, options, bounded);
          expect(checkOutcome(bytes, options, [bytes.length])).toEqual(outcome);
          expect(checkOutcome(bytes, options, [1448])).toEqual(outcome);
        },
      ),
      { numRuns: 150 },
    );
  });

  test("garbage", () => {
    fc.assert(
      fc.property(
        fc.constantFrom<Direction>("clientToUpstream", "upstreamToClient"),
        fc.boolean(),
        fc.uint8Array({ maxLength: 200 }),
        limit,
        chunkSizes,
        (direction, deflate, garbage, maxMessageBytes, sizes) => {
          const bytes = Buffer.from(garbage);
          const options = relayOptions(direction, { deflate, maxMessageBytes });
          const outcome = checkOutcome(bytes, options, sizes);
          expect(checkOutcome(bytes, options, [1])).toEqual(outcome);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("headers put together from likely bytes", () => {
    const first = fc.constantFrom(0x01, 0x02, 0x00, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a, 0xc1, 0x41);
    const second = fc.constantFrom(0, 1, 2, 5, 125, 126, 127, 0x80, 0x82, 0xfe, 0xff);
    const tail = fc.uint8Array({ maxLength: 12, max: 4 });
    const likely = fc.array(
      fc.tuple(first, second, tail).map(([a, b, rest]) => Buffer.from([a, b, ...rest])),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(
        fc.constantFrom<Direction>("clientToUpstream", "upstreamToClient"),
        likely,
        limit,
        chunkSizes,
        (direction, parts, maxMessageBytes, sizes) => {
          const bytes = Buffer.concat(parts);
          const options = relayOptions(direction, { deflate: true, maxMessageBytes });
          const outcome = checkOutcome(bytes, options, sizes);
          expect(checkOutcome(bytes, options, [1])).toEqual(outcome);
        },
      ),
      { numRuns: 500 },
    );
  });

  test("and `ws` takes whatever was let pass", async () => {
    await fc.assert(
      fc.asyncProperty(
        legalStream("small"),
        fc.array(damage, { minLength: 1, maxLength: 3 }),
        async (stream, damages) => {
          const checked = new CheckedRelay(relayOptions(stream.direction));
          checked.push(damaged(stream.bytes, damages));
          const seen = await readWithWs(checked.output, stream.direction);
          expect(seen.filter((line) => line.startsWith("error"))).toEqual([]);
        },
      ),
      { numRuns: 150 },
    );
  });
});

describe("A stream that is cut off anywhere", () => {
  const keys = { clientToUpstream: Buffer.from([7, 8, 9, 10]), upstreamToClient: null };

  test.each<Direction>(["clientToUpstream", "upstreamToClient"])(
    "%s leaves whole frames behind",
    (direction) => {
      const mask = keys[direction];
      const bytes = Buffer.concat([
        buildFrame({ opcode: 0x1, fin: false, payload: "first", mask }),
        buildFrame({ opcode: 0x9, payload: "ping", mask }),
        buildFrame({ opcode: 0x0, payload: "a".repeat(130), mask }),
        buildFrame({ opcode: 0x2, mask }),
        buildFrame({ opcode: 0x8, payload: closePayload(1000, "bye"), mask }),
      ]);
      for (let at = 0; at <= bytes.length; at += 1) {
        const front = bytes.subarray(0, at);
        const outcome = checkOutcome(front, relayOptions(direction), [1]);
        expect(checkOutcome(front, relayOptions(direction), [at])).toEqual(outcome);
      }
    },
  );
});
