/** What session retry asks of the relay: messages apart, messages swallowed, what is unfinished, pings. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameRelay, type RelaySink } from "../../../src/wire/relay.ts";
import { buildFrame, type FrameSpec, type ReadFrame, readFrames } from "../../support/frames.ts";
import { cut, relayOptions } from "./relay-harness.ts";

const MASK = Buffer.from([1, 2, 3, 4]);

/** Takes every call with what the relay says of itself at that moment. */
class Taken implements RelaySink {
  readonly relay: FrameRelay;
  readonly calls: { bytes: Buffer; unfinished: number; messages: number }[] = [];
  readonly pings: string[] = [];
  swallows = 0;

  constructor(options: { apart?: number; swallow?: number }) {
    const direction = options.swallow === undefined ? "clientToUpstream" : "upstreamToClient";
    this.relay = new FrameRelay(relayOptions(direction, options), this);
  }

  forward(frames: Buffer): void {
    const { unfinishedBytes, messages } = this.relay;
    this.calls.push({ bytes: Buffer.from(frames), unfinished: unfinishedBytes, messages });
  }

  forwardFragment(header: Buffer, payload: Buffer): void {
    this.forward(Buffer.concat([header, payload]));
  }

  takePong(): boolean {
    return false;
  }

  takePing(payload: Buffer): void {
    this.pings.push(payload.toString());
  }

  swallowed(): void {
    this.swallows += 1;
  }

  closeReceived(): void {}

  violated(): void {
    throw new Error("the streams here are legal");
  }

  get output(): Buffer {
    return Buffer.concat(this.calls.map(({ bytes }) => bytes));
  }
}

interface Stream {
  /** Frames of each message; control frames may stand between. */
  readonly messages: readonly (readonly FrameSpec[])[];
}

const frameSize = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 0, max: 300 }) },
  { weight: 1, arbitrary: fc.integer({ min: 65_530, max: 90_000 }) },
);

const stream: fc.Arbitrary<Stream> = fc
  .array(fc.array(fc.tuple(frameSize, fc.boolean()), { minLength: 1, maxLength: 3 }), {
    minLength: 1,
    maxLength: 6,
  })
  .map((all) => ({
    messages: all.map((parts, number) =>
      parts.flatMap(([size, hasPing], index): FrameSpec[] => {
        const payload = Buffer.alloc(size, number + 1);
        const fin = index === parts.length - 1;
        const data = { opcode: index === 0 ? 2 : 0, fin, payload };
        return hasPing ? [{ opcode: 9, payload: `${number}.${index}` }, data] : [data];
      }),
    ),
  }));

const sizes = fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1, maxLength: 8 });

function bytesOf({ messages }: Stream, mask: Buffer | null): Buffer {
  return Buffer.concat(messages.flat().map((frame) => buildFrame({ mask, ...frame })));
}

const isData = ({ opcode }: { readonly opcode: number }): boolean => opcode < 8;

/** Payloads of whole messages. */
function whole(frames: readonly Pick<ReadFrame, "opcode" | "fin" | "payload">[]): string[] {
  const messages: string[] = [];
  let parts: Buffer[] = [];
  for (const { payload, fin } of frames.filter(isData)) {
    parts.push(payload);
    if (!fin) continue;
    messages.push(Buffer.concat(parts).toString("hex"));
    parts = [];
  }
  return messages;
}

function expected({ messages }: Stream): string[] {
  return messages.map((frames) =>
    Buffer.concat(frames.filter(isData).map(({ payload }) => Buffer.from(payload ?? ""))).toString(
      "hex",
    ),
  );
}

describe("At any split", () => {
  it("the first messages end where a call ends, and what is unfinished is known in each call", () => {
    fc.assert(
      fc.property(stream, sizes, fc.integer({ min: 0, max: 4 }), (given, pieces, apart) => {
        const taken = new Taken({ apart });
        for (const chunk of cut(bytesOf(given, MASK), pieces)) taken.relay.push(chunk);
        expect(whole(readFrames(taken.output))).toEqual(expected(given));
        let soFar = Buffer.alloc(0);
        for (const { bytes, unfinished, messages } of taken.calls) {
          const ended = readFrames(bytes).filter((frame) => isData(frame) && frame.fin).length;
          soFar = Buffer.concat([soFar, bytes]);
          const frames = readFrames(soFar);
          expect(messages).toBe(frames.filter((frame) => isData(frame) && frame.fin).length);
          expect(unfinished).toBe(unfinishedIn(frames));
          if (messages - ended >= apart) continue;
          expect(ended).toBeLessThanOrEqual(1);
          const last = readFrames(bytes).at(-1);
          const endsThere = last !== undefined && isData(last) && last.fin;
          expect([ended, endsThere]).toEqual([ended, ended === 1]);
        }
      }),
      { numRuns: 150 },
    );
  });

  it("the first messages are swallowed, and the control frames among them are not", () => {
    fc.assert(
      fc.property(stream, sizes, fc.integer({ min: 0, max: 4 }), (given, pieces, swallow) => {
        const taken = new Taken({ swallow });
        for (const chunk of cut(bytesOf(given, null), pieces)) {
          taken.relay.push(chunk);
          const hasPassed = readFrames(taken.output).some(isData);
          expect(taken.relay.midMessage && !hasPassed).toBe(false);
        }
        const frames = readFrames(taken.output);
        expect(whole(frames)).toEqual(expected(given).slice(swallow));
        const pings = given.messages.flat().filter(({ opcode }) => opcode === 9);
        expect(frames.filter(({ opcode }) => opcode === 9)).toHaveLength(pings.length);
        expect(taken.relay.messages).toBe(Math.max(0, given.messages.length - swallow));
        expect(taken.relay.droppedMessages).toBe(0);
      }),
      { numRuns: 150 },
    );
  });

  it("pings are answered instead of passed on, while that is asked for", () => {
    fc.assert(
      fc.property(stream, sizes, (given, pieces) => {
        const taken = new Taken({});
        taken.relay.answerPings = true;
        for (const chunk of cut(bytesOf(given, MASK), pieces)) taken.relay.push(chunk);
        const frames = readFrames(taken.output);
        const pings = given.messages.flat().filter(({ opcode }) => opcode === 9);
        expect(taken.pings).toEqual(pings.map(({ payload }) => String(payload)));
        expect(frames.every(isData)).toBe(true);
        expect(whole(frames)).toEqual(expected(given));
        taken.relay.answerPings = false;
        taken.relay.push(buildFrame({ opcode: 9, mask: MASK, payload: "end to end" }));
        expect(readFrames(taken.output).at(-1)?.payload.toString()).toBe("end to end");
      }),
      { numRuns: 100 },
    );
  });
});

/** Bytes from the start of the message without its end; 0: all have one. */
function unfinishedIn(frames: readonly ReadFrame[]): number {
  let bytes = 0;
  let inMessage = false;
  for (const frame of frames) {
    if (isData(frame)) inMessage = true;
    if (inMessage) bytes += frame.raw.length;
    if (!isData(frame) || !frame.fin) continue;
    inMessage = false;
    bytes = 0;
  }
  return bytes;
}
