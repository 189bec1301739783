/** Reads of all backends share memory; what a receiver keeps must stay as it was, and stay small. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";

/** Delivers `bytes` as libuv would; the chunk that the receiver saw. */
function deliver(buffers: ReadBuffers, bytes: Uint8Array, keeps: boolean): Buffer {
  buffers.incoming.set(bytes);
  let seen: Buffer = Buffer.alloc(0);
  buffers.deliver(bytes.length, {
    received: (chunk) => {
      seen = chunk;
      return keeps;
    },
  });
  return seen;
}

describe("ReadBuffers", () => {
  it("hands out what was read, up to a whole buffer", () => {
    const buffers = new ReadBuffers();
    const whole = Buffer.alloc(buffers.incoming.length, 7);
    expect(deliver(buffers, whole, false).equals(whole)).toBe(true);
    expect(deliver(buffers, Buffer.from("short"), false).toString()).toBe("short");
  });

  it("reads into the same memory again when the receiver is done with it", () => {
    const buffers = new ReadBuffers();
    const first = deliver(buffers, Buffer.from("first"), false);
    const second = deliver(buffers, Buffer.from("other"), false);
    expect(second.buffer).toBe(first.buffer);
    expect(first.toString()).toBe("other");
  });

  it("never changes a chunk that was kept, whatever is read afterwards", () => {
    const sizes = fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 65_536 }));
    const reads = fc.array(fc.tuple(sizes, fc.boolean()), { maxLength: 60 });
    fc.assert(
      fc.property(reads, (sequence) => {
        const buffers = new ReadBuffers();
        const kept: { chunk: Buffer; copy: Buffer }[] = [];
        for (const [index, [size, keeps]] of sequence.entries()) {
          const bytes = Buffer.alloc(size, index + 1);
          const chunk = deliver(buffers, bytes, keeps);
          expect(chunk.equals(bytes)).toBe(true);
          if (keeps) kept.push({ chunk, copy: bytes });
        }
        for (const { chunk, copy } of kept) expect(chunk.equals(copy)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it("keeps small chunks side by side: a slow client's 10-byte messages must not hold 64 KiB each", () => {
    const buffers = new ReadBuffers();
    const kept = Array.from({ length: 5_000 }, () => deliver(buffers, Buffer.alloc(10), true));
    const memory = new Set(kept.map((chunk) => chunk.buffer));
    expect(memory.size).toBeLessThanOrEqual(2);
  });
});
