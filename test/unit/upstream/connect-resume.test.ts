/** Connecting for a session that has lost its upstream: who is dialled, when, how often, and what is left. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Connection } from "../../../src/upstream/dial.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import {
  type BackendSetting,
  backendOf,
  begin,
  DEFAULTS,
  giveBack,
  poolOf,
  taken,
} from "./connect-bench.ts";
import { FakeUpstream } from "./fake-upstream.ts";

vi.mock(import("../../../src/upstream/upstream-socket.ts"), async (original) => ({
  ...(await original()),
  UpstreamSocket: (await import("./fake-upstream.ts")).FakeUpstream,
}));

const HOUR_MS = 3_600_000;

let startedAt: number;

beforeEach(() => {
  vi.useFakeTimers();
  startedAt = performance.now();
});

afterEach(() => {
  // Whatever became of a dial: no timer stays.
  const timers = vi.getTimerCount();
  vi.useRealTimers();
  FakeUpstream.reset();
  if (timers !== 0) throw new Error(`${timers} timers are left`);
});

const refuse = (dial: FakeUpstream): void => dial.refuse();
const accept = (dial: FakeUpstream): void => dial.accept();
/** Milliseconds from the test's begin to each dial. */
const dialTimes = (): number[] => FakeUpstream.dials.map(({ at }) => Math.round(at - startedAt));
const answerOf = (status: number): string => `HTTP/1.1 ${status} Text\r\nContent-Length: 0\r\n\r\n`;
/** So many backends without sessions. */
const idle = (count: number): BackendSetting[] => Array.from({ length: count }, () => ({}));
const dialledPorts = (): number[] => FakeUpstream.dials.map(({ port }) => port);
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe("The first dial", () => {
  it("goes at once to another backend, though the lost one has the fewest connections", async () => {
    FakeUpstream.onDial = accept;
    const pool = poolOf([{}, { taken: 5 }]);
    const { done, results } = begin(pool);
    await pass(0);
    expect([dialledPorts(), dialTimes()]).toEqual([[2], [0]]);
    expect(done).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ kind: "connected", dials: 1 }),
    );
    expect(taken(pool)).toEqual([0, 6]);
    await giveBack(results());
    expect(taken(pool)).toEqual([0, 5]);
  });

  it("goes to the lost backend after one wait, where there is no other", async () => {
    FakeUpstream.onDial = accept;
    const { results } = begin(poolOf([{}]));
    await pass(999);
    expect(FakeUpstream.dials).toEqual([]);
    await pass(1);
    expect([dialledPorts(), dialTimes()]).toEqual([[1], [1_000]]);
    await giveBack(results());
  });

  it("waits where atOnce is false, though another backend is free, and then goes there", async () => {
    FakeUpstream.onDial = accept;
    const { results, connecting } = begin(poolOf([{}, {}]), { atOnce: false });
    await pass(999);
    expect(FakeUpstream.dials).toEqual([]);
    await pass(1);
    expect([dialledPorts(), dialTimes(), connecting.rounds]).toEqual([[2], [1_000], 1]);
    await giveBack(results());
  });
});

