import * as fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { Ejection, TRIAL_MS, type Trial } from "../../../src/upstream/ejection.ts";

const CONFIG = { failures: 3, windowMs: 1_000, durationMs: 10_000, maxDurationMs: 60_000 };

let now = 0;
let allowed = true;
let events: string[] = [];
let subject: Ejection;

beforeEach(() => {
  now = 0;
  allowed = true;
  events = [];
  subject = ejectionOf(CONFIG);
});

function ejectionOf(config: typeof CONFIG): Ejection {
  return new Ejection(config, {
    mayEject: () => allowed,
    ejected: (durationMs) => void events.push(`out ${durationMs}`),
    returned: () => void events.push("in"),
  });
}

function fail(times: number): void {
  for (let i = 0; i < times; i += 1) subject.failed(now);
}

function takeTrial(): Trial {
  const trial = subject.taken(now);
  if (trial === null) throw new Error("no trial was due");
  return trial;
}

/** Ejects the backend, waits until a trial is due, and lets it pass. */
function ejectAndReturn(): void {
  fail(CONFIG.failures);
  now = subject.changesAtMs(now) ?? now;
  takeTrial().ended("good", now);
}

describe("a backend that is in", () => {
  it("stays in below the number of failures", () => {
    fail(2);
    expect(subject.state(now)).toBe("in");
    expect(subject.recentFailures(now)).toBe(2);
    expect(subject.ejectedUntilMs(now)).toBeNull();
    expect(subject.changesAtMs(now)).toBeNull();
  });

  it("is ejected by that many failures within the window", () => {
    fail(2);
    now = 999;
    fail(1);
    expect(subject.state(now)).toBe("ejected");
    expect(subject.ejectedUntilMs(now)).toBe(10_999);
    expect(events).toEqual(["out 10000"]);
  });

  it("forgets a failure once it is as old as the window is long", () => {
    fail(2);
    now = 1_000;
    fail(1);
    expect(subject.state(now)).toBe("in");
    expect(subject.recentFailures(now)).toBe(1);
    now = 2_000;
    expect(subject.recentFailures(now)).toBe(0);
  });

  it("gains nothing by successes in between: every second session failing is no good", () => {
    for (let i = 0; i < 3; i += 1) {
      subject.failed(now);
      subject.succeeded(now);
    }
    expect(subject.state(now)).toBe("ejected");
  });

  it("has sessions that are no trial", () => {
    expect(subject.canTake(now)).toBe(true);
    expect(subject.taken(now)).toBeNull();
  });

  it("stays in when the pool needs it, and is asked about again at the next failure", () => {
    allowed = false;
    fail(5);
    expect(subject.state(now)).toBe("in");
    expect(subject.recentFailures(now)).toBe(3);
    allowed = true;
    fail(1);
    expect(subject.state(now)).toBe("ejected");
  });

  it("takes the numbers of a new configuration from the next failure on", () => {
    fail(2);
    subject.config = { ...CONFIG, failures: 1, durationMs: 5_000 };
    expect(subject.state(now)).toBe("in");
    fail(1);
    expect(events).toEqual(["out 5000"]);
  });
});

describe("an ejected backend", () => {
  it("takes nothing until its duration is over, then one trial", () => {
    fail(3);
    now = 9_999;
    expect(subject.canTake(now)).toBe(false);
    expect(subject.taken(now)).toBeNull();
    expect(subject.changesAtMs(now)).toBe(10_000);
    now = 10_000;
    expect(subject.state(now)).toBe("ejected");
    expect(subject.canTake(now)).toBe(true);
    expect(subject.changesAtMs(now)).toBeNull();
    takeTrial();
    expect(subject.state(now)).toBe("halfOpen");
    expect(subject.canTake(now)).toBe(false);
    expect(subject.taken(now)).toBeNull();
  });

  it("is not kept out longer by the sessions that its death takes along", () => {
    fail(600);
    expect(events).toEqual(["out 10000"]);
    now = 5_000;
    fail(600);
    subject.succeeded(now);
    expect(subject.ejectedUntilMs(now)).toBe(10_000);
  });

  it("comes back at once when its ejection is lifted, and needs all failures anew to go", () => {
    fail(3);
    subject.lift(now);
    expect(events).toEqual(["out 10000", "in"]);
    fail(2);
    expect(subject.state(now)).toBe("in");
    fail(1);
    expect(events).toEqual(["out 10000", "in", "out 20000"]);
  });

  it("has nothing to lift while it is in", () => {
    subject.lift(now);
    expect(events).toEqual([]);
  });
});

