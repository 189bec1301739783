import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Ejection, type Trial } from "../../../src/upstream/ejection.ts";
import { mayEject, type Standing, toLift } from "../../../src/upstream/ejection-rule.ts";

/** `u`: up; `d`: down; `e`: up but ejected; `x`: down and ejected; the digit: until when. */
function poolOf(text: string): Standing[] {
  return text.split(" ").map((word) => ({
    isUp: word.startsWith("u") || word.startsWith("e"),
    ejectedUntilMs: word.startsWith("e") || word.startsWith("x") ? Number(word.slice(1)) : null,
  }));
}

function mayFirstOf(text: string): boolean {
  const pool = poolOf(text);
  const [first] = pool;
  if (first === undefined) throw new Error("a pool of one at least");
  return mayEject(first, pool);
}

describe("mayEject", () => {
  it.each([
    ["u", false],
    ["u u", true],
    ["u e1", false],
    ["u u u", true],
    ["u u e1", false],
    ["u u u e1", true],
    ["u u e1 e2", false],
    ["u u u u e1 e2", true],
    ["u u u u e1 e2 e3", false],
  ])("lets at most half of the pool go: the first of `%s`: %s", (text, may) => {
    expect(mayFirstOf(text)).toBe(may);
  });

  it.each([
    ["u d", false],
    ["u d d d", false],
    ["u d d e1", false],
    ["u u d d", true],
    ["u u d e1", true],
    ["u d x1 d d d", false],
  ])(
    "keeps one that works, as those that are down do not count: the first of `%s`: %s",
    (text, may) => {
      expect(mayFirstOf(text)).toBe(may);
    },
  );

  it.each(["d u u u", "d d d d", "x1 u u u", "e1 u u u"])(
    "has no use for it where the backend is out anyway: the first of `%s`",
    (text) => {
      expect(mayFirstOf(text)).toBe(false);
    },
  );
});

describe("toLift", () => {
  it.each([
    ["u", ""],
    ["u e1", ""],
    ["u u e1 d", ""],
    ["d e1", "1"],
    ["d d e2 e1", "1"],
    ["d d x1 e2", "2"],
    ["d d d", ""],
    ["d x1", ""],
    ["e1", "1"],
    ["x1", "1"],
    ["e2 e1", "1"],
    ["u e2 e1", "1"],
    ["u e1 x2", "2"],
    ["u x3 e1 x2 e4", "2 3"],
    ["e3 e1 e2", "1 2"],
    ["e3 x1 e2", "2 1"],
  ])("in `%s` lifts `%s`", (text, lifted) => {
    const until = toLift(poolOf(text)).map(({ ejectedUntilMs }) => ejectedUntilMs);
    expect(until.join(" ")).toBe(lifted);
  });
});

interface Member {
  readonly ejection: Ejection;
  isUp: boolean;
  trial: Trial | null;
}

const CONFIG = { failures: 2, windowMs: 1_000, durationMs: 500, maxDurationMs: 4_000 };

const STEPS = fc.array(
  fc.record({
    kind: fc.constantFrom(
      ...(["fail", "fail", "fail", "fail", "take", "good", "bad", "abandoned"] as const),
      ...(["connect", "wait", "wait", "down", "up", "leave", "join"] as const),
    ),
    which: fc.nat(100),
    ms: fc.nat(1_500),
  }),
  { minLength: 30, maxLength: 200, size: "max" },
);

/** A pool that wires the two modules together as a real one does. */
class Model {
  now = 0;
  ejections = 0;
  readonly members: Member[] = [];

  join(): void {
    const member: Member = {
      ejection: new Ejection(CONFIG, {
        mayEject: () => {
          const pool = this.standings();
          const candidate = pool.find((standing) => standing.member === member);
          return candidate !== undefined && mayEject(candidate, pool);
        },
        ejected: () => {
          this.ejections += 1;
        },
        returned: () => undefined,
      }),
      isUp: true,
      trial: null,
    };
    this.members.push(member);
  }

  standings(): (Standing & { readonly member: Member })[] {
    return this.members.map((member) => ({
      member,
      isUp: member.isUp,
      ejectedUntilMs: member.ejection.ejectedUntilMs(this.now),
    }));
  }

  step({ kind, which, ms }: { kind: string; which: number; ms: number }): void {
    const member = this.members[which % this.members.length];
    if (member === undefined) return;
    const { ejection, trial } = member;
    if (kind === "fail") ejection.failed(this.now);
    else if (kind === "wait") this.now += ms;
    else if (kind === "take") member.trial = ejection.taken(this.now) ?? trial;
    else if (kind === "connect") trial?.connected(this.now);
    else if (kind === "good" || kind === "bad" || kind === "abandoned")
      trial?.ended(kind, this.now);
    else if (kind === "down" || kind === "up") member.isUp = kind === "up";
    else if (kind === "join" && this.members.length < 10) this.join();
    else if (kind === "leave" && this.members.length > 1)
      this.members.splice(which % this.members.length, 1);
    for (const standing of toLift(this.standings())) standing.member.ejection.lift(this.now);
  }
}

it("holds for any pool, whatever happens to it", () => {
  let ejections = 0;
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), STEPS, (size, steps) => {
      const model = new Model();
      for (let i = 0; i < size; i += 1) model.join();
      for (const step of steps) {
        model.step(step);
        const pool = model.standings();
        const out = pool.filter(({ ejectedUntilMs }) => ejectedUntilMs !== null);
        expect(out.length).toBeLessThanOrEqual(Math.floor(pool.length / 2));
        const works = pool.filter(({ isUp, ejectedUntilMs }) => isUp && ejectedUntilMs === null);
        expect(works.length > 0).toBe(pool.some(({ isUp }) => isUp));
        expect(toLift(pool)).toEqual([]);
      }
      ejections += model.ejections;
    }),
    { numRuns: 150 },
  );
  // The property would hold of a pool that never ejects.
  expect(ejections).toBeGreaterThan(100);
});

it("holds without any lift, as long as only traffic changes the pool", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 8 }), STEPS, (size, steps) => {
      const model = new Model();
      for (let i = 0; i < size; i += 1) model.join();
      for (const step of steps) {
        if (["down", "up", "leave", "join"].includes(step.kind)) continue;
        model.step(step);
        expect(toLift(model.standings())).toEqual([]);
      }
    }),
  );
});
