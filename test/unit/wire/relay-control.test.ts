import { describe, expect, test } from "vitest";
import { type Direction, HOLD_LIMIT_BYTES, MIN_FRAGMENT_BYTES } from "../../../src/wire/relay.ts";
import { buildFrame, closePayload, hex, toHex } from "../../support/frames.ts";
import { CheckedRelay, cut, relayOptions } from "./relay-harness.ts";

const TEXT = hex("81 02 68 69");
const START = hex("01 01 61");
const MIDDLE = hex("00 01 62");
const END = hex("80 01 63");
const CLOSE = hex("88 02 03 e8");
const LONG = buildFrame({ opcode: 0x2, payload: Buffer.alloc(100_000, 0x5a) });
const LONG_HEADER_BYTES = 10;

const down = (options = {}): CheckedRelay =>
  new CheckedRelay(relayOptions("upstreamToClient", options));
const up = (options = {}): CheckedRelay =>
  new CheckedRelay(relayOptions("clientToUpstream", options));

describe("A relay that discards", () => {
  test("forwards nothing, counts lost messages, and still reads the Close", () => {
    const checked = down().push(TEXT);
    checked.relay.discard();
    checked.push(Buffer.concat([TEXT, START, MIDDLE, hex("89 00"), END]), LONG, CLOSE);
    expect(toHex(checked.output)).toBe(toHex(TEXT));
    expect(checked.relay.messages).toBe(1);
    expect(checked.relay.bytes).toBe(TEXT.length);
    expect(checked.relay.droppedMessages).toBe(3);
    expect(checked.close).toEqual({ code: 1000, reason: "" });
  });

  test("counts the message that it was in the middle of once", () => {
    const checked = down().push(START);
    checked.relay.discard();
    checked.relay.discard();
    expect(checked.relay.droppedMessages).toBe(1);
    checked.push(MIDDLE, END);
    expect(checked.relay.droppedMessages).toBe(1);
    expect(checked.relay.messages).toBe(0);
    checked.push(TEXT);
    expect(checked.relay.droppedMessages).toBe(2);
  });

  test("counts a message of which it held a part, when its end arrives", () => {
    const checked = down().push(TEXT.subarray(0, 3));
    checked.relay.discard();
    expect(checked.relay.droppedMessages).toBe(0);
    checked.push(TEXT.subarray(3));
    expect(checked.relay.droppedMessages).toBe(1);
    expect(checked.calls).toEqual([]);
  });

  test.each([
    ["has been forwarded in part", LONG_HEADER_BYTES + 2 * MIN_FRAGMENT_BYTES],
    ["is held, with less than a fragment there", LONG_HEADER_BYTES + 10],
    ["has shown its header only", LONG_HEADER_BYTES],
  ])("counts a long frame that %s once", (_title, at) => {
    const checked = down().push(LONG.subarray(0, at));
    const before = checked.frames.length;
    checked.relay.discard();
    checked.push(LONG.subarray(at), TEXT);
    expect(checked.relay.droppedMessages).toBe(2);
    expect(checked.relay.messages).toBe(0);
    expect(checked.frames.length).toBe(before);
    expect(checked.relay.heldBytes).toBe(0);
  });

  test("still reports a violation", () => {
    const checked = down();
    checked.relay.discard();
    checked.push(TEXT, hex("83 00"));
    expect(checked.violation?.detail).toBe("reserved opcode");
    expect(checked.relay.droppedMessages).toBe(1);
  });

  test("obeys from inside a call of the sink, in the middle of a chunk", () => {
    const checked = down();
    checked.onForward = () => checked.relay.discard();
    checked.push(Buffer.concat([TEXT, LONG, TEXT]));
    expect(toHex(checked.output)).toBe(toHex(TEXT));
    expect(checked.relay.messages).toBe(1);
    expect(checked.relay.droppedMessages).toBe(2);
  });
});

