import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Backend, Slot } from "../../../src/upstream/backend.ts";
import { makeBackend } from "../../support/pool-config.ts";

function backend(maxConnections: number): Backend {
  return makeBackend({ maxConnections });
}

describe("Backend", () => {
  it("gives out as many slots as its cap says and then none", () => {
    const capped = backend(2);
    expect([capped.takeSlot(), capped.takeSlot()]).not.toContain(null);
    expect(capped.takeSlot()).toBeNull();
    expect([capped.connections, capped.full, capped.available]).toEqual([2, true, false]);
  });

  it("without a cap is never full", () => {
    const open = backend(0);
    for (let i = 0; i < 10_000; i += 1) expect(open.takeSlot()).not.toBeNull();
    expect([open.connections, open.full, open.available]).toEqual([10_000, false, true]);
  });

  it("counts a slot that is released twice once", () => {
    const capped = backend(2);
    const first = capped.takeSlot();
    capped.takeSlot();
    first?.release();
    first?.release();
    expect(capped.connections).toBe(1);
  });

  it("holds its cap and its count through any order of taking and releasing", () => {
    const step = fc.oneof(
      fc.constant({ take: true, which: 0 }),
      fc.record({ take: fc.constant(false), which: fc.nat() }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 8 }),
        fc.array(step, { maxLength: 200 }),
        (cap, steps) => {
          const subject = backend(cap);
          // Released ones stay in: giving back twice is part of any order.
          const slots: Slot[] = [];
          const held = new Set<Slot>();
          for (const { take, which } of steps) {
            if (take) {
              const slot = subject.takeSlot();
              const full = cap > 0 && held.size === cap;
              if (full !== (slot === null)) throw new Error(`${held.size} of ${cap} slots taken`);
              if (slot === null) continue;
              slots.push(slot);
              held.add(slot);
            } else {
              const slot = slots[which % Math.max(1, slots.length)];
              slot?.release();
              if (slot !== undefined) held.delete(slot);
            }
            expect(subject.connections).toBe(held.size);
            expect(subject.available).toBe(cap === 0 || held.size < cap);
          }
          for (const slot of slots) slot.release();
          expect(subject.connections).toBe(0);
        },
      ),
    );
  });
});
