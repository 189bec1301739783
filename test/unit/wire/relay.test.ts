import { describe, expect, test } from "vitest";
import type { Direction, RelayOptions, Violation } from "../../../src/wire/relay.ts";
import { hex, toHex } from "../../support/frames.ts";
import { CheckedRelay, relayOptions } from "./relay-harness.ts";

type Way = "up" | "down" | "both";

interface BadCase {
  readonly title: string;
  /** Bytes from the upstream, unmasked; those from a client follow from them by `masked`. */
  readonly bytes: string;
  readonly way?: Way;
  readonly deflate?: boolean;
  readonly detail: string;
  readonly kind?: Violation["kind"];
  /** Frames before the bad one that must come through. Default: a text message and a ping. */
  readonly before?: string;
}

const DIRECTIONS: readonly Direction[] = ["clientToUpstream", "upstreamToClient"];
const KEY = "01 02 03 04";
/** "hi", and an empty ping. */
const GOOD = "81 02 68 69 89 00";
const GOOD_MASKED = `81 82 ${KEY} 69 6b 89 80 ${KEY}`;
/** The first fragment of a text message. */
const START = "01 01 61";
const START_MASKED = `01 81 ${KEY} 60`;

const RESERVED = "reserved opcode";
const RSV = "RSV bit that was not negotiated";
const NOT_SHORTEST = "payload length not in its shortest form";

const reservedOpcodes = [3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf].map((opcode): BadCase => {
  const first = (0x80 + opcode).toString(16);
  return {
    title: `opcode 0x${opcode.toString(16)}`,
    bytes: `${first} 00`,
    detail: RESERVED,
  };
});

const rsvBits: BadCase[] = [
  { title: "RSV1 on text without deflate", bytes: "c1 00", detail: RSV },
  { title: "RSV1 on binary without deflate", bytes: "c2 00", detail: RSV },
  { title: "RSV1 on a first fragment without deflate", bytes: "41 00", detail: RSV },
  ...[false, true].flatMap((deflate): BadCase[] => {
    const name = deflate ? "with deflate" : "without deflate";
    return [
      { title: `RSV2 on text ${name}`, bytes: "a1 00", deflate, detail: RSV },
      { title: `RSV3 on text ${name}`, bytes: "91 00", deflate, detail: RSV },
      { title: `RSV1 and RSV2 on binary ${name}`, bytes: "e2 00", deflate, detail: RSV },
      { title: `RSV1 and RSV3 on binary ${name}`, bytes: "d2 00", deflate, detail: RSV },
      { title: `RSV1 on a ping ${name}`, bytes: "c9 00", deflate, detail: RSV },
      { title: `RSV2 on a ping ${name}`, bytes: "a9 00", deflate, detail: RSV },
      { title: `RSV3 on a pong ${name}`, bytes: "9a 00", deflate, detail: RSV },
      { title: `RSV1 on a Close ${name}`, bytes: "c8 00", deflate, detail: RSV },
      {
        title: `RSV1 on a continuation ${name}`,
        bytes: "c0 00",
        deflate,
        detail: RSV,
        before: START,
      },
      {
        title: `RSV2 on a continuation ${name}`,
        bytes: "a0 00",
        deflate,
        detail: RSV,
        before: START,
      },
      {
        title: `RSV3 on a continuation ${name}`,
        bytes: "90 00",
        deflate,
        detail: RSV,
        before: START,
      },
    ];
  }),
];

const LONG_CONTROL = "control frame longer than 125 bytes";
const controls: BadCase[] = [
  { title: "a ping of 126 bytes", bytes: "89 7e 00 7e", detail: LONG_CONTROL },
  { title: "a pong of 126 bytes", bytes: "8a 7e 00 7e", detail: LONG_CONTROL },
  { title: "a Close of 126 bytes", bytes: "88 7e 00 7e", detail: LONG_CONTROL },
  { title: "a ping with a 64-bit length", bytes: "89 7f 00", detail: LONG_CONTROL },
  { title: "a ping without FIN", bytes: "09 00", detail: "control frame without FIN" },
  { title: "a pong without FIN", bytes: "0a 00", detail: "control frame without FIN" },
  { title: "a Close without FIN", bytes: "08 00", detail: "control frame without FIN" },
];