describe("A stopped relay", () => {
  test("ignores everything and holds nothing", () => {
    const checked = down().push(TEXT, TEXT.subarray(0, 3));
    expect(checked.relay.heldBytes).toBe(3);
    checked.relay.stop();
    expect(checked.relay.heldBytes).toBe(0);
    checked.push(TEXT.subarray(3), TEXT, CLOSE, hex("83 00"));
    checked.relay.discard();
    expect(toHex(checked.output)).toBe(toHex(TEXT));
    expect(checked.close).toBeNull();
    expect(checked.violation).toBeNull();
    expect(checked.relay.droppedMessages).toBe(0);
  });

  test.each([
    ["a Close", CLOSE],
    ["a violation", hex("83 00")],
    ["part of a frame", TEXT.subarray(0, 3)],
    ["the header of a long frame", LONG.subarray(0, LONG_HEADER_BYTES)],
    ["a long frame", LONG],
    ["an own pong between frames", Buffer.concat([hex("8a 01 6f"), TEXT])],
  ])("stays so when it was stopped inside a call of the sink, before %s", (_title, next) => {
    const checked = down();
    checked.ownPong = "o";
    checked.onForward = () => checked.relay.stop();
    checked.push(Buffer.concat([TEXT, next]), TEXT);
    expect(checked.relay.heldBytes).toBe(0);
    expect(toHex(checked.output)).toBe(toHex(TEXT));
    expect(checked.close).toBeNull();
    expect(checked.violation).toBeNull();
  });

  test("stays so when it was stopped inside the last fragment of a long frame", () => {
    const checked = down();
    checked.onForward = () => checked.relay.stop();
    checked.push(Buffer.concat([LONG, TEXT]), TEXT);
    expect(checked.frames.length).toBe(1);
    expect(checked.relay.messages).toBe(1);
  });

  test("calls nobody when it was stopped while a pong was looked at", () => {
    const checked = down();
    checked.takePong = () => {
      checked.relay.stop();
      return false;
    };
    checked.push(Buffer.concat([hex("8a 00"), hex("83 00")]));
    expect(checked.calls).toEqual([]);
    expect(checked.violation).toBeNull();
  });

  test("swallows nothing more when it was stopped inside the call before", () => {
    const checked = down({ swallow: 1 });
    checked.onForward = () => checked.relay.stop();
    checked.push(Buffer.concat([hex("89 00"), TEXT]));
    expect(checked.frames.length).toBe(1);
    expect(checked.swallows).toBe(0);
  });

  test("still says whether a message was left unfinished", () => {
    const inFragments = down().push(START);
    inFragments.relay.stop();
    expect(inFragments.relay.midMessage).toBe(true);
    const inLongFrame = down().push(LONG.subarray(0, 50_000));
    inLongFrame.relay.stop();
    expect(inLongFrame.relay.midMessage).toBe(true);
    const between = down().push(TEXT);
    between.relay.stop();
    expect(between.relay.midMessage).toBe(false);
  });
});

describe("midMessage", () => {
  test("is true from the first forwarded fragment to the one with FIN", () => {
    const checked = down();
    const steps: [Buffer, boolean][] = [
      [TEXT, false],
      [START.subarray(0, 2), false],
      [START.subarray(2), true],
      [hex("89 00"), true],
      [MIDDLE, true],
      [END.subarray(0, 1), true],
      [END.subarray(1), false],
    ];
    for (const [bytes, expected] of steps) {
      const { midMessage } = checked.push(bytes).relay;
      expect(midMessage, `behind ${toHex(bytes)}`).toBe(expected);
    }
  });

  test("is true in a long frame only once a part of it has been forwarded", () => {
    const checked = down();
    const parts = cut(LONG, [
      LONG_HEADER_BYTES,
      MIN_FRAGMENT_BYTES - 1,
      1,
      LONG.length - LONG_HEADER_BYTES - MIN_FRAGMENT_BYTES - 1,
      1,
    ]);
    const seen = parts.map((part) => checked.push(part).relay.midMessage);
    expect(seen).toEqual([false, false, true, true, false]);
  });

  test("stays true behind a long first fragment", () => {
    const long = buildFrame({ opcode: 0x2, fin: false, payload: Buffer.alloc(70_000) });
    const checked = down().push(long);
    expect(checked.relay.midMessage).toBe(true);
    expect(checked.push(END).relay.midMessage).toBe(false);
    expect(checked.relay.messages).toBe(1);
  });
});