describe("The waits", () => {
  it.each([
    [0, [1_000, 3_000, 7_000, 15_000, 31_000, 61_000, 91_000]],
    [0.5, [750, 2_250, 5_250, 11_250, 23_250, 45_750, 68_250]],
    [0.999, [500, 1_501, 3_503, 7_507, 15_515, 30_530, 45_545]],
  ])("double up to the longest, shortened by the jitter's draw of %d", async (drawn, times) => {
    FakeUpstream.onDial = refuse;
    const { done } = begin(poolOf([{}]), {
      backoff: DEFAULTS,
      attempts: 7,
      timeoutMs: HOUR_MS,
      random: () => drawn,
    });
    await pass(HOUR_MS);
    // A timer drops what is less than a millisecond.
    for (const [index, at] of dialTimes().entries()) {
      expect(Math.abs(at - (times[index] ?? Number.NaN))).toBeLessThanOrEqual(index + 1);
    }
    expect(FakeUpstream.dials).toHaveLength(7);
    expect(done).toHaveBeenCalledOnce();
  });

  it("go on from the rounds of an earlier loss", async () => {
    FakeUpstream.onDial = refuse;
    const { connecting } = begin(poolOf([{}, {}]), { rounds: 2, atOnce: false, attempts: 2 });
    await pass(HOUR_MS);
    expect(dialTimes()).toEqual([4_000, 4_000, 12_000, 12_000]);
    expect([connecting.rounds, connecting.attempts, connecting.dials]).toEqual([4, 2, 4]);
  });

  it("lie between rounds only: inside one, the next backend is dialled at once", async () => {
    FakeUpstream.onDial = (dial) => dial.after(40, refuse);
    const { connecting } = begin(poolOf([{}, {}, {}]), { attempts: 3 });
    await pass(HOUR_MS);
    expect(dialTimes()).toEqual([0, 40, 1_080, 1_120, 1_160, 3_200, 3_240, 3_280]);
    expect([connecting.rounds, connecting.attempts, connecting.dials]).toEqual([2, 3, 8]);
  });
});

describe("The lost backend", () => {
  it.each(["leastConnections", "roundRobin"] as const)(
    "is the last of every round, however empty it is: %s",
    async (balance) => {
      FakeUpstream.onDial = refuse;
      begin(poolOf([{ taken: 5 }, {}, { taken: 3 }, { taken: 9 }], balance), {
        lost: 2,
        attempts: 4,
        dialsPerRound: 4,
        timeoutMs: HOUR_MS,
      });
      await pass(HOUR_MS);
      const ports = dialledPorts();
      const rounds = [ports.slice(0, 3), ports.slice(3, 7), ports.slice(7, 11), ports.slice(11)];
      expect(rounds.map((round) => round.toSorted((a, b) => a - b))).toEqual([
        [1, 3, 4],
        [1, 2, 3, 4],
        [1, 2, 3, 4],
        [1, 2, 3, 4],
      ]);
      expect(rounds.slice(1).map((round) => round.at(-1))).toEqual([2, 2, 2]);
    },
  );

  it("is dialled in a later round where the others are full", async () => {
    FakeUpstream.onDial = accept;
    const pool = poolOf([{}, { maxConnections: 1, taken: 1 }]);
    const { results } = begin(pool);
    await pass(1_000);
    expect([dialledPorts(), dialTimes()]).toEqual([[1], [1_000]]);
    await giveBack(results());
    expect(taken(pool)).toEqual([0, 1]);
  });
});

