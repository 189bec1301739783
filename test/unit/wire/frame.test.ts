import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  makeCloseFrame,
  makeFrame,
  OPCODE_CLOSE,
  OPCODE_PING,
  OPCODE_PONG,
  OPCODE_TEXT,
} from "../../../src/wire/frame.ts";
import {
  applyMask,
  buildFrame,
  closePayload,
  hex,
  readFrames,
  splitFrames,
  toHex,
} from "../../support/frames.ts";

describe("A frame of the gateway's own", () => {
  test.each([
    ["an empty ping", OPCODE_PING, "", "89 00"],
    ["a ping", OPCODE_PING, "Hello", "89 05 48 65 6c 6c 6f"],
    ["a pong", OPCODE_PONG, "Hello", "8a 05 48 65 6c 6c 6f"],
    ["a text message", OPCODE_TEXT, "Hello", "81 05 48 65 6c 6c 6f"],
  ])("%s to a client is not masked", (_title, opcode, payload, bytes) => {
    expect(toHex(makeFrame(opcode, Buffer.from(payload), false))).toBe(bytes);
  });

  test("to an upstream is masked, with another key each time, and leaves its payload alone", () => {
    const payload = Buffer.from("Hello");
    const keys = new Set<string>();
    for (let i = 0; i < 20; i += 1) {
      const [frame] = readFrames(makeFrame(OPCODE_PING, payload, true));
      expect(frame?.payload.toString()).toBe("Hello");
      expect(frame?.mask).not.toBeNull();
      keys.add(frame?.mask?.toString("hex") ?? "");
    }
    expect(keys.size).toBeGreaterThan(15);
    expect(payload.toString()).toBe("Hello");
  });

  test.each([0, 1, 125, 126, 127, 65_535, 65_536, 70_000])("of %i bytes is one buffer", (size) => {
    const payload = Buffer.alloc(size, 0x61);
    for (const masked of [false, true]) {
      const [frame, ...more] = readFrames(makeFrame(OPCODE_TEXT, payload, masked));
      expect(more).toEqual([]);
      expect(frame).toMatchObject({ fin: true, rsv1: false, rsv2: false, rsv3: false, opcode: 1 });
      expect(frame?.mask === null).toBe(!masked);
      expect(frame?.lengthForm).toBe(size < 126 ? 7 : size < 65_536 ? 16 : 64);
      expect(frame?.payload.equals(payload)).toBe(true);
    }
  });
});

describe("A Close frame", () => {
  test.each([
    ["without code is empty", 1005, "", "88 00"],
    ["without code has no reason either", 1005, "lost", "88 00"],
    ["with a code", 1000, "", "88 02 03 e8"],
    ["with a code and a reason", 1013, "busy", "88 06 03 f5 62 75 73 79"],
    ["with the highest code", 4999, "€", "88 05 13 87 e2 82 ac"],
  ])("%s", (_title, code, reason, bytes) => {
    expect(toHex(makeCloseFrame({ code, reason }, false))).toBe(bytes);
    const [frame] = readFrames(makeCloseFrame({ code, reason }, true));
    expect(frame?.opcode).toBe(OPCODE_CLOSE);
    expect(frame?.mask).not.toBeNull();
    expect(toHex(frame?.payload ?? hex("00"))).toBe(toHex(hex(bytes).subarray(2)));
  });

  test("takes a reason of 123 bytes", () => {
    const bytes = makeCloseFrame({ code: 1001, reason: "a".repeat(123) }, false);
    expect(bytes.length).toBe(127);
    expect(bytes[1]).toBe(125);
  });
});

describe("The frame builder of the tests", () => {
  test.each([
    ["an unmasked text message", { opcode: 1, payload: "Hello" }, "81 05 48 65 6c 6c 6f"],
    [
      "a masked text message",
      { opcode: 1, payload: "Hello", mask: hex("37 fa 21 3d") },
      "81 85 37 fa 21 3d 7f 9f 4d 51 58",
    ],
    ["a first fragment", { opcode: 1, fin: false, payload: "Hel" }, "01 03 48 65 6c"],
    ["a last fragment", { opcode: 0, payload: "lo" }, "80 02 6c 6f"],
    ["reserved bits", { opcode: 2, rsv1: true, rsv2: true, rsv3: true }, "f2 00"],
    [
      "a length in 16 bits",
      { opcode: 2, payload: hex("00"), lengthForm: 16 as const },
      "82 7e 00 01 00",
    ],
    [
      "a length in 64 bits",
      { opcode: 2, payload: hex("00"), lengthForm: 64 as const },
      "82 7f 00 00 00 00 00 00 00 01 00",
    ],
    [
      "a length that is a lie",
      { opcode: 2, announcedLength: 2n ** 63n },
      "82 7f 80 00 00 00 00 00 00 00",
    ],
    ["a Close", { opcode: 8, payload: closePayload(1000, "ok") }, "88 04 03 e8 6f 6b"],
  ])("writes %s as RFC 6455 §5.7 does", (_title, spec, bytes) => {
    expect(toHex(buildFrame(spec))).toBe(bytes);
  });

  test("reads back what it wrote, and says what is torn", () => {
    fc.assert(
      fc.property(
        fc.record({
          fin: fc.boolean(),
          rsv1: fc.boolean(),
          rsv2: fc.boolean(),
          rsv3: fc.boolean(),
          opcode: fc.nat(15),
          mask: fc.option(fc.uint8Array({ minLength: 4, maxLength: 4 })),
          payload: fc.uint8Array({ maxLength: 300 }),
        }),
        fc.nat(),
        (spec, cutAt) => {
          const bytes = buildFrame(spec);
          const [frame] = readFrames(Buffer.concat([bytes, bytes]));
          expect(frame).toMatchObject({
            ...spec,
            mask: spec.mask === null ? null : Buffer.from(spec.mask),
            payload: Buffer.from(spec.payload),
            raw: bytes,
          });
          const torn = Buffer.concat([bytes, bytes.subarray(0, 1 + (cutAt % (bytes.length - 1)))]);
          expect(() => readFrames(torn)).toThrow(/torn frame/);
          expect(splitFrames(torn).frames).toHaveLength(1);
        },
      ),
    );
  });

  test("masks and unmasks alike", () => {
    const key = hex("01 02 03 04");
    const payload = Buffer.from("masked");
    expect(applyMask(applyMask(payload, key), key).equals(payload)).toBe(true);
  });

  test("refuses digits that are not hexadecimal", () => {
    expect(() => hex("8")).toThrow(/not hexadecimal/);
    expect(() => hex("8g")).toThrow(/not hexadecimal/);
  });
});
