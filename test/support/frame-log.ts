/** What a raw peer has read behind the handshake: whole frames as they come, and torn bytes at the end. */
import type { Close } from "../../src/close/causes.ts";
import { eventually } from "./eventually.ts";
import { type ReadFrame, splitFrames } from "./frames.ts";

const CLOSE = 0x8;

export class FrameLog {
  readonly frames: ReadFrame[] = [];
  #rest: Buffer = Buffer.alloc(0);

  add(chunk: Buffer): void {
    const { frames, rest } = splitFrames(Buffer.concat([this.#rest, chunk]));
    this.frames.push(...frames);
    this.#rest = rest;
  }

  /** Bytes of an unfinished frame: not empty after the end means a torn frame. */
  get torn(): Buffer {
    return this.#rest;
  }

  /** Text and binary messages, put together from their fragments. */
  get messages(): Buffer[] {
    const messages: Buffer[] = [];
    let parts: Buffer[] = [];
    for (const { opcode, fin, payload } of this.frames) {
      if (opcode >= CLOSE) continue;
      parts.push(payload);
      if (!fin) continue;
      messages.push(Buffer.concat(parts));
      parts = [];
    }
    return messages;
  }

  get closes(): Close[] {
    return this.frames
      .filter(({ opcode }) => opcode === CLOSE)
      .map(({ payload }) => ({
        code: payload.length === 0 ? 1005 : payload.readUInt16BE(0),
        reason: payload.subarray(2).toString("utf8"),
      }));
  }

  /** Waits for the first frame with this opcode. */
  frame(opcode: number): Promise<ReadFrame> {
    return eventually(() => {
      const found = this.frames.find((frame) => frame.opcode === opcode);
      if (found === undefined) throw new Error(`no frame with opcode ${opcode}`);
      return found;
    });
  }

  /** Waits for `count` messages. */
  async received(count: number): Promise<Buffer[]> {
    return await eventually(() => {
      if (this.messages.length < count) {
        throw new Error(`${this.messages.length} of ${count} messages`);
      }
      return this.messages;
    });
  }
}