describe("A pong of the gateway's own", () => {
  const OWN = hex("8a 01 6f");
  const OTHER = hex("8a 01 78");

  test.each([1, 2, 3, 5, 1000])(
    "is swallowed and leaves its neighbours intact, in chunks of %i",
    (size) => {
      const checked = down();
      checked.ownPong = "o";
      const bytes = [TEXT, OWN, OTHER, START, OWN, OWN, MIDDLE, hex("89 00"), END, OWN];
      checked.push(...cut(Buffer.concat(bytes), [size]));
      const passed = bytes.filter((frame) => frame !== OWN);
      expect(toHex(checked.output)).toBe(toHex(Buffer.concat(passed)));
      expect(checked.pongs).toEqual(["6f", "78", "6f", "6f", "6f"]);
      expect(checked.relay.bytes).toBe(checked.output.length);
      expect(checked.relay.messages).toBe(2);
    },
  );

  test("is shown unmasked when a client sent it, and another one passes masked as it came", () => {
    const mask = hex("a1 b2 c3 d4");
    const own = buildFrame({ opcode: 0xa, payload: "own!!", mask });
    const other = buildFrame({ opcode: 0xa, payload: "other", mask });
    for (const size of [1, 4, 7, 1000]) {
      const checked = up();
      checked.ownPong = "own!!";
      checked.push(...cut(Buffer.concat([other, own, other]), [size]));
      expect(checked.pongs.map((pong) => hex(pong).toString())).toEqual([
        "other",
        "own!!",
        "other",
      ]);
      expect(toHex(checked.output)).toBe(toHex(Buffer.concat([other, other])));
    }
  });

  test("is looked for while the relay discards, too", () => {
    const checked = down();
    checked.relay.discard();
    checked.push(OWN);
    expect(checked.pongs).toEqual(["6f"]);
  });
});

describe.each<Direction>(["clientToUpstream", "upstreamToClient"])("The size limit %s", (way) => {
  const mask = way === "clientToUpstream" ? hex("01 02 03 04") : null;
  const frame = (opcode: number, fin: boolean, size: number): Buffer =>
    buildFrame({ opcode, fin, payload: Buffer.alloc(size), mask });
  const limited = (maxMessageBytes: number): CheckedRelay =>
    new CheckedRelay(relayOptions(way, { maxMessageBytes }));

  test.each([1, 125, 126, 1000, 65_536, 65_537, 200_000])("lets %i bytes pass, exactly", (size) => {
    const checked = limited(size).push(frame(0x2, true, size), frame(0x2, true, size));
    expect(checked.violation).toBeNull();
    expect(checked.relay.messages).toBe(2);
  });

  test.each([1, 125, 126, 1000, 65_536, 65_537, 200_000])(
    "of %i bytes refuses one more at the header, before any payload",
    (size) => {
      const bytes = frame(0x2, true, size + 1);
      const checked = limited(size).push(bytes.subarray(0, bytes.length - size - 1));
      expect(checked.violation?.kind).toBe("messageTooBig");
      expect(checked.calls).toEqual([]);
    },
  );

  test("counts all fragments of a message, and starts anew with the next", () => {
    const message = [frame(0x1, false, 40), frame(0x9, true, 125), frame(0x0, false, 0)];
    const checked = limited(100).push(...message, frame(0x0, true, 60));
    checked.push(...message, frame(0x0, true, 60));
    expect(checked.violation).toBeNull();
    expect(checked.relay.messages).toBe(2);
    const tooBig = frame(0x0, true, 61);
    checked.push(...message, tooBig.subarray(0, tooBig.length - 61));
    expect(checked.violation).toEqual({
      kind: "messageTooBig",
      detail: "message exceeds limits.maxMessageSize",
    });
    expect(checked.relay.messages).toBe(2);
    expect(checked.relay.midMessage).toBe(true);
  });

  test("counts a long fragment that went out in pieces once", () => {
    const checked = limited(100_000).push(...cut(frame(0x1, false, 99_999), [20_000]));
    expect(checked.push(frame(0x0, false, 1)).violation).toBeNull();
    expect(checked.push(frame(0x0, true, 1)).violation?.kind).toBe("messageTooBig");
  });

  test("does not count control frames", () => {
    const checked = limited(10).push(frame(0x9, true, 125), frame(0x2, true, 10));
    expect(checked.violation).toBeNull();
  });
});