describe("a trial", () => {
  beforeEach(() => {
    fail(3);
    now = 10_000;
  });

  it("passes when its session ends well", () => {
    takeTrial().ended("good", now);
    expect(subject.state(now)).toBe("in");
    expect(events).toEqual(["out 10000", "in"]);
  });

  it("passes when its session has lived long enough, without anybody saying so", () => {
    const trial = takeTrial();
    expect(subject.changesAtMs(now)).toBeNull();
    now += 700;
    trial.connected(now);
    expect(subject.changesAtMs(now)).toBe(now + TRIAL_MS);
    now += TRIAL_MS - 1;
    expect(subject.canTake(now)).toBe(false);
    trial.connected(now);
    now += 1;
    expect(subject.canTake(now)).toBe(true);
    expect(events).toEqual(["out 10000", "in"]);
  });

  it("does not pass by a dial that takes its time", () => {
    takeTrial();
    now += 10 * TRIAL_MS;
    expect(subject.state(now)).toBe("halfOpen");
  });

  it("fails when its dial does: out for twice as long", () => {
    takeTrial().ended("bad", now);
    expect(events).toEqual(["out 10000", "out 20000"]);
    expect(subject.ejectedUntilMs(now)).toBe(30_000);
  });

  it("fails when its session is lost before its time, and the pool's rule is not asked", () => {
    const trial = takeTrial();
    allowed = false;
    trial.connected(now);
    now += TRIAL_MS - 1;
    trial.ended("bad", now);
    expect(subject.state(now)).toBe("ejected");
  });

  it("that nobody waited for leaves its turn to the next session, at once", () => {
    takeTrial().ended("abandoned", now);
    expect(subject.state(now)).toBe("ejected");
    expect(subject.canTake(now)).toBe(true);
    takeTrial().ended("good", now);
    expect(subject.state(now)).toBe("in");
    expect(events).toEqual(["out 10000", "in"]);
  });

  it("is not decided by older sessions of the backend", () => {
    takeTrial();
    fail(600);
    subject.succeeded(now);
    expect(subject.state(now)).toBe("halfOpen");
  });

  it("ends once", () => {
    const trial = takeTrial();
    trial.ended("good", now);
    trial.ended("bad", now);
    expect(subject.recentFailures(now)).toBe(0);
  });

  it("is a session like any other once it has passed", () => {
    const trial = takeTrial();
    trial.connected(now);
    now += TRIAL_MS;
    trial.ended("bad", now);
    expect(subject.state(now)).toBe("in");
    expect(subject.recentFailures(now)).toBe(1);
  });

  it("has no say in the next one, if its ejection was lifted", () => {
    const first = takeTrial();
    subject.lift(now);
    fail(3);
    now += 20_000;
    const second = takeTrial();
    first.ended("bad", now);
    expect(subject.state(now)).toBe("halfOpen");
    second.ended("good", now);
    expect(subject.state(now)).toBe("in");
  });
});

describe("the duration", () => {
  it("doubles up to the longest", () => {
    for (let i = 0; i < 6; i += 1) ejectAndReturn();
    const out = events.filter((event) => event !== "in");
    expect(out).toEqual([
      "out 10000",
      "out 20000",
      "out 40000",
      "out 60000",
      "out 60000",
      "out 60000",
    ]);
  });

  it("is never longer than the longest, even the first", () => {
    subject = ejectionOf({ ...CONFIG, durationMs: 90_000 });
    fail(3);
    expect(events).toEqual(["out 60000"]);
  });

  it("starts anew when a success shows that the backend was calm for the longest one", () => {
    ejectAndReturn();
    now += 60_000;
    subject.succeeded(now);
    fail(3);
    expect(events.at(-1)).toBe("out 10000");
  });

  it("does not start anew for a success that comes too early, nor for time alone", () => {
    ejectAndReturn();
    now += 59_999;
    subject.succeeded(now);
    now += 600_000;
    fail(3);
    expect(events.at(-1)).toBe("out 20000");
  });

  it("does not start anew while only the pool's rule kept the backend in", () => {
    ejectAndReturn();
    allowed = false;
    now += 50_000;
    fail(3);
    now += 50_000;
    subject.succeeded(now);
    allowed = true;
    fail(3);
    expect(events.at(-1)).toBe("out 20000");
  });
});

const STEPS = fc.array(
  fc.record({
    kind: fc.constantFrom(
      ...(["fail", "fail", "fail", "fail", "succeed", "wait", "take", "take", "connect"] as const),
      ...(["good", "bad", "bad", "abandoned", "lift", "allow", "allow", "forbid"] as const),
    ),
    ms: fc.nat(3_000),
  }),
  { minLength: 20, maxLength: 300, size: "max" },
);

const QUICK = { failures: 4, windowMs: 2_000, durationMs: 1_000, maxDurationMs: 3_000 };

/** What is to happen, in its plainest form: all failures ever, nothing thrown away, nothing clever. */
class Account {
  now = 0;
  allowed = true;
  state: "in" | "ejected" | "halfOpen" = "in";
  failures: number[] = [];
  until: number | null = null;
  lastDuration = 0;
  restlessAt = Number.NEGATIVE_INFINITY;
  connectedAt: number | null = null;
  durations: number[] = [];

