import { constants, deflateRawSync, inflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { PerMessageDeflate } from "ws";
import type { Direction } from "../../../src/wire/relay.ts";
import { buildFrame, type FrameSpec, hex } from "../../support/frames.ts";
import { CheckedRelay, cut, digest, readWithWs, relayOptions } from "./relay-harness.ts";

const DIRECTIONS: readonly Direction[] = ["clientToUpstream", "upstreamToClient"];

/** RFC 7692 §7.2.1: deflated, flushed, without the tail 00 00 ff ff. */
function deflated(message: Buffer): Buffer {
  const flushed = deflateRawSync(message, { finishFlush: constants.Z_SYNC_FLUSH });
  return flushed.subarray(0, flushed.length - 4);
}

function inflated(payload: Buffer): Buffer {
  return inflateRawSync(Buffer.concat([payload, hex("00 00 ff ff")]), {
    finishFlush: constants.Z_SYNC_FLUSH,
  });
}

/** Text that shrinks little: long messages stay long frames. */
function words(bytes: number): Buffer {
  let state = 7;
  const text = Buffer.alloc(bytes);
  for (let i = 0; i < bytes; i += 1) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    text[i] = 0x20 + ((state >>> 16) % 90);
  }
  return text;
}

const MESSAGES = [
  Buffer.from("hello"),
  Buffer.alloc(0),
  words(300),
  words(100_000),
  words(300_000),
];

/** Whole and in three fragments, with RSV1 on the first only. */
function framesOf(payload: Buffer, direction: Direction): Buffer[] {
  const mask = direction === "clientToUpstream" ? hex("11 22 33 44") : null;
  const third = Math.ceil(payload.length / 3);
  const specs: FrameSpec[] = [
    { opcode: 0x1, rsv1: true, payload },
    { opcode: 0x1, rsv1: true, fin: false, payload: payload.subarray(0, third) },
    { opcode: 0x9, payload: "between" },
    { opcode: 0x0, fin: false, payload: payload.subarray(third, 2 * third) },
    { opcode: 0x0, payload: payload.subarray(2 * third) },
  ];
  return specs.map((spec) => buildFrame({ ...spec, mask }));
}

describe.each(DIRECTIONS)("Deflated messages %s", (direction) => {
  test.each([[1448], [16_384], [65_536], [5, 70_000, 1], [1_000_000]])(
    "keep RSV1 on their first frame and inflate at the other end, in chunks of %i",
    (...sizes) => {
      const input = Buffer.concat(MESSAGES.flatMap((one) => framesOf(deflated(one), direction)));
      const checked = new CheckedRelay(relayOptions(direction, { deflate: true }));
      checked.push(...cut(input, sizes));
      expect(checked.violation).toBeNull();

      const seen: string[] = [];
      let pieces: Buffer[] = [];
      for (const frame of checked.frames.filter(({ opcode }) => opcode < 0x8)) {
        expect(frame.rsv1).toBe(frame.opcode !== 0x0);
        pieces.push(frame.payload);
        if (!frame.fin) continue;
        seen.push(digest(inflated(Buffer.concat(pieces))));
        pieces = [];
      }
      expect(seen).toEqual(MESSAGES.flatMap((one) => [digest(one), digest(one)]));
    },
  );

  test("made by `ws` with a shared context are read by `ws`", async () => {
    const fromClient = direction === "clientToUpstream";
    const sender = new PerMessageDeflate({ isServer: !fromClient, maxPayload: 0, threshold: 0 });
    const receiver = new PerMessageDeflate({ isServer: fromClient, maxPayload: 0, threshold: 0 });
    sender.accept([{}]);
    receiver.accept([{}]);
    const mask = fromClient ? hex("ca fe ba be") : null;
    const frames: Buffer[] = [];
    // Each twice: the second refers to the first, and shrinks to almost nothing.
    for (const message of MESSAGES.flatMap((one) => [one, one])) {
      const payload = await new Promise<Buffer>((resolve, reject) => {
        sender.compress(message, true, (error, result) => {
          if (error === null) resolve(Buffer.from(result));
          else reject(error);
        });
      });
      frames.push(buildFrame({ opcode: 0x2, rsv1: true, payload, mask }));
    }
    const checked = new CheckedRelay(relayOptions(direction, { deflate: true }));
    checked.push(...cut(Buffer.concat(frames), [10_000, 3]));

    const seen = await readWithWs(checked.output, direction, receiver);
    expect(seen).toEqual(MESSAGES.flatMap((one) => Array(2).fill(`binary ${digest(one)}`)));
    sender.cleanup();
    receiver.cleanup();
  });
});
