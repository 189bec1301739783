/** What a next upstream gets of the client's frames: each case by hand, and any history against a model. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { SessionRetryConfig } from "../../../src/config/config.ts";
import { ClientLog } from "../../../src/session/client-log.ts";

function configOf(options: Partial<SessionRetryConfig> = {}): SessionRetryConfig {
  return {
    onLost: true,
    onUnresponsive: true,
    onDrained: true,
    onCodes: new Set(),
    attempts: 1,
    timeoutMs: 1,
    bufferBytes: 1_000,
    resend: "none",
    replayFirst: 0,
    replaySwallow: 0,
    notify: "",
    ...options,
  };
}

/** A log that is told what a relay would tell it. */
class Told {
  readonly log: ClientLog;
  messages = 0;
  #unfinished = 0;

  constructor(options: Partial<SessionRetryConfig> = {}) {
    this.log = new ClientLog(configOf(options));
  }

  /** Frames that belong to one message; `ends`: it ends with them. */
  part(text: string, ends: boolean): this {
    if (ends) this.messages += 1;
    this.#unfinished = ends ? 0 : this.#unfinished + text.length;
    this.log.append(Buffer.from(text), this.#unfinished, this.messages);
    return this;
  }

  /** The end of one message and the start of the next, in one call. */
  seam(end: string, begin: string): this {
    this.messages += 1;
    this.#unfinished = begin.length;
    this.log.append(Buffer.from(end + begin), this.#unfinished, this.messages);
    return this;
  }

  lose(): this {
    this.log.wait();
    return this;
  }

  resume(): string {
    return Buffer.concat([...this.log.firsts.flat(), ...this.log.resume()]).toString();
  }
}

describe("A log", () => {
  it("sends nothing again that has been passed on whole", () => {
    expect(new Told().part("one", true).part("two", true).lose().resume()).toBe("");
  });

  it("sends an unfinished message from its start", () => {
    const told = new Told().part("one", true).part("tw", false).lose().part("o", true);
    expect(told.part("three", true).resume()).toBe("twothree");
    expect(told.lose().resume()).toBe("");
  });

  it("finds the start of a message inside a call", () => {
    expect(new Told().part("o", false).seam("ne", "tw").lose().resume()).toBe("tw");
  });

  it("keeps more than the buffer while there is no upstream, and says that it is full", () => {
    const told = new Told({ bufferBytes: 4 }).lose().part("abc", true);
    expect(told.log.full).toBe(false);
    told.part("def", false);
    expect(told.log.full).toBe(true);
    expect(told.log.outgrown).toBe(false);
    expect(told.resume()).toBe("abcdef");
  });

  it("gives up an unfinished message that outgrows the buffer, until it ends", () => {
    const told = new Told({ bufferBytes: 4 }).part("abcd", false);
    expect(told.log.outgrown).toBe(true);
    // Many times the size of all before it: still the same message.
    told.part("e".repeat(100), false);
    expect([told.log.outgrown, told.log.keptBytes]).toEqual([true, 0]);
    told.seam("end", "ne");
    expect([told.log.outgrown, told.log.keptBytes]).toEqual([false, 2]);
    expect(told.lose().resume()).toBe("ne");
  });

  it("takes no pings and pongs for first messages, however many come", () => {
    const told = new Told({ replayFirst: 2, bufferBytes: 100 }).part("login", true);
    for (let count = 0; count < 1_000; count += 1) told.log.append(Buffer.from("pong"), 0, 1);
    expect([told.log.outgrown, told.log.firsts.flat().length]).toEqual([false, 1]);
    told.part("join", true).part("talk", true);
    expect(told.lose().resume()).toBe("loginjoin");
  });

  it("gathers the small fragments of first messages", () => {
    const told = new Told({ replayFirst: 1, bufferBytes: 10_000 });
    for (let count = 0; count < 4_096; count += 1) told.part("a", false);
    told.part("b", true);
    expect(told.log.firsts.flat().length).toBeLessThanOrEqual(5);
    expect(told.lose().resume()).toBe(`${"a".repeat(4_096)}b`);
  });

  it("is not stuck with an unfinished message that fills the buffer once all before it is confirmed", () => {
    const told = new Told({ bufferBytes: 4, resend: "unconfirmed" }).part("one", true);
    const { boundary } = told.log;
    told.part("abcdef", false);
    expect([told.log.full, told.log.outgrown]).toEqual([true, false]);
    told.log.confirm(boundary);
    expect([told.log.full, told.log.outgrown]).toEqual([false, true]);
  });

  it("is not stuck after a resume with more unfinished than the buffer holds", () => {
    const told = new Told({ bufferBytes: 4, resend: "unconfirmed" }).lose().part("abcdef", false);
    expect(told.resume()).toBe("abcdef");
    expect(told.log.full).toBe(false);
  });

  it("sends what is unconfirmed again, and what was given up only after a confirmation not", () => {
    const told = new Told({ bufferBytes: 4, resend: "unconfirmed" });
    told.part("abcdef", false).part("g", true);
    expect(told.log.outgrown).toBe(true);
    told.log.confirm(told.log.boundary);
    expect(told.log.outgrown).toBe(false);
    expect(told.part("hi", true).lose().resume()).toBe("hi");
    expect(told.lose().resume()).toBe("hi");
  });

  it("replays the first messages before the rest, none of it twice", () => {
    const told = new Told({ replayFirst: 2, resend: "unconfirmed" });
    told.part("one", true).part("t", false);
    expect(told.lose().resume()).toBe("onet");
    told.part("wo", true).part("three", true);
    expect(told.lose().resume()).toBe("onetwothree");
    told.log.confirm(told.log.boundary);
    expect(told.lose().resume()).toBe("onetwo");
  });

  it("keeps no more of a first message than the buffer holds, before and after a resume", () => {
    const told = new Told({ replayFirst: 1, bufferBytes: 4 }).part("a", false);
    expect(told.lose().resume()).toBe("a");
    told.part("b".repeat(10), false).part("c".repeat(10), false).part("d".repeat(10), false);
    expect(told.log.outgrown).toBe(true);
    expect(told.log.keptBytes).toBeLessThan(20);
  });

  it("keeps many small pieces in few blocks, and none once they are confirmed", () => {
    const told = new Told({ bufferBytes: 100_000, resend: "unconfirmed" });
    const all = Array.from({ length: 5_000 }, (_, number) => `${number} `);
    for (const text of all) told.part(text, true);
    const blocks = told.lose().log.resume();
    expect(Buffer.concat(blocks).toString()).toBe(all.join(""));
    expect(blocks.length).toBeLessThan(12);
    const bytes = blocks.reduce((sum, { buffer }) => sum + buffer.byteLength, 0);
    expect(bytes).toBeLessThan(2 * all.join("").length);
    told.log.confirm(told.log.boundary);
    expect(told.part("last", true).lose().resume()).toBe("last");
  });

  it("does not keep a large chunk alive for a few bytes of it", () => {
    const chunk = Buffer.from(new ArrayBuffer(65_536)).subarray(100, 110);
    const log = new ClientLog(configOf());
    log.append(chunk, 10, 0);
    log.wait();
    expect(log.resume()[0]?.buffer.byteLength).toBeLessThan(65_536);
  });
});

type Step =
  | { readonly do: "append"; readonly parts: readonly (readonly [size: number, ends: boolean])[] }
  | { readonly do: "mark" | "confirm" | "lose" | "resume" };

/** What the contract promises, said without any economy: every byte is kept. */
class Model {
  bytes = Buffer.alloc(0);
  messages = 0;
  waiting = false;
  confirmed = 0;
  /** Where the unfinished message began; the end, if none is. */
  boundary = 0;
  /** What had been passed on when the upstream was lost, up to the last whole message. */
  passedOn = 0;
  firstsEnd = 0;

  append(parts: readonly (readonly [number, boolean])[], first: number): void {
    for (const [size, ends] of parts) {
      const start = this.bytes.length;
      const added = Buffer.from(Array.from({ length: size }, (_, i) => (start + i) % 251));
      this.bytes = Buffer.concat([this.bytes, added]);
      if (this.messages < first) this.firstsEnd = this.bytes.length;
      if (!ends) continue;
      this.messages += 1;
      this.boundary = this.bytes.length;
    }
  }

  expected(resend: "none" | "unconfirmed", first: number): Buffer {
    const from = resend === "unconfirmed" ? this.confirmed : this.passedOn;
    const firsts = first > 0 ? this.firstsEnd : 0;
    return Buffer.concat([
      this.bytes.subarray(0, firsts),
      this.bytes.subarray(Math.max(from, firsts)),
    ]);
  }
}

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constant("append" as const),
    parts: fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.boolean()), {
      minLength: 1,
      maxLength: 4,
    }),
  }),
  fc.record({ do: fc.constantFrom("mark" as const, "confirm" as const) }),
  fc.record({ do: fc.constantFrom("lose" as const, "resume" as const) }),
);

