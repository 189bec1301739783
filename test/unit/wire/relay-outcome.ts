/** Holds what a relay makes of any bytes, in whatever chunks, against the model. */
import { deepEqual, equal, ok } from "node:assert/strict";
import {
  FrameRelay,
  HOLD_LIMIT_BYTES,
  MIN_FRAGMENT_BYTES,
  type RelayOptions,
} from "../../../src/wire/relay.ts";
import type { ReadFrame } from "../../support/frames.ts";
import { CheckedRelay, cut } from "./relay-harness.ts";
import { type Expected, expectedOf, frontOf, meaningOf } from "./relay-model.ts";

/** What else a session may ask of a relay. */
export interface Asked {
  readonly answerPings?: boolean;
  /** Pongs with this payload are the gateway's own. */
  readonly ownPong?: string;
  /** The limiter lets so many messages pass. */
  readonly messageLimit?: number;
}

/** Relays the bytes and checks the outcome; returns what must not depend on the cuts. */
export function checkOutcome(
  bytes: Buffer,
  options: RelayOptions,
  sizes: readonly number[],
  asked: Asked = {},
): string[] {
  const checked = checkedRelay(options, asked).push(...cut(bytes, sizes));
  const { relay } = checked;
  const expected = expectedOf(bytes, options);
  const passed = passedOf(expected, options, asked);
  const frames = [...passed.frames];

  equal(endOf(checked), passed.end);
  equal(relay.bytes, checked.output.length);
  equal(relay.messages, passed.messages - passed.swallowed);
  equal(checked.swallows, passed.swallowed);
  deepEqual(checked.pings, passed.pings);
  deepEqual(checked.pongs, passed.pongs);
  const isOpen = passed.end === "open";
  const long = isOpen ? longFrameAt(expected.rest) : null;
  const whole = isOpen ? expected.rest.length : 0;
  const arrived = long === null ? whole : expected.rest.length - long.headerBytes;
  // Of a long frame any part below a fragment may be held, of another all that there is.
  const held = long === null ? whole : Math.min(relay.heldBytes, arrived, MIN_FRAGMENT_BYTES - 1);
  equal(relay.heldBytes, held);
  const isSwallowing = passed.messages < (options.swallow ?? 0);
  if (long !== null && arrived > held && !isSwallowing) {
    frames.push(frontOf(expected.rest, arrived - held, long.headerBytes));
  }
  const meaning = meaningOf(checked.frames);
  deepEqual(meaning, meaningOf(frames));
  const lastData = checked.frames.findLast((frame) => frame.opcode < 0x8);
  equal(relay.midMessage, lastData !== undefined && !lastData.fin);
  checkCalls(checked, options.apart ?? 0);
  return isOpen
    ? [passed.end]
    : [passed.end, JSON.stringify(checked.violation ?? checked.close), ...meaning];
}

/** What is told to discard from byte `at` on forwards no more, and counts each message once. */
export function checkDiscard(
  bytes: Buffer,
  options: RelayOptions,
  sizes: readonly number[],
  at: number,
): void {
  const checked = checkedRelay(options, {});
  checked.push(...cut(bytes.subarray(0, at), sizes));
  const calls = checked.calls.length;
  const wasOver = checked.close !== null || checked.violation !== null;
  checked.relay.discard();
  checked.push(...cut(bytes.subarray(at), sizes));
  equal(checked.calls.length, calls);
  if (wasOver) return;
  const passed = passedOf(expectedOf(bytes, options), options, {});
  const unfinishedSwallow = passed.begun > passed.messages && passed.messages < swallowOf(options);
  equal(
    checked.relay.messages + checked.relay.droppedMessages,
    passed.begun - passed.swallowed - (unfinishedSwallow ? 1 : 0),
  );
}

/** A sink may stop its relay from inside any of its calls: none comes after that. */
export function checkStop(
  bytes: Buffer,
  options: RelayOptions,
  sizes: readonly number[],
  calls: number,
): void {
  let left = calls;
  const count = (): void => {
    ok(left > 0, "a call after the relay was stopped");
    left -= 1;
    if (left === 0) relay.stop();
  };
  const countAnd = (answer: boolean): boolean => {
    count();
    return answer;
  };
  const relay = new FrameRelay(options, {
    forward: count,
    forwardFragment: count,
    takePong: () => countAnd(calls % 2 === 0),
    takePing: count,
    swallowed: count,
    closeReceived: count,
    violated: count,
  });
  relay.answerPings = calls % 3 === 0;
  for (const chunk of cut(bytes, sizes)) relay.push(Buffer.from(chunk));
  if (left === 0) equal(relay.heldBytes, 0);
}

