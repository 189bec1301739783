/** Reads of all backends share memory; what a receiver keeps must stay as it was, and stay small. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Holder, KEEP, ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { type Slab, SlabPool } from "../../../src/wire/slab.ts";

/** Delivers `bytes` as libuv would; the chunk that the receiver saw. */
function deliver(buffers: ReadBuffers, bytes: Uint8Array, holder: Holder | null): Buffer {
  buffers.incoming.set(bytes);
  let seen: Buffer = Buffer.alloc(0);
  buffers.deliver(bytes.length, {
    received: (chunk) => {
      seen = chunk;
      return holder;
    },
  });
  return seen;
}

/** Keeps chunks until it is told to let go. */
class TestHolder implements Holder {
  readonly #slabs: Slab[] = [];

  pin(slab: Slab): void {
    slab.pin();
    this.#slabs.push(slab);
  }

  letGo(): void {
    for (const slab of this.#slabs.splice(0)) slab.unpin();
  }
}

describe("ReadBuffers", () => {
  it("hands out what was read, up to a whole buffer", () => {
    const buffers = new ReadBuffers(new SlabPool());
    const whole = Buffer.alloc(buffers.incoming.length, 7);
    expect(deliver(buffers, whole, null).equals(whole)).toBe(true);
    expect(deliver(buffers, Buffer.from("short"), null).toString()).toBe("short");
  });

  it("reads into the same memory again when the receiver is done with it", () => {
    const buffers = new ReadBuffers(new SlabPool());
    const first = deliver(buffers, Buffer.from("first"), null);
    const second = deliver(buffers, Buffer.from("other"), null);
    expect(second.buffer).toBe(first.buffer);
    expect(first.toString()).toBe("other");
  });

  it("uses a few slabs in turns for a holder that keeps each chunk for a while", () => {
    const buffers = new ReadBuffers(new SlabPool());
    const memory = new Set<ArrayBufferLike>();
    let holders: TestHolder[] = [];
    for (let i = 0; i < 1000; i += 1) {
      const holder = new TestHolder();
      memory.add(deliver(buffers, Buffer.alloc(60_000), holder).buffer);
      holders.push(holder);
      if (holders.length < 3) continue;
      for (const done of holders) done.letGo();
      holders = [];
    }
    expect(memory.size).toBeLessThanOrEqual(4);
  });

  it("never changes a chunk while somebody holds it, whatever is read and let go meanwhile", () => {
    const sizes = fc.oneof(fc.integer({ min: 1, max: 200 }), fc.integer({ min: 1, max: 65_536 }));
    // After each read: keep it for good, keep it for a while, or not at all; then let some holder go.
    const step = fc.tuple(sizes, fc.constantFrom("keep", "hold", "drop"), fc.nat(5));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 80 }), (sequence) => {
        const buffers = new ReadBuffers(new SlabPool());
        let held: { chunk: Buffer; copy: Buffer; holder: TestHolder | null }[] = [];
        for (const [index, [size, fate, letGo]] of sequence.entries()) {
          const bytes = Buffer.alloc(size, index + 1);
          const holder = fate === "hold" ? new TestHolder() : null;
          const chunk = deliver(buffers, bytes, fate === "keep" ? KEEP : holder);
          expect(chunk.equals(bytes)).toBe(true);
          if (fate !== "drop") held.push({ chunk, copy: bytes, holder });
          const leaving = held[letGo]?.holder ?? null;
          if (leaving !== null) {
            leaving.letGo();
            held = held.filter((entry) => entry.holder !== leaving);
          }
          for (const entry of held) expect(entry.chunk.equals(entry.copy)).toBe(true);
        }
      }),
      { numRuns: 100 },
    );
  });

  it("keeps small chunks side by side: a slow client's 10-byte messages must not hold 64 KiB each", () => {
    const buffers = new ReadBuffers(new SlabPool());
    const kept = Array.from({ length: 5_000 }, () => deliver(buffers, Buffer.alloc(10), KEEP));
    const memory = new Set(kept.map((chunk) => chunk.buffer));
    expect(memory.size).toBeLessThanOrEqual(2);
  });
});
