import { Buffer } from "node:buffer";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { isLegalOnTheWire, parseClosePayload } from "../../../src/wire/close-payload.ts";
import { closePayload, hex } from "../../support/frames.ts";

describe("The payload of a Close", () => {
  test.each([
    ["nothing", "", { code: 1005, reason: "" }],
    ["a code", "03 e8", { code: 1000, reason: "" }],
    ["a code and a reason", "03 e9 62 79 65", { code: 1001, reason: "bye" }],
    ["a reason beyond ASCII", "0f a0 f0 9f 91 8b", { code: 4000, reason: "👋" }],
    ["a reason with NUL", "0b b8 00", { code: 3000, reason: "\0" }],
    [
      "a byte order mark, which is part of the reason",
      "03 e8 ef bb bf 61",
      { code: 1000, reason: "\ufeffa" },
    ],
  ])("may be %s", (_title, payload, close) => {
    expect(parseClosePayload(hex(payload))).toEqual(close);
  });

  test.each([
    ["1 byte", "03", "Close payload of 1 byte"],
    ["code 0", "00 00", "Close code 0 is not allowed on the wire"],
    ["code 1006", "03 ee", "Close code 1006 is not allowed on the wire"],
    ["code 1015 with a reason", "03 f7 61", "Close code 1015 is not allowed on the wire"],
    ["code 2999", "0b b7", "Close code 2999 is not allowed on the wire"],
    ["code 5000", "13 88", "Close code 5000 is not allowed on the wire"],
    [
      "an illegal code before an illegal reason",
      "03 ee ff",
      "Close code 1006 is not allowed on the wire",
    ],
    ["a lone continuation byte", "03 e8 80", "Close reason is not UTF-8"],
    ["half a character", "03 e8 61 e2 82", "Close reason is not UTF-8"],
    ["an overlong form", "03 e8 c0 80", "Close reason is not UTF-8"],
    ["a surrogate", "03 e8 ed a0 80", "Close reason is not UTF-8"],
    ["beyond U+10FFFF", "03 e8 f4 90 80 80", "Close reason is not UTF-8"],
    ["a byte of no form", "03 e8 ff", "Close reason is not UTF-8"],
  ])("may not be %s", (_title, payload, violation) => {
    expect(parseClosePayload(hex(payload))).toEqual({ violation });
  });

  test("gives back the code and reason that were written", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 3000, max: 4999 }),
        fc.string({ unit: "grapheme", maxLength: 40 }),
        (code, reason) => {
          expect(parseClosePayload(closePayload(code, reason))).toEqual({ code, reason });
        },
      ),
    );
  });

  test("is a Close or a violation, whatever the bytes", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 125 }), fc.boolean(), (bytes, behindCode) => {
        const payload = behindCode ? closePayload(1000, bytes) : Buffer.from(bytes);
        const close = parseClosePayload(payload);
        if ("violation" in close) return;
        const back = close.code === 1005 ? Buffer.alloc(0) : closePayload(close.code, close.reason);
        expect(back.equals(payload)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });
});

describe("A code is legal on the wire", () => {
  test("from 1000 to 1003, 1007 to 1014 and 3000 to 4999, and nowhere else", () => {
    const ranges: [number, number][] = [];
    for (let code = 0; code <= 0xffff; code += 1) {
      if (!isLegalOnTheWire(code)) continue;
      const last = ranges.at(-1);
      if (last !== undefined && last[1] === code - 1) last[1] = code;
      else ranges.push([code, code]);
    }
    expect(ranges).toEqual([
      [1000, 1003],
      [1007, 1014],
      [3000, 4999],
    ]);
  });
});