/** A log and its model, through the same history. */
class History {
  readonly #log: ClientLog;
  readonly #model = new Model();
  readonly #config: SessionRetryConfig;
  #mark = 0;
  resumes = 0;
  /** What was found to be wrong; empty: nothing. */
  readonly faults: string[] = [];

  constructor(config: SessionRetryConfig) {
    this.#config = config;
    this.#log = new ClientLog(config);
  }

  take(step: Step): void {
    switch (step.do) {
      case "append":
        this.#append(step.parts);
        break;
      case "mark":
        if (!this.#model.waiting) this.#mark = this.#log.boundary;
        break;
      case "confirm":
        this.#confirm();
        break;
      case "lose":
        this.#lose();
        break;
      case "resume":
        this.#resume();
        break;
    }
    this.#check();
  }

  #append(all: readonly (readonly [number, boolean])[]): void {
    const { resend, replayFirst } = this.#config;
    // A session that waits, or has to be confirmed, takes nothing while the log is full.
    if (this.#log.full && (this.#model.waiting || resend === "unconfirmed")) return;
    for (const parts of calls(all, this.#model.messages, replayFirst)) {
      const before = this.#model.bytes.length;
      this.#model.append(parts, replayFirst);
      const { bytes, boundary, messages } = this.#model;
      this.#log.append(Buffer.from(bytes.subarray(before)), bytes.length - boundary, messages);
    }
  }

  #confirm(): void {
    // Pongs of a lost upstream are not heard.
    if (this.#model.waiting) return;
    this.#log.confirm(this.#mark);
    this.#model.confirmed = Math.max(this.#model.confirmed, this.#mark);
  }

  #lose(): void {
    if (this.#model.waiting || this.#log.outgrown) return;
    this.#log.wait();
    this.#model.waiting = true;
    this.#mark = 0;
    this.#model.passedOn = this.#model.boundary;
  }

  #resume(): void {
    if (!this.#model.waiting || this.#log.outgrown) return;
    this.resumes += 1;
    const { resend, replayFirst } = this.#config;
    const got = Buffer.concat([...this.#log.firsts.flat(), ...this.#log.resume()]);
    const expected = this.#model.expected(resend, replayFirst);
    if (!got.equals(expected)) this.faults.push(`got ${got.length} of ${expected.length} bytes`);
    this.#model.waiting = false;
  }

  #check(): void {
    const { boundary, full, unconfirmed, keptBytes } = this.#log;
    if (boundary !== this.#model.boundary) this.faults.push(`boundary at ${boundary}`);
    if (this.#model.waiting) return;
    // One call may overshoot; while an upstream is there nothing else may.
    if (keptBytes >= this.#config.bufferBytes + 400) this.faults.push(`keeps ${keptBytes}`);
    const isStuck = full && this.#config.resend === "unconfirmed" && !unconfirmed;
    if (isStuck) this.faults.push("full, and nothing could make room");
  }
}

describe("Any history", () => {
  it.each([
    ["none", 0],
    ["unconfirmed", 0],
    ["none", 2],
    ["unconfirmed", 2],
  ] as const)("gives a next upstream what was promised: resend %s, replay %i", (resend, first) => {
    let resumes = 0;
    fc.assert(
      fc.property(
        fc.array(anyStep, { minLength: 30, maxLength: 60, size: "max" }),
        fc.integer({ min: 20, max: 400 }),
        (steps, bufferBytes) => {
          const history = new History(configOf({ bufferBytes, resend, replayFirst: first }));
          for (const next of steps) history.take(next);
          resumes += history.resumes;
          expect(history.faults).toEqual([]);
        },
      ),
      { numRuns: 500 },
    );
    expect(resumes).toBeGreaterThan(100);
  });
});

/** The relay forwards what belongs to the first messages in calls that end where a message does. */
function calls(
  parts: readonly (readonly [number, boolean])[],
  messages: number,
  first: number,
): (readonly (readonly [number, boolean])[])[] {
  const all: (readonly [number, boolean])[][] = [[]];
  let count = messages;
  for (const part of parts) {
    all.at(-1)?.push(part);
    if (!part[1]) continue;
    count += 1;
    if (count <= first) all.push([]);
  }
  return all.filter(({ length }) => length > 0);
}
