/** When a lost upstream starts a new outage, and when it goes on with the one before. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type GaveUp,
  type Loss,
  type RetryHost,
  SessionRetry,
  type UpstreamWriter,
} from "../../../src/session/session-retry.ts";
import type { Slot } from "../../../src/upstream/backend.ts";
import type { Connected } from "../../../src/upstream/connect.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { backendOf, poolOf, taken } from "../upstream/connect-bench.ts";
import { FakeUpstream } from "../upstream/fake-upstream.ts";
import { routeOf } from "./fake-socket.ts";

vi.mock(import("../../../src/upstream/upstream-socket.ts"), async (original) => ({
  ...(await original()),
  UpstreamSocket: (await import("../upstream/fake-upstream.ts")).FakeUpstream,
}));

const PING = 1;
const STABLE_MS = 5_000;
const HOUR_MS = 3_600_000;
const readBuffers = new ReadBuffers(new SlabPool());

beforeEach(() => {
  vi.useFakeTimers();
  FakeUpstream.onDial = (dial) => dial.accept();
});

afterEach(() => {
  const timers = vi.getTimerCount();
  vi.useRealTimers();
  FakeUpstream.reset();
  if (timers !== 0) throw new Error(`${timers} timers are left`);
});

/** A session as far as its retry sees it: an upstream that is lost, and the next one. */
class Bench implements RetryHost, UpstreamWriter {
  readonly pool: Pool;
  readonly retry: SessionRetry;
  readonly written: string[] = [];
  outcome: "none" | "connected" | "failed" = "none";
  why: GaveUp | null = null;
  #slot: Slot | null = null;
  #endedAt = Number.NaN;
  #messages = 0;

  constructor(session = "", backends = 2) {
    const route = routeOf(
      `retry: { session: { enabled: true, ${session} }, backoff: { jitter: 0 } }`,
    );
    if (route.retry.session === null) throw new Error("no session retry");
    this.pool = poolOf(Array.from({ length: backends }, () => ({})));
    const redial = {
      pool: () => this.pool,
      request: { target: "/", headerLines: "Host: a\r\n", subprotocols: [], offers: [] },
      key: null,
      dependencies: {
        observer: { dialEnded: () => undefined },
        readBuffers,
        random: () => 0,
        now: () => performance.now(),
      },
    };
    const parts = { route, subprotocol: "", deflate: null };
    this.retry = new SessionRetry(this, this, parts, route.retry.session, redial);
  }