describe("The end of trying", () => {
  it.each([1, 2, 3, 4, 5, 6, 7])("comes with round %i, without a wait", async (attempts) => {
    FakeUpstream.onDial = refuse;
    const pool = poolOf([{}, {}, {}]);
    const { done, connecting } = begin(pool, { attempts, timeoutMs: HOUR_MS });
    // The lost one is none of the first round's.
    const dials = 2 + 3 * (attempts - 1);
    let last = -1;
    done.mockImplementation(() => {
      last = Math.round(performance.now() - startedAt);
    });
    await pass(HOUR_MS);
    expect(FakeUpstream.dials).toHaveLength(dials);
    expect(last).toBe(dialTimes().at(-1));
    expect(done).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ kind: "failed", dials }),
    );
    expect([connecting.attempts, connecting.rounds]).toEqual([attempts, attempts - 1]);
    expect(taken(pool)).toEqual([0, 0, 0]);
  });

  it.each([
    [0, true],
    [0, false],
    [-3, true],
    [-3, false],
  ])("is there at once with %i attempts left (atOnce: %s)", async (attempts, atOnce) => {
    const pool = poolOf([{}, {}]);
    const { done } = begin(pool, { attempts, atOnce });
    expect(done).toHaveBeenCalledExactlyOnceWith({
      kind: "failed",
      dials: 0,
      backend: backendOf(pool, 1),
      failure: expect.objectContaining({ detail: "retry.session.attempts are used up" }),
    });
    await pass(HOUR_MS);
    expect(FakeUpstream.dials).toEqual([]);
    expect(done).toHaveBeenCalledOnce();
  });

  it("comes with an attempt a second before the timeout; nothing is dialled after it", async () => {
    FakeUpstream.onDial = refuse;
    const { done, connecting } = begin(poolOf([{}]), { attempts: 100, timeoutMs: 10_000 });
    await pass(8_999);
    expect(dialTimes()).toEqual([1_000, 3_000, 7_000]);
    expect(done).not.toHaveBeenCalled();
    await pass(1);
    expect(dialTimes()).toEqual([1_000, 3_000, 7_000, 9_000]);
    expect(done).toHaveBeenCalledOnce();
    await pass(HOUR_MS);
    expect([connecting.dials, connecting.attempts, connecting.rounds]).toEqual([4, 4, 4]);
    expect(done).toHaveBeenCalledOnce();
  });

  it.each([
    [0, 0.999, 9_000],
    [0.2, 0.999, 9_200],
    [0.5, 0, 9_000],
    [0.5, 0.999, 9_500],
    // However large the jitter is, half of the second is left for the dial.
    [1, 0.999, 9_500],
  ])("draws the time of that attempt, too: jitter %d, draw %d", async (jitter, drawn, at) => {
    FakeUpstream.onDial = refuse;
    const backoff = { ...DEFAULTS, initialMs: 60_000, maxMs: 60_000, jitter };
    const draws = [0, drawn];
    const random = (): number => draws.shift() ?? 0;
    begin(poolOf([{}, {}]), { timeoutMs: 10_000, backoff, random });
    await pass(HOUR_MS);
    const [first, ...last] = dialTimes();
    expect([first, last.length]).toEqual([0, 2]);
    for (const time of last) expect(Math.abs(time - at)).toBeLessThanOrEqual(1);
  });

  it("comes with one last attempt only, though its timer may fire early", async () => {
    // At that attempt, this clock says that more than a second is left.
    const from = performance.now();
    const now = (): number => from + (performance.now() - from) * 0.99;
    FakeUpstream.onDial = refuse;
    const { done } = begin(poolOf([{}]), { attempts: 100, timeoutMs: 10_000, now });
    await pass(HOUR_MS);
    expect(done).toHaveBeenCalledOnce();
    expect(FakeUpstream.dials).toHaveLength(4);
  });

  it("is not brought forward by short waits: they go on until none fits", async () => {
    FakeUpstream.onDial = refuse;
    const backoff = { ...DEFAULTS, initialMs: 400, factor: 1, jitter: 0 };
    begin(poolOf([{}]), { attempts: 100, timeoutMs: 2_500, backoff });
    await pass(HOUR_MS);
    expect(dialTimes()).toEqual([400, 800, 1_200, 1_600, 2_000, 2_400]);
  });

  it("has no attempt brought forward where less than a second is left", async () => {
    FakeUpstream.onDial = refuse;
    const backoff = { ...DEFAULTS, initialMs: 2_000, jitter: 0 };
    const { done } = begin(poolOf([{}, {}]), { timeoutMs: 1_000, backoff });
    await pass(0);
    expect(done).toHaveBeenCalledOnce();
    expect(dialTimes()).toEqual([0]);
  });

  it("lets a wait that would end within the last second end before it", async () => {
    FakeUpstream.onDial = refuse;
    begin(poolOf([{}]), { attempts: 100, timeoutMs: 7_900 });
    await pass(HOUR_MS);
    expect(dialTimes()).toEqual([1_000, 3_000, 6_900]);
  });

  it("cuts the last dial off where it would outlast the timeout", async () => {
    const pool = poolOf([{}, {}]);
    const { done, outcomes } = begin(pool, { attempts: 100, timeoutMs: 8_000 });
    await pass(7_999);
    // 5 s are the pool's connectTimeout, and after 1 s of waiting 2 s are left.
    expect(dialTimes()).toEqual([0, 6_000]);
    expect(done).not.toHaveBeenCalled();
    await pass(1);
    expect(done).toHaveBeenCalledOnce();
    await pass(HOUR_MS);
    expect(outcomes).toEqual(["timeout", "timeout"]);
    expect(taken(pool)).toEqual([0, 0]);
    expect(FakeUpstream.dials.map(({ gone }) => gone)).toEqual([true, true]);
  });

  it("comes with the dial that had all the time left, though its timer may fire early", async () => {
    // At the timer, this clock says that 2 ms are left, and a third backend has not been tried.
    const from = performance.now();
    const now = (): number => from + (performance.now() - from) * 0.999;
    const { done } = begin(poolOf([{}, {}, {}]), { timeoutMs: 2_000, now });
    await pass(2_000);
    expect(done).toHaveBeenCalledOnce();
    expect(FakeUpstream.dials).toHaveLength(1);
  });

  it("is there at once without any time", async () => {
    const { done } = begin(poolOf([{}, {}]), { timeoutMs: 0 });
    expect(done).toHaveBeenCalledOnce();
    await pass(HOUR_MS);
    expect(FakeUpstream.dials).toEqual([]);
  });

  it.each([401, 403])("comes with a %i, whoever else there is", async (status) => {
    FakeUpstream.onDial = (dial) => dial.answer(answerOf(status));
    const { done } = begin(poolOf([{}, {}, {}]));
    await pass(HOUR_MS);
    expect(FakeUpstream.dials).toHaveLength(1);
    expect(done).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({
        kind: "failed",
        dials: 1,
        failure: expect.objectContaining({ rejection: expect.objectContaining({ status }) }),
      }),
    );
  });

  it.each([
    ...[200, 301, 400, 402, 404, 407, 410, 426, 429, 500, 501, 503].map(answerOf),
    "SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
  ])("does not come with %j: it is a failed attempt, and the next backend comes", async (text) => {
    FakeUpstream.onDial = (dial) => (dial.port === 2 ? dial.answer(text) : dial.accept());
    const pool = poolOf([{}, {}, { taken: 1 }]);
    const { results, outcomes } = begin(pool);
    await pass(0);
    expect([dialledPorts(), dialTimes(), outcomes]).toEqual([
      [2, 3],
      [0, 0],
      ["rejected", "connected"],
    ]);
    await giveBack(results());
    expect(taken(pool)).toEqual([0, 0, 1]);
  });
});