const NO_START = "continuation frame without a start";
const INSIDE = "new message inside an unfinished one";
const order: BadCase[] = [
  {
    title: "a continuation with no message before it",
    bytes: "80 00",
    before: "",
    detail: NO_START,
  },
  { title: "a continuation after a whole message", bytes: "80 00", detail: NO_START },
  { title: "an unfinished continuation after a whole message", bytes: "00 00", detail: NO_START },
  {
    title: "a continuation after the last one",
    bytes: "80 00",
    before: `${START} 80 00`,
    detail: NO_START,
  },
  { title: "text inside a message", bytes: "81 00", before: START, detail: INSIDE },
  { title: "binary inside a message", bytes: "82 00", before: START, detail: INSIDE },
  { title: "a first fragment inside a message", bytes: "01 00", before: START, detail: INSIDE },
  {
    title: "text behind a ping inside a message",
    bytes: "81 00",
    before: `${START} 89 00`,
    detail: INSIDE,
  },
];

const TOP_BIT = "payload length with the top bit set";
const TOO_BIG = "message exceeds limits.maxMessageSize";
const lengths: BadCase[] = [
  { title: "a 16-bit length of 0", bytes: "82 7e 00 00", detail: NOT_SHORTEST },
  { title: "a 16-bit length of 125", bytes: "82 7e 00 7d", detail: NOT_SHORTEST },
  { title: "a 64-bit length of 0", bytes: "82 7f 0000000000000000", detail: NOT_SHORTEST },
  { title: "a 64-bit length of 126", bytes: "82 7f 000000000000007e", detail: NOT_SHORTEST },
  { title: "a 64-bit length of 65535", bytes: "82 7f 000000000000ffff", detail: NOT_SHORTEST },
  { title: "a length with the top bit set", bytes: "82 7f 8000000000000000", detail: TOP_BIT },
  { title: "a length of all ones", bytes: "82 7f ffffffffffffffff", detail: TOP_BIT },
  {
    title: "a length of 2^53",
    bytes: "82 7f 0020000000000000",
    detail: TOO_BIG,
    kind: "messageTooBig",
  },
  {
    title: "a length of 2^63 - 1",
    bytes: "82 7f 7fffffffffffffff",
    detail: TOO_BIG,
    kind: "messageTooBig",
  },
];

const NOT_UTF8 = "Close reason is not UTF-8";
const closes: BadCase[] = [
  { title: "a Close of 1 byte", bytes: "88 01 03", detail: "Close payload of 1 byte" },
  { title: "code 1005", bytes: "88 02 03ed", detail: "Close code 1005 is not allowed on the wire" },
  { title: "code 999", bytes: "88 02 03e7", detail: "Close code 999 is not allowed on the wire" },
  { title: "a reason of one continuation byte", bytes: "88 03 03e8 80", detail: NOT_UTF8 },
  { title: "a reason cut inside a character", bytes: "88 04 03e8 e282", detail: NOT_UTF8 },
  { title: "an overlong reason", bytes: "88 04 03e8 c0af", detail: NOT_UTF8 },
  { title: "a surrogate in the reason", bytes: "88 05 03e8 eda080", detail: NOT_UTF8 },
];

const CASES = [...reservedOpcodes, ...rsvBits, ...controls, ...order, ...lengths, ...closes];

