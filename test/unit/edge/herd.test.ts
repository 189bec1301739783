/**
 * A herd that obeys `retry-after`, in a time of its own: clients that were thrown off at one moment come
 * back when they were told to and are let in, or turned away again, by the real classes.
 */
import { describe, expect, it } from "vitest";
import { RetryAfter } from "../../../src/close/retry-after.ts";
import { AcceptRate } from "../../../src/edge/accept-rate.ts";

const HERD = 20_000;
const RATE = 100;
/** What the last of the herd needs at this rate. */
const THEORETICAL_MS = (HERD / RATE) * 1000;
const LISTENER = { name: "public", acceptRate: RATE };
/** An operator of 20,000 clients lets the last of them wait for longer than the default of 60 s. */
const POLICY = { minMs: 1000, maxMs: 300_000, acceptRate: RATE };

interface Herd {
  /** Over which time the Closes that throw them off are spread: `drain.timeout`. */
  readonly pacedMs: number;
  /** The way to the client and back: each arrival is late by up to this. */
  readonly latencyMs: number;
  readonly maxMs?: number;
  /** Clients that know of nothing, and come in between, per second. */
  readonly newcomersPerSecond?: number;
}

interface Course {
  readonly arrivalsPerSecond: readonly number[];
  readonly admittedPerSecond: readonly number[];
  readonly allBackMs: number;
}

function simulate({ pacedMs, latencyMs, maxMs, newcomersPerSecond = 0 }: Herd): Course {
  const random = seeded(20_000);
  const clock = { nowMs: 0, now: () => clock.nowMs };
  const retryAfter = new RetryAfter(seeded(7));
  const acceptRate = new AcceptRate(clock);
  const policy = { ...POLICY, maxMs: maxMs ?? POLICY.maxMs };
  const due = new Schedule();
  const turnAway = (who: Client): void => {
    const waitMs = retryAfter.turnAway(policy, clock.nowMs) * 1000;
    due.add(clock.nowMs + waitMs + Math.floor(random() * (latencyMs + 1)), who);
  };
  for (let i = 0; i < HERD; i += 1) due.add(Math.floor((pacedMs * i) / HERD), "thrownOff");
  if (newcomersPerSecond > 0) due.add(0, "newcomer");

  const arrivalsPerSecond: number[] = [];
  const admittedPerSecond: number[] = [];
  let away = HERD;
  while (away > 0) {
    const next = due.take();
    clock.nowMs = next.atMs;
    if (next.who === "thrownOff") {
      turnAway("returning");
      continue;
    }
    if (next.who === "newcomer") due.add(clock.nowMs + 1000 / newcomersPerSecond, "newcomer");
    const second = Math.floor(clock.nowMs / 1000);
    arrivalsPerSecond[second] = (arrivalsPerSecond[second] ?? 0) + 1;
    if (acceptRate.take(LISTENER)) {
      admittedPerSecond[second] = (admittedPerSecond[second] ?? 0) + 1;
      if (next.who === "returning") away -= 1;
    } else {
      turnAway(next.who === "newcomer" ? "turnedAwayNewcomer" : next.who);
    }
  }
  return { arrivalsPerSecond, admittedPerSecond, allBackMs: clock.nowMs };
}

type Client = "thrownOff" | "returning" | "newcomer" | "turnedAwayNewcomer";

/** Events in order of their time, first come first served within a millisecond. */
class Schedule {
  readonly #byMs = new Map<number, Client[]>();
  #nowMs = 0;
  #next = 0;

  add(atMs: number, who: Client): void {
    const at = Math.round(atMs);
    const bucket = this.#byMs.get(at);
    if (bucket === undefined) this.#byMs.set(at, [who]);
    else bucket.push(who);
  }

  take(): { readonly atMs: number; readonly who: Client } {
    for (;;) {
      const who = this.#byMs.get(this.#nowMs)?.[this.#next];
      if (who !== undefined) {
        this.#next += 1;
        return { atMs: this.#nowMs, who };
      }
      this.#byMs.delete(this.#nowMs);
      if (this.#byMs.size === 0) throw new Error("nobody is left");
      this.#nowMs += 1;
      this.#next = 0;
    }
  }
}

/** Mulberry32. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The most of any second but the first one in which somebody came. */
function peakAfterTheFirst(perSecond: readonly number[]): number {
  const counts = Array.from(perSecond, (count: number | undefined) => count ?? 0);
  const first = counts.findIndex((count) => count > 0);
  return Math.max(...counts.slice(first + 1));
}

describe("20,000 clients that are thrown off and obey retry-after", () => {
  it.each<[string, Herd]>([
    ["at once, and come back to the millisecond", { pacedMs: 0, latencyMs: 0 }],
    ["at once, over a network", { pacedMs: 0, latencyMs: 300 }],
    ["at once, over slow networks", { pacedMs: 0, latencyMs: 2_000 }],
    ["paced by a drain of 25 s", { pacedMs: 25_000, latencyMs: 300 }],
  ])("%s: arrive at the rate, and are back in the time it takes", (_title, herd) => {
    const { arrivalsPerSecond, allBackMs } = simulate(herd);
    expect(arrivalsPerSecond.find((count) => count > 0)).toBeLessThanOrEqual(1.5 * RATE);
    expect(peakAfterTheFirst(arrivalsPerSecond)).toBeLessThanOrEqual(1.5 * RATE);
    expect(allBackMs).toBeGreaterThanOrEqual(THEORETICAL_MS - 1000);
    expect(allBackMs).toBeLessThanOrEqual(1.25 * THEORETICAL_MS);
  });

  it("are back in time, too, where 10 newcomers a second take their share", () => {
    const herd = { pacedMs: 0, latencyMs: 300, newcomersPerSecond: 10 };
    const { arrivalsPerSecond, allBackMs } = simulate(herd);
    expect(peakAfterTheFirst(arrivalsPerSecond)).toBeLessThanOrEqual(1.5 * RATE);
    expect(allBackMs).toBeLessThanOrEqual(1.25 * THEORETICAL_MS);
  });

  it("are back in time and let in at the rate, but come more often, where max is shorter than that", () => {
    const course = simulate({ pacedMs: 0, latencyMs: 300, maxMs: 60_000 });
    expect(peakAfterTheFirst(course.admittedPerSecond)).toBeLessThanOrEqual(1.5 * RATE);
    expect(course.allBackMs).toBeLessThanOrEqual(1.25 * THEORETICAL_MS);
    // All of them at once, at worst half of `max` on average.
    expect(peakAfterTheFirst(course.arrivalsPerSecond)).toBeLessThan(HERD / 30);
  });
});