describe("A round", () => {
  it.each([1, 2, 3, 4])("has %i dials at most, one after the other", async (dialsPerRound) => {
    FakeUpstream.onDial = refuse;
    const { connecting } = begin(poolOf(idle(8)), { dialsPerRound, attempts: 3 });
    await pass(HOUR_MS);
    const round = (at: number): number[] => Array(dialsPerRound).fill(at);
    expect(dialTimes()).toEqual([...round(0), ...round(1_000), ...round(3_000)]);
    expect([connecting.dials, connecting.attempts]).toEqual([3 * dialsPerRound, 3]);
  });

  it.each(["leastConnections", "roundRobin"] as const)(
    "begins with those that the one before had no dials left for, lost last: %s",
    async (balance) => {
      FakeUpstream.onDial = refuse;
      begin(poolOf(idle(6), balance), { lost: 4, attempts: 4, timeoutMs: HOUR_MS });
      await pass(HOUR_MS);
      const ports = dialledPorts();
      expect(ports).toHaveLength(12);
      expect(ports.slice(0, 5).toSorted((a, b) => a - b)).toEqual([1, 2, 3, 5, 6]);
      expect(ports[5]).toBe(4);
      expect(ports.slice(6, 11).toSorted((a, b) => a - b)).toEqual([1, 2, 3, 5, 6]);
      expect(ports[11]).toBe(4);
    },
  );

  it("fills up with those that have been tried in earlier ones, none twice", async () => {
    FakeUpstream.onDial = refuse;
    begin(poolOf(idle(5)), { attempts: 3 });
    await pass(HOUR_MS);
    const ports = dialledPorts();
    expect(ports.slice(0, 4).toSorted((a, b) => a - b)).toEqual([2, 3, 4, 5]);
    expect(ports[4]).toBe(1);
    expect(new Set(ports.slice(3, 6)).size).toBe(3);
    expect(new Set(ports.slice(6, 9)).size).toBe(3);
    // The second time around, too, each comes once before any comes again.
    expect(new Set(ports.slice(5, 8))).toEqual(new Set(ports.slice(0, 3)));
  });

  it("comes to the one that works behind many that do not, and look emptier", async () => {
    FakeUpstream.onDial = (dial) => (dial.port === 6 ? dial.accept() : dial.refuse());
    const pool = poolOf([{}, {}, {}, {}, {}, { taken: 100 }]);
    const { results } = begin(pool);
    await pass(1_000);
    expect(dialTimes()).toEqual([0, 0, 0, 1_000, 1_000]);
    await giveBack(results());
  });

  it("that is under way goes on to its other backends, though it is the last", async () => {
    FakeUpstream.onDial = (dial) => (dial.port === 4 ? dial.accept() : dial.refuse());
    const pool = poolOf([{}, {}, { taken: 1 }, { taken: 2 }]);
    const { results, connecting } = begin(pool, { attempts: 1 });
    await pass(0);
    expect([dialledPorts(), connecting.attempts]).toEqual([[2, 3, 4], 1]);
    await giveBack(results());
  });
});