/** A limiter that lets `count` messages pass. */
function allowing(count: number): { taken: number; take(): boolean } {
  return {
    taken: 0,
    take() {
      this.taken += 1;
      return this.taken <= count;
    },
  };
}

describe("The message limiter", () => {
  test("is asked once for each message, whatever its fragments", () => {
    const limiter = allowing(10);
    const checked = down({ limiter });
    for (const byte of Buffer.concat([TEXT, hex("89 00"), START, MIDDLE, END])) {
      checked.push(Uint8Array.of(byte));
    }
    checked.push(...cut(LONG, [1448]), TEXT);
    expect(limiter.taken).toBe(4);
    expect(checked.relay.messages).toBe(4);
  });

  test.each([
    ["short", TEXT],
    ["fragmented", START],
    ["long", LONG],
  ])("refuses the start of a %s message, after what came before it", (_title, refused) => {
    const checked = down({ limiter: allowing(1) });
    checked.push(Buffer.concat([TEXT, hex("89 00"), refused, TEXT]));
    expect(checked.violation).toEqual({
      kind: "rateLimited",
      detail: "messages exceed limits.messageRate",
    });
    expect(toHex(checked.output)).toBe(toHex(Buffer.concat([TEXT, hex("89 00")])));
  });

  test("lets a message that has begun end, and pings pass", () => {
    const checked = down({ limiter: allowing(1) });
    checked.push(START, hex("89 00"), MIDDLE, END, hex("8a 00"));
    expect(checked.violation).toBeNull();
    expect(checked.relay.messages).toBe(1);
  });
});

describe("Held memory", () => {
  test("follows what has arrived, not what a header announces", () => {
    const count = 1000;
    const header = buildFrame({ opcode: 0x2, announcedLength: 60 * 1024 });
    const before = process.memoryUsage().arrayBuffers;
    const relays = Array.from({ length: count }, () => down());
    for (const checked of relays) {
      checked.relay.push(header);
      checked.relay.push(Buffer.from([0]));
    }
    const perRelay = (process.memoryUsage().arrayBuffers - before) / count;
    expect(relays.every(({ relay }) => relay.heldBytes === header.length + 1)).toBe(true);
    // Announced are 60 KiB.
    expect(perRelay).toBeLessThan(8 * 1024);
  });

  test("is given back once the frame is whole, stopped or refused", () => {
    const whole = buildFrame({ opcode: 0x2, payload: Buffer.alloc(HOLD_LIMIT_BYTES) });
    const checked = down().push(whole.subarray(0, whole.length - 1));
    expect(checked.relay.heldBytes).toBe(whole.length - 1);
    checked.push(whole.subarray(whole.length - 1));
    expect(checked.relay.heldBytes).toBe(0);
    expect(checked.output.equals(whole)).toBe(true);
    checked.push(closePayload(1000).subarray(0, 1));
    expect(checked.relay.heldBytes).toBe(1);
    checked.push(hex("ff"));
    expect(checked.violation).not.toBeNull();
    expect(checked.relay.heldBytes).toBe(0);
  });

  test("of a frame that arrives byte by byte is one frame", () => {
    const frame = buildFrame({ opcode: 0x2, payload: Buffer.alloc(5000, 7) });
    const checked = down().push(...cut(Buffer.concat([frame, frame]), [1]));
    expect(checked.calls.map((call) => call.equals(frame))).toEqual([true, true]);
  });
});
