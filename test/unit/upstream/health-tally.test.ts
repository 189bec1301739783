import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { isUp, type Tally, tallyProbe } from "../../../src/upstream/health-tally.ts";

const CONFIG = { rise: 2, fall: 3 };

/** The states after each probe, `+` good and `-` bad, as initials; `?` is unknown. */
function states(probes: string, config = CONFIG, initial: Tally["state"] = "unknown"): string {
  let tally: Tally = { state: initial, against: 0 };
  let seen = "";
  for (const probe of probes) {
    tally = tallyProbe(tally, probe === "+", config);
    seen += tally.state === "unknown" ? "?" : tally.state.slice(0, 1);
  }
  return seen;
}

describe("a row of probes", () => {
  it.each([
    ["takes a backend down with the last of `fall` bad ones in a row", "+---", "uuud"],
    ["takes down a backend that has never been good, too", "---", "??d"],
    ["leaves it up when a good one stands between", "+--+--+-", "uuuuuuuu"],
    ["brings it back with the last of `rise` good ones in a row", "+---++", "uuuddu"],
    ["leaves it down when a bad one stands between", "+---+-+-++", "uuuddddddu"],
    ["asks for `fall` anew once it has come back", "---++--", "??dduuu"],
  ])("%s", (_title, probes, expected) => {
    expect(states(probes)).toBe(expected);
  });

  it("makes a new backend up with the first good one", () => {
    const unjudged: Tally = { state: "unknown", against: 0 };
    expect(isUp(unjudged.state)).toBe(true);
    expect(tallyProbe(unjudged, true, CONFIG)).toEqual({ state: "up", against: 0 });
    expect(tallyProbe(unjudged, false, CONFIG)).toEqual({ state: "unknown", against: 1 });
  });

  it("goes on from what an earlier check knew", () => {
    expect(states("-+-++", CONFIG, "down")).toBe("ddddu");
  });

  it("turns exactly where the last `fall` or `rise` probes all speak against it", () => {
    const count = fc.integer({ min: 1, max: 5 });
    const probes = fc.array(fc.constantFrom("+", "-"), { maxLength: 60 });
    fc.assert(
      fc.property(probes, count, count, (sequence, rise, fall) => {
        const seen = states(sequence.join(""), { rise, fall });
        let wasUp = true;
        let turnedAt = 0;
        for (let i = 0; i < sequence.length; i += 1) {
          const needed = wasUp ? fall : rise;
          const last = sequence.slice(Math.max(turnedAt, i + 1 - needed), i + 1);
          const turns =
            last.length === needed && last.every((probe) => probe === (wasUp ? "-" : "+"));
          if (turns) {
            wasUp = !wasUp;
            turnedAt = i + 1;
          }
          expect(seen[i] !== "d").toBe(wasUp);
        }
      }),
    );
  });
});