function checkedRelay(options: RelayOptions, asked: Asked): CheckedRelay {
  const { messageLimit, ownPong, answerPings } = asked;
  let left = messageLimit ?? 0;
  const limiter = { take: () => left-- > 0 };
  const checked = new CheckedRelay(messageLimit === undefined ? options : { ...options, limiter });
  checked.ownPong = ownPong ?? null;
  checked.relay.answerPings = answerPings ?? false;
  return checked;
}

interface Passed {
  /** What goes on to the receiver. */
  readonly frames: readonly ReadFrame[];
  readonly end: Expected["end"] | "rateLimited";
  /** Messages of which a frame has been entered, and those that ended; swallowed ones included. */
  readonly begun: number;
  readonly messages: number;
  readonly swallowed: number;
  /** Payloads in hexadecimal. */
  readonly pings: readonly string[];
  readonly pongs: readonly string[];
}

/** Of the legal frames those that a relay with these wishes lets pass, the slow way. */
function passedOf(expected: Expected, options: RelayOptions, asked: Asked): Passed {
  const limit = asked.messageLimit ?? Number.POSITIVE_INFINITY;
  const frames: ReadFrame[] = [];
  const pings: string[] = [];
  const pongs: string[] = [];
  let begun = 0;
  let messages = 0;
  let inMessage = false;
  const passed = (end: Passed["end"]): Passed => {
    const swallowed = Math.min(messages, swallowOf(options));
    return { frames, end, begun, messages, swallowed, pings, pongs };
  };
  for (const frame of expected.frames) {
    const payload = frame.payload.toString("hex");
    if (frame.opcode === 0x9 && asked.answerPings === true) {
      pings.push(payload);
    } else if (frame.opcode === 0xa) {
      pongs.push(payload);
      if (frame.payload.toString("utf8") !== asked.ownPong) frames.push(frame);
    } else if (frame.opcode >= 0x8) {
      frames.push(frame);
    } else {
      if (!inMessage && begun === limit) return passed("rateLimited");
      if (!inMessage) begun += 1;
      if (messages >= swallowOf(options)) frames.push(frame);
      inMessage = !frame.fin;
      if (frame.fin) messages += 1;
    }
  }
  if (expected.end === "open" && !inMessage && longFrameAt(expected.rest) !== null) {
    // The header of a long frame is enough for it to be entered.
    if (begun === limit) return passed("rateLimited");
    begun += 1;
  }
  return passed(expected.end);
}

function swallowOf({ swallow = 0 }: RelayOptions): number {
  return swallow;
}

function endOf(checked: CheckedRelay): string {
  if (checked.violation !== null) return checked.violation.kind;
  return checked.close === null ? "open" : "close";
}

/** Whether the unfinished frame in `rest` is longer than what is held whole. */
function longFrameAt(rest: Buffer): { headerBytes: number } | null {
  if (((rest[1] ?? 0) & 0x7f) !== 127) return null;
  const headerBytes = (rest[1] ?? 0) >= 128 ? 14 : 10;
  if (rest.length < headerBytes) return null;
  return rest.readBigUInt64BE(2) > BigInt(HOLD_LIMIT_BYTES) ? { headerBytes } : null;
}

/** In each call it was known what is unfinished; the first messages ended where a call ended. */
function checkCalls(checked: CheckedRelay, apart: number): void {
  let messages = 0;
  let unfinished = 0;
  let inMessage = false;
  for (const [index, frames] of checked.framesOfCalls.entries()) {
    const before = messages;
    for (const { opcode, fin, raw } of frames) {
      const isData = opcode < 0x8;
      if (isData) inMessage = true;
      if (inMessage) unfinished += raw.length;
      if (!isData || !fin) continue;
      messages += 1;
      inMessage = false;
      unfinished = 0;
    }
    equal(checked.unfinished[index], unfinished);
    if (before >= apart) continue;
    const last = frames.at(-1);
    const endsThere = last !== undefined && last.opcode < 0x8 && last.fin;
    ok(messages - before <= 1, "two of the first messages in one call");
    equal(endsThere, messages > before);
  }
}