/** Masks one hex-literal frame, or the front of one, under KEY. */
function masked(bytes: string): Buffer {
  const frame = hex(bytes);
  const length = (frame[1] ?? 0) & 0x7f;
  const headerBytes = length < 126 ? 2 : length === 126 ? 4 : 10;
  const key = hex(KEY);
  const header = Buffer.from(frame.subarray(0, headerBytes));
  header[1] = (header[1] ?? 0) | 0x80;
  const payload = frame.subarray(headerBytes).map((byte, i) => byte ^ (key[i % 4] ?? 0));
  return Buffer.concat([header, key, payload]);
}

function maskedBefore(before: string): Buffer {
  return hex(
    before
      .replace(GOOD, GOOD_MASKED)
      .replace(START, START_MASKED)
      .replace(" 80 00", ` 80 80 ${KEY}`)
      .replace(/ 89 00$/, ` 89 80 ${KEY}`),
  );
}

interface Stream {
  readonly title: string;
  readonly options: RelayOptions;
  readonly before: Buffer;
  readonly bad: Buffer;
  readonly violation: Violation;
}

const STREAMS: Stream[] = [
  ...CASES.flatMap((one) =>
    DIRECTIONS.map((direction): Stream => {
      const fromClient = direction === "clientToUpstream";
      const before = one.before ?? GOOD;
      return {
        title: `${one.title} from ${fromClient ? "a client" : "an upstream"}`,
        options: relayOptions(direction, { deflate: one.deflate ?? false }),
        before: fromClient ? maskedBefore(before) : hex(before),
        bad: fromClient ? masked(one.bytes) : hex(one.bytes),
        violation: { kind: one.kind ?? "protocol", detail: one.detail },
      };
    }),
  ),
  ...["81 00", "82 02 68 69", "89 00", "8a 00", "88 00", "81 7e"].map(
    (bytes): Stream => ({
      title: `an unmasked frame (${bytes}) from a client`,
      options: relayOptions("clientToUpstream"),
      before: hex(GOOD_MASKED),
      bad: hex(bytes),
      violation: { kind: "protocol", detail: "frame from a client is not masked" },
    }),
  ),
  ...["81 80", "82 82", "89 80", "8a 80", "88 80", "81 fe"].map(
    (bytes): Stream => ({
      title: `a masked frame (${bytes}) from an upstream`,
      options: relayOptions("upstreamToClient"),
      before: hex(GOOD),
      bad: hex(bytes),
      violation: { kind: "protocol", detail: "frame from an upstream is masked" },
    }),
  ),
];

describe("A relay refuses", () => {
  test.each(STREAMS)("$title, after it has forwarded what came before", (stream) => {
    const whole = Buffer.concat([stream.before, stream.bad, hex("81 00 81 80 00 00 00 00")]);
    const relay = new CheckedRelay(stream.options).push(whole);
    expect(relay.violation).toEqual(stream.violation);
    expect(toHex(relay.output)).toBe(toHex(stream.before));
    expect(relay.close).toBeNull();
    expect(relay.relay.heldBytes).toBe(0);
  });

  test.each(STREAMS)("$title, wherever the bytes are cut", (stream) => {
    const bytes = Buffer.concat([stream.before, stream.bad]);
    for (let at = 0; at <= bytes.length; at += 1) {
      const relay = new CheckedRelay(stream.options);
      relay.push(bytes.subarray(0, at), bytes.subarray(at));
      expect(relay.violation, `cut at ${at}`).toEqual(stream.violation);
      expect(toHex(relay.output), `cut at ${at}`).toBe(toHex(stream.before));
    }
    const byteByByte = new CheckedRelay(stream.options);
    for (const byte of bytes) byteByByte.push(Uint8Array.of(byte));
    expect(byteByByte.violation).toEqual(stream.violation);
    expect(toHex(byteByByte.output)).toBe(toHex(stream.before));
  });
});