describe("An outage of several backends", () => {
  it.each([0, 0.5, 0.999])("of 2 s is survived, by 7 of 8 (draw %d)", async (drawn) => {
    FakeUpstream.onDial = (dial) =>
      performance.now() - startedAt >= 2_000 ? dial.accept() : dial.refuse();
    const pool = poolOf([...idle(7), { maxConnections: 1, taken: 1 }]);
    const { results, connecting } = begin(pool, { backoff: DEFAULTS, random: () => drawn });
    await pass(4_000);
    expect(results()).toEqual([expect.objectContaining({ kind: "connected" })]);
    // More dials than attempts: none of them was used up by the number of backends.
    expect(connecting.dials).toBeGreaterThan(6);
    expect(connecting.attempts).toBeLessThanOrEqual(4);
    await giveBack(results());
  });
});

describe("A full backend", () => {
  it("is waited for, without a dial, and taken in the first round that finds it free", async () => {
    FakeUpstream.onDial = accept;
    const pool = poolOf([
      { maxConnections: 1, taken: 1 },
      { maxConnections: 1, taken: 0 },
    ]);
    const held = backendOf(pool, 2).takeSlot();
    const { results } = begin(pool, { attempts: 1 });
    await pass(2_500);
    held?.release();
    await pass(500);
    expect([dialledPorts(), dialTimes()]).toEqual([[2], [3_000]]);
    await giveBack(results());
    expect(taken(pool)).toEqual([1, 0]);
  });

  it("uses up the time and no attempts", async () => {
    const pool = poolOf([{ maxConnections: 1, taken: 1 }]);
    const { done } = begin(pool, { attempts: 2, timeoutMs: 100_000 });
    await pass(61_000);
    expect(done).not.toHaveBeenCalled();
    await pass(HOUR_MS);
    expect(done).toHaveBeenCalledExactlyOnceWith({
      kind: "failed",
      dials: 0,
      backend: backendOf(pool, 1),
      failure: expect.objectContaining({ detail: "no backend was free to take over" }),
    });
    expect(FakeUpstream.dials).toEqual([]);
    expect(taken(pool)).toEqual([1]);
  });
});