  takeOver({ slot }: Connected): void {
    this.outcome = "connected";
    this.#slot = slot;
    this.#endedAt = performance.now();
    this.retry.resume(this.#endedAt, 1);
    this.retry.bringUpToDate();
  }

  gaveUp(why: GaveUp): void {
    this.why = why;
    this.outcome = "failed";
    this.#endedAt = performance.now();
  }

  standsBy(): void {
    this.written.push("stands by");
  }

  writeToUpstream(frames: Buffer): void {
    this.written.push(frames.toString());
  }

  pingUpstream(): void {
    this.retry.pinged(PING, performance.now());
  }

  caughtUp(): void {
    this.written.push("caught up");
  }

  /** A message of the client's, or with `unfinishedBytes` the beginning of one. */
  say(text: string, unfinishedBytes = 0): void {
    if (unfinishedBytes === 0) this.#messages += 1;
    this.retry.keep(Buffer.from(text), null, { unfinishedBytes, messages: this.#messages });
  }

  /** Loses backend `port` and waits for what comes of it; how long that took, in milliseconds. */
  async lose(port: number): Promise<number> {
    const from = performance.now();
    this.#slot?.release();
    this.#slot = null;
    this.outcome = "none";
    this.#endedAt = Number.NaN;
    this.retry.begin(backendOf(this.pool, port), from);
    for (let step = 0; step < 1_000 && Number.isNaN(this.#endedAt); step += 1) {
      // oxlint-disable-next-line no-await-in-loop -- time passes step by step
      await vi.advanceTimersByTimeAsync(step === 0 ? 0 : 100);
    }
    return Math.round(this.#endedAt - from);
  }

  /** The next upstream, over and over, dies so long after it has taken over. */
  async flap(
    livesMs: number,
    losses: number,
    onResume = (retry: SessionRetry): unknown => retry.clientCloses(),
  ): Promise<number[]> {
    const waits: number[] = [];
    for (let loss = 0; loss < losses; loss += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      waits.push(await this.lose((loss % 2) + 1));
      if (this.outcome !== "connected") break;
      onResume(this.retry);
      // oxlint-disable-next-line no-await-in-loop -- as above
      await vi.advanceTimersByTimeAsync(livesMs);
    }
    return waits;
  }
}

describe("An upstream that dies after a resume", () => {
  it("within 5 s goes on with the waits and the attempts of before", async () => {
    const bench = new Bench("attempts: 4");
    // Four dials, each after a longer wait; the fifth loss has none left.
    expect(await bench.flap(STABLE_MS - 1, 10)).toEqual([0, 1_000, 2_000, 4_000, 0]);
    expect(bench.outcome).toBe("failed");
    expect(FakeUpstream.dials).toHaveLength(4);
    expect(bench.why?.cause).toBe("retryExhausted");
    expect(bench.why?.note).toBe("retry.session.attempts are used up");
    expect([bench.retry.resumes, bench.retry.dials]).toEqual([4, 4]);
    expect(bench.retry.waitedMs).toBe(7_000);
    expect(taken(bench.pool)).toEqual([0, 0]);
  });

  it("carries over attempts, however many backends each of them had to dial", async () => {
    let dials = 0;
    FakeUpstream.onDial = (dial) => {
      dials += 1;
      if (dials % 3 === 0) dial.accept();
      else dial.refuse();
    };
    const bench = new Bench("attempts: 4", 6);
    expect(await bench.flap(STABLE_MS - 1, 10)).toEqual([0, 1_000, 2_000, 4_000, 0]);
    expect(bench.why?.note).toBe("retry.session.attempts are used up");
    expect([bench.retry.resumes, bench.retry.dials]).toEqual([4, 12]);
  });

  it("has as many dials in an attempt as retry.connect.attempts says", async () => {
    FakeUpstream.onDial = (dial) => dial.refuse();
    const bench = new Bench("attempts: 2", 9);
    expect(await bench.lose(1)).toBe(1_000);
    // The default is 3.
    expect([bench.outcome, bench.retry.dials]).toEqual(["failed", 6]);
    expect(bench.why).toMatchObject({
      cause: "retryExhausted",
      note: "ECONNREFUSED during the handshake",
    });
  });

  it("after 5 s starts anew: another backend at once, and all attempts", async () => {
    const bench = new Bench("attempts: 2");
    expect(await bench.flap(STABLE_MS, 10)).toEqual(Array(10).fill(0));
    expect(bench.retry.resumes).toBe(10);
    expect(bench.retry.abort(performance.now())).toBe(false);
  });

  it("goes on however late, where it never answered what was repeated to it", async () => {
    const bench = new Bench("attempts: 3, replay: { first: 1, swallow: 1 }");
    bench.say("login");
    // Each is given up after `timeout`, as unresponsive.
    expect(await bench.flap(30_000, 10, (retry) => retry.bringUpToDate())).toEqual([
      0, 1_000, 2_000, 0,
    ]);
    expect(bench.outcome).toBe("failed");
    expect(FakeUpstream.dials).toHaveLength(3);
  });

  it("goes on however late, where it never confirmed what was sent again", async () => {
    const bench = new Bench("attempts: 3, resend: unconfirmed");
    bench.say("a message that hangs every backend");
    // An interval and a timeout of the heartbeat.
    expect(await bench.flap(45_000, 10)).toEqual([0, 1_000, 2_000, 0]);
    expect(bench.outcome).toBe("failed");
  });

  it("starts anew after 5 s where it confirmed what was sent again", async () => {
    const bench = new Bench("attempts: 3, resend: unconfirmed");
    bench.say("a message");
    const waits = await bench.flap(STABLE_MS, 10, (retry) => {
      retry.ponged(PING);
    });
    expect(waits).toEqual(Array(10).fill(0));
  });

  it("is dialled again after one wait where it is the only one", async () => {
    const bench = new Bench("", 1);
    expect(await bench.lose(1)).toBe(1_000);
    await vi.advanceTimersByTimeAsync(STABLE_MS);
    expect(await bench.lose(1)).toBe(1_000);
    expect(bench.outcome).toBe("connected");
  });

  it("tells each upstream which resume it is", async () => {
    const requests: string[] = [];
    FakeUpstream.onDial = (dial) => {
      requests.push(/^Softclose-Resume: .*$/m.exec(dial.request)?.[0] ?? "");
      if (requests.length === 2) dial.refuse();
      else dial.accept();
    };
    await new Bench("").flap(STABLE_MS, 3);
    expect(requests.map((line) => line.at(-1))).toEqual(["1", "2", "2", "3"]);
  });
});

describe("The end of the wait", () => {
  it.each([401, 403])("by a %i is the client's to know: it was turned away", async (status) => {
    FakeUpstream.onDial = (dial) =>
      dial.answer(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`);
    const bench = new Bench("", 3);
    expect(await bench.lose(1)).toBe(0);
    expect(bench.why).toMatchObject({ cause: "upstreamRejected", detail: { status } });
    expect(FakeUpstream.dials).toHaveLength(1);
  });

  it.each([404, 429, 500])("does not come by a %i: only the attempts end it", async (status) => {
    FakeUpstream.onDial = (dial) =>
      dial.answer(`HTTP/1.1 ${status} No\r\nContent-Length: 0\r\n\r\n`);
    const bench = new Bench("attempts: 2", 3);
    expect(await bench.lose(1)).toBe(1_000);
    expect(bench.why).toEqual({
      cause: "retryExhausted",
      detail: {},
      note: `upstream answered ${status}`,
    });
    expect(FakeUpstream.dials).toHaveLength(5);
  });

  it("by an abort counts what was done, and leaves nothing", async () => {
    FakeUpstream.onDial = (dial) => dial.refuse();
    const bench = new Bench("");
    const from = performance.now();
    bench.retry.begin(backendOf(bench.pool, 1), from);
    await vi.advanceTimersByTimeAsync(1_500);
    expect(bench.retry.abort(performance.now())).toBe(true);
    expect(bench.retry.abort(performance.now())).toBe(false);
    expect([bench.retry.dials, bench.retry.waitedMs]).toEqual([3, 1_500]);
    await vi.advanceTimersByTimeAsync(HOUR_MS);
    expect(bench.outcome).toBe("none");
    expect(FakeUpstream.dials).toHaveLength(3);
    expect(taken(bench.pool)).toEqual([0, 0]);
  });
});

it.each<[string, readonly Loss[]]>([
  ["", ["lost", "unresponsive", 1012]],
  ["on: [lost]", ["lost"]],
  ["on: [unresponsive]", ["unresponsive"]],
  ["on: [1001, 4000]", [1001, 4000]],
  ["on: [drained]", []],
])("wants what is in `on`: %s", (on, wanted) => {
  const all: readonly Loss[] = ["lost", "unresponsive", 1000, 1001, 1005, 1011, 1012, 4000];
  const { retry } = new Bench(on);
  expect(all.filter((loss) => retry.judge(loss, false) === "wait")).toEqual(wanted);
  const rest = all.filter((loss) => !wanted.includes(loss));
  expect(rest.filter((loss) => retry.judge(loss, true) !== "end")).toEqual([]);
});

it("is impossible inside a message, and beyond the buffer", () => {
  const bench = new Bench("buffer: 1KiB");
  const { retry } = bench;
  const judged = () => [retry.judge("lost", false), retry.judge("lost", true)];
  expect(judged()).toEqual(["wait", "mid-message"]);
  bench.say("x".repeat(2_048), 2_048);
  expect(judged()).toEqual(["buffer", "mid-message"]);
});

it("leaves no upstream that has yet to get what it has missed", async () => {
  const bench = new Bench("resend: unconfirmed, replay: { first: 1, swallow: 1 }", 3);
  bench.say("login");
  bench.say("news");
  await bench.lose(1);
  bench.retry.prepare(backendOf(bench.pool, 2), performance.now());
  await vi.advanceTimersByTimeAsync(10);
  expect(bench.written).toEqual(["login", "stands by"]);
  expect(bench.retry.mayLeave).toBe(false);
  bench.retry.answered();
  expect(bench.retry.mayLeave).toBe(true);
  expect(bench.written).toEqual(["login", "stands by", "news", "caught up"]);
  bench.retry.abort(performance.now());
});

it("is done with a new upstream once it has written what was missed", async () => {
  const bench = new Bench("replay: { first: 1, swallow: 1 }");
  bench.say("login");
  bench.say("news");
  const losing = bench.lose(1);
  bench.say("more");
  await losing;
  expect(bench.written).toEqual(["login"]);
  expect(bench.retry.keep(Buffer.from("late"), null, { unfinishedBytes: 0, messages: 4 })).toBe(
    false,
  );
  bench.retry.answered();
  expect(bench.written).toEqual(["login", "morelate", "caught up"]);
  expect(bench.retry.keep(Buffer.from("x"), null, { unfinishedBytes: 0, messages: 5 })).toBe(true);
});