  get recent(): number {
    return this.failures.filter((at) => at > this.now - QUICK.windowMs).length;
  }

  get canTake(): boolean {
    return this.state === "in" || (this.state === "ejected" && this.now >= (this.until ?? 0));
  }

  wait(ms: number): void {
    this.now += ms;
    const { connectedAt } = this;
    const passed = connectedAt !== null && this.now - connectedAt >= TRIAL_MS;
    if (this.state === "halfOpen" && passed) this.comeBack();
  }

  fail(): void {
    if (this.state !== "in") return;
    this.failures.push(this.now);
    if (this.recent < QUICK.failures) return;
    this.restlessAt = this.now;
    if (this.allowed) this.eject();
  }

  succeed(): void {
    const isCalm = this.now - this.restlessAt >= QUICK.maxDurationMs;
    if (this.state === "in" && isCalm) this.lastDuration = 0;
  }

  endTrial(outcome: "good" | "bad" | "abandoned", isCurrent: boolean): void {
    if (!isCurrent && outcome === "bad") this.fail();
    else if (!isCurrent && outcome === "good") this.succeed();
    else if (isCurrent && outcome === "bad") this.eject();
    else if (isCurrent && outcome === "good") this.comeBack();
    else if (isCurrent) this.state = "ejected";
  }

  comeBack(): void {
    if (this.state === "in") return;
    this.state = "in";
    this.until = null;
    this.restlessAt = this.now;
  }

  eject(): void {
    this.state = "ejected";
    this.failures = [];
    const wanted = this.lastDuration === 0 ? QUICK.durationMs : this.lastDuration * 2;
    this.lastDuration = Math.min(QUICK.maxDurationMs, wanted);
    this.until = this.now + this.lastDuration;
    this.durations.push(this.lastDuration);
  }
}

it("does what a plain account of it does, whatever happens, with one trial at a time", () => {
  const seen = new Set<number>();
  let trials = 0;
  fc.assert(
    fc.property(STEPS, (steps) => {
      const account = new Account();
      const durations: number[] = [];
      const ejection = new Ejection(QUICK, {
        mayEject: () => account.allowed,
        ejected: (durationMs) => void durations.push(durationMs),
        returned: () => undefined,
      });
      /** Every trial that has not ended, the last one begun behind the others. */
      const open: Trial[] = [];
      let current: Trial | null = null;
      for (const { kind, ms } of steps) {
        const at = account.now;
        switch (kind) {
          case "wait":
            account.wait(ms);
            break;
          case "allow":
          case "forbid":
            account.allowed = kind === "allow";
            break;
          case "fail":
            account.fail();
            ejection.failed(at);
            break;
          case "succeed":
            account.succeed();
            ejection.succeeded(at);
            break;
          case "lift":
            account.comeBack();
            ejection.lift(at);
            break;
          case "take": {
            const isDue = account.state === "ejected" && account.canTake;
            const trial = ejection.taken(at);
            if ((trial !== null) !== isDue) throw new Error(`a trial at ${at}: ${trial !== null}`);
            if (trial === null) break;
            trials += 1;
            open.push(trial);
            current = trial;
            account.state = "halfOpen";
            account.connectedAt = null;
            break;
          }
          case "connect":
            current?.connected(at);
            if (current !== null) account.connectedAt ??= at;
            break;
          case "good":
          case "bad":
          case "abandoned": {
            // Mostly the current one, at times one that was overtaken by a lift.
            const trial = ms % 3 === 0 ? open.shift() : open.pop();
            if (trial === undefined) break;
            account.endTrial(kind, trial === current && account.state === "halfOpen");
            trial.ended(kind, at);
            break;
          }
        }
        expect({
          state: ejection.state(account.now),
          canTake: ejection.canTake(account.now),
          until: ejection.ejectedUntilMs(account.now),
          recent: ejection.recentFailures(account.now),
          duration: durations.at(-1),
        }).toEqual({
          state: account.state,
          canTake: account.canTake,
          until: account.until,
          // The ring holds no more than it takes to eject.
          recent: Math.min(QUICK.failures, account.recent),
          duration: account.durations.at(-1),
        });
        const changesAt = ejection.changesAtMs(account.now) ?? Number.POSITIVE_INFINITY;
        expect(changesAt).toBeGreaterThan(account.now);
      }
      expect(durations).toEqual(account.durations);
      for (const duration of durations) seen.add(duration);
    }),
    { numRuns: 100 },
  );
  // The property would hold of a backend to which nothing ever happens.
  expect([...seen].toSorted((a, b) => a - b)).toEqual([1_000, 2_000, 3_000]);
  expect(trials).toBeGreaterThan(20);
});