const objection = ({ subprotocol }: Connection): string | null =>
  subprotocol === "chat.v1" ? null : "subprotocol";

describe("An objection", () => {
  const subprotocols = ["chat.v1", "chat.v2"];

  it("is a failed attempt: the connection goes, and the next backend comes", async () => {
    FakeUpstream.onDial = (dial) =>
      dial.accept(`Sec-WebSocket-Protocol: chat.v${dial.port === 3 ? 1 : 2}\r\n`);
    const pool = poolOf([{}, {}, { taken: 1 }]);
    const { results, outcomes } = begin(pool, { objection, subprotocols });
    await pass(0);
    expect([dialledPorts(), dialTimes()]).toEqual([
      [2, 3],
      [0, 0],
    ]);
    // The backend did connect; what it agreed to is no matter of the dial.
    expect(outcomes).toEqual(["connected", "connected"]);
    expect(FakeUpstream.dials.map(({ gone }) => gone)).toEqual([true, false]);
    expect(taken(pool)).toEqual([0, 0, 2]);
    await giveBack(results());
  });

  it("counts against the attempts, and the last one is the reason", async () => {
    FakeUpstream.onDial = (dial) => dial.accept("Sec-WebSocket-Protocol: chat.v2\r\n");
    const pool = poolOf([{}, { maxConnections: 1 }]);
    const { done } = begin(pool, { objection, subprotocols, attempts: 3, dialsPerRound: 1 });
    await pass(HOUR_MS);
    // The lost one is the last of both, and each round has one dial.
    expect([dialledPorts(), dialTimes()]).toEqual([
      [2, 1, 2],
      [0, 1_000, 3_000],
    ]);
    expect(done).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({
        kind: "failed",
        dials: 3,
        failure: expect.objectContaining({ detail: "subprotocol" }),
      }),
    );
    expect(taken(pool)).toEqual([0, 0]);
  });
});

describe("An abort", () => {
  const states: readonly (readonly [string, (pool: Pool) => Promise<ReturnType<typeof begin>>])[] =
    [
      ["while TCP is being connected", async (pool) => begin(pool)],
      [
        "while the answer is awaited",
        async (pool) => {
          FakeUpstream.onDial = (dial) => dial.connect();
          const begun = begin(pool);
          await pass(10);
          return begun;
        },
      ],
      ["in the wait before the first dial", async (pool) => begin(pool, { atOnce: false })],
      [
        "in a wait between rounds",
        async (pool) => {
          FakeUpstream.onDial = refuse;
          const begun = begin(pool);
          await pass(500);
          return begun;
        },
      ],
      [
        "just after an objection",
        async (pool) => {
          FakeUpstream.onDial = accept;
          const begun = begin(pool, { objection: () => "deflate" });
          await pass(0);
          return begun;
        },
      ],
    ];

  it.each(states)("%s leaves no timer, no socket and no slot", async (_title, reach) => {
    const pool = poolOf([{}, {}]);
    const { connecting, done } = await reach(pool);
    const dials = FakeUpstream.dials.length;
    connecting.abort();
    expect(vi.getTimerCount()).toBe(0);
    connecting.abort();
    await pass(HOUR_MS);
    expect(taken(pool)).toEqual([0, 0]);
    expect(FakeUpstream.dials.filter(({ gone }) => !gone)).toEqual([]);
    expect(FakeUpstream.dials).toHaveLength(dials);
    expect(done).not.toHaveBeenCalled();
  });

  it("takes nothing back once it is done", async () => {
    FakeUpstream.onDial = accept;
    const pool = poolOf([{}, {}]);
    const { connecting, done, results } = begin(pool);
    await pass(0);
    connecting.abort();
    expect(taken(pool)).toEqual([0, 1]);
    expect(FakeUpstream.dials[0]?.gone).toBe(false);
    expect(done).toHaveBeenCalledOnce();
    await giveBack(results());
  });
});
