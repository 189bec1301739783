import { describe, expect, it } from "vitest";
import { Ledger } from "../../../src/observe/ledger.ts";
import { aRecord } from "./records.ts";

const ids = (ledger: Ledger, limit: number) => ledger.newest(limit).map(({ session }) => session);

function filled(capacity: number, records: number): Ledger {
  const ledger = new Ledger(capacity);
  for (let n = 1; n <= records; n++) ledger.add(aRecord({ session: `s${n}` }));
  return ledger;
}

describe("Ledger", () => {
  it("is empty at first", () => {
    expect(filled(3, 0).newest(10)).toEqual([]);
  });

  it("gives the newest first before it is full", () => {
    expect(ids(filled(3, 2), 10)).toEqual(["s2", "s1"]);
  });

  it("forgets the oldest when it is full, wherever the ring stands", () => {
    expect(ids(filled(3, 3), 10)).toEqual(["s3", "s2", "s1"]);
    expect(ids(filled(3, 4), 10)).toEqual(["s4", "s3", "s2"]);
    expect(ids(filled(3, 8), 10)).toEqual(["s8", "s7", "s6"]);
    expect(ids(filled(1, 8), 10)).toEqual(["s8"]);
  });

  it("gives no more than asked for", () => {
    expect(ids(filled(3, 8), 2)).toEqual(["s8", "s7"]);
    expect(ids(filled(3, 8), 0)).toEqual([]);
    expect(ids(filled(3, 8), -1)).toEqual([]);
  });

  it("keeps a thousand records unless told otherwise", () => {
    const ledger = new Ledger();
    for (let n = 0; n < 2500; n++) ledger.add(aRecord());
    expect(ledger.newest(10_000)).toHaveLength(1000);
  });

  it("rejects a capacity that holds nothing", () => {
    expect(() => new Ledger(0)).toThrow(RangeError);
    expect(() => new Ledger(1.5)).toThrow(RangeError);
  });
});