describe("A relay lets pass", () => {
  test.each([
    ["RSV1 on text", "c1 01 00"],
    ["RSV1 on binary", "c2 01 00"],
    ["RSV1 on the first fragment only", "41 01 00 80 00"],
    ["text without RSV1", "81 01 61"],
  ])("%s when deflate was negotiated", (_title, bytes) => {
    const relay = new CheckedRelay(relayOptions("upstreamToClient", { deflate: true }));
    relay.push(hex(bytes));
    expect(relay.violation).toBeNull();
    expect(toHex(relay.output)).toBe(toHex(hex(bytes)));
  });

  test.each([
    ["a control frame of 125 bytes", `89 7d ${"00".repeat(125)}`],
    ["a 16-bit length of 126", `82 7e 00 7e ${"00".repeat(126)}`],
    ["pings between fragments", "01 01 61 89 00 00 00 8a 00 80 01 62"],
    ["text that is not UTF-8, which is for the ends to judge", "81 01 ff"],
  ])("%s", (_title, bytes) => {
    const relay = new CheckedRelay(relayOptions("upstreamToClient")).push(hex(bytes));
    expect(relay.violation).toBeNull();
    expect(toHex(relay.output)).toBe(toHex(hex(bytes)));
  });

  test("the header of a frame of 2^53 - 1 bytes when there is no limit", () => {
    const relay = new CheckedRelay(relayOptions("upstreamToClient"));
    relay.push(hex("82 7f 001fffffffffffff"), Buffer.alloc(20_000));
    expect(relay.violation).toBeNull();
    expect(relay.frames.map((frame) => frame.payload.length)).toEqual([20_000]);
    expect(relay.frames[0]?.fin).toBe(false);
  });
});

describe("A Close", () => {
  test.each(DIRECTIONS)("%s with any code of 0 to 65535 is a Close or a violation", (direction) => {
    const legal: number[] = [];
    for (let code = 0; code <= 0xffff; code += 1) {
      const bytes = Buffer.from([0x88, 2, code >> 8, code & 0xff]);
      const relay = new CheckedRelay(relayOptions(direction));
      relay.relay.push(direction === "clientToUpstream" ? masked(toHex(bytes)) : bytes);
      if (relay.close !== null && relay.close.code === code) legal.push(code);
      else if (relay.violation?.detail !== `Close code ${code} is not allowed on the wire`) {
        throw new Error(`code ${code}: ${JSON.stringify(relay.violation)}`);
      }
    }
    expect(legal.slice(0, 12)).toEqual([
      1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014,
    ]);
    expect(legal.slice(12)).toEqual(Array.from({ length: 2000 }, (_, i) => 3000 + i));
  });

  test.each([
    ["without payload is code 1005", "88 00", { code: 1005, reason: "" }],
    ["with a code alone has no reason", "88 02 03 e8", { code: 1000, reason: "" }],
    ["with a reason keeps it", "88 05 0f a0 e2 82 ac", { code: 4000, reason: "€" }],
    [
      "of 125 bytes is whole",
      `88 7d 03 e9 ${"61".repeat(123)}`,
      { code: 1001, reason: "a".repeat(123) },
    ],
  ])("%s, is not forwarded, and ends the stream", (_title, bytes, close) => {
    for (const direction of DIRECTIONS) {
      const fromClient = direction === "clientToUpstream";
      const frame = fromClient ? masked(bytes) : hex(bytes);
      const before = fromClient ? hex(GOOD_MASKED) : hex(GOOD);
      const relay = new CheckedRelay(relayOptions(direction));
      relay.push(Buffer.concat([before, frame, before]), before);
      expect(relay.close).toEqual(close);
      expect(toHex(relay.output)).toBe(toHex(before));
      expect(relay.violation).toBeNull();
    }
  });

  test("between fragments is taken at once", () => {
    const relay = new CheckedRelay(relayOptions("upstreamToClient"));
    relay.push(hex("01 01 61 88 02 03 e8"));
    expect(relay.close).toEqual({ code: 1000, reason: "" });
    expect(relay.relay.midMessage).toBe(true);
  });
});
