/**
 * The inputs that fuzzing begins with, those that it found worth keeping and its findings of the past, each
 * held against the promises of its target. New ones are found by `npm run fuzz`.
 */
import { describe, expect, it } from "vitest";
import { type Finding, Fuzzer } from "../fuzz/fuzzer.ts";
import { readCorpus } from "../fuzz/input-files.ts";
import { TARGETS, type Target, type TargetName } from "../fuzz/target.ts";

const names = Object.keys(TARGETS).filter((name): name is TargetName => name in TARGETS);

describe.each(names)("What is fuzzed as %s", (name) => {
  it("keeps its promises for every input of the corpus", async () => {
    const target = await TARGETS[name].load();
    const inputs = [...target.seeds, ...readCorpus(name).map(({ input }) => input)];
    expect(inputs.length).toBeGreaterThan(5);
    for (const input of inputs) await target.check(input);
    await target.settle?.();
    await target.close?.();
  });
});

/** Breaks where three bytes come together, one of which only a mutation brings. */
function fragileTarget(seen: string[]): Target {
  return {
    seeds: [Buffer.from("abcdefgh"), Buffer.from("xyz")],
    tokens: [Buffer.from("!")],
    maxInputBytes: 64,
    check: (input) => {
      seen.push(input.toString("hex"));
      if (input.includes("b!c")) throw new Error("broken");
    },
  };
}

async function search(seed: number, seen: string[]): Promise<Finding | null> {
  const options = { seed, onInput: () => undefined };
  return await new Fuzzer(fragileTarget(seen), [], options).run(15_000);
}

describe("The fuzzer", () => {
  it("finds what breaks, and leaves out what it does not need", async () => {
    const finding = await search(1, []);
    expect(finding?.input.toString()).toBe("b!c");
    expect(finding?.message).toContain("broken");
  });

  it("does the same again with the same seed", async () => {
    const first: string[] = [];
    const second: string[] = [];
    const other: string[] = [];
    await search(1, first);
    await search(1, second);
    await search(2, other);
    expect(second.slice(0, 100)).toEqual(first.slice(0, 100));
    expect(other.slice(0, 100)).not.toEqual(first.slice(0, 100));
  });
});
