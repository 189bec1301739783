/** What a dial says of its backend: which failures count towards an ejection, and which are the client's. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Connecting, type ConnectResult } from "../../../src/upstream/connect.ts";
import { Pool } from "../../../src/upstream/pool.ts";
import { Standby } from "../../../src/upstream/standby.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { backendConfig, poolConfig } from "../../support/pool-config.ts";
import { backendOf, DEFAULTS, taken } from "./connect-bench.ts";
import { FakeUpstream } from "./fake-upstream.ts";

vi.mock(import("../../../src/upstream/upstream-socket.ts"), async (original) => ({
  ...(await original()),
  UpstreamSocket: (await import("./fake-upstream.ts")).FakeUpstream,
}));

const CONNECT_TIMEOUT_MS = 5_000;
const EJECTION = { failures: 1, windowMs: 60_000, durationMs: 10_000, maxDurationMs: 60_000 };
const readBuffers = new ReadBuffers(new SlabPool());
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
  FakeUpstream.reset();
});

/** One failure ejects; the second backend only makes that possible, and is full. */
function poolOf(connectTimeoutMs = CONNECT_TIMEOUT_MS): Pool {
  const backends = [backendConfig({ port: 1 }), backendConfig({ port: 2, maxConnections: 1 })];
  const config = poolConfig({ backends, connectTimeoutMs, ejection: EJECTION });
  const pool = new Pool(config, { now: () => performance.now() });
  backendOf(pool, 2).takeSlot();
  return pool;
}

interface Setting {
  readonly timeoutMs?: number;
  /** As a session that has lost the second backend. */
  readonly resumes?: boolean;
  readonly objection?: () => string | null;
}

function begin(pool: Pool, setting: Setting = {}) {
  const { timeoutMs = 10_000, resumes = false, objection = () => null } = setting;
  const done = vi.fn<(result: ConnectResult) => void>();
  const lost = backendOf(pool, 2);
  const resume = { lost, dialsPerRound: 3, rounds: 0, atOnce: true, objection };
  const connecting = new Connecting(
    pool,
    { target: "/", headerLines: "Host: a\r\n", subprotocols: [], offers: [] },
    {
      attempts: 1,
      timeoutMs,
      backoff: DEFAULTS,
      wantsBody: false,
      key: null,
      ...(resumes ? { resume } : {}),
    },
    {
      observer: { dialEnded: () => undefined },
      readBuffers,
      random: () => 0,
      now: () => performance.now(),
    },
    done,
  );
  connecting.start();
  return { connecting, done };
}

type Row = [how: string, counts: boolean, answer: (dial: FakeUpstream) => void];

const answerOf = (status: number) => (dial: FakeUpstream) =>
  dial.answer(`HTTP/1.1 ${status} Text\r\nContent-Length: 0\r\n\r\n`);

describe.each([false, true])("A dial (of a session that resumes: %s)", (resumes) => {
  it.each<Row>([
    ["is refused", true, (dial) => dial.refuse()],
    ["is reset", true, (dial) => dial.breakOff()],
    ["is ended", true, (dial) => dial.end()],
    ["gets something else than HTTP", true, (dial) => dial.answer("SSH-2.0\r\n\r\n")],
    ["gets a 101 that is none", true, (dial) => dial.answer("HTTP/1.1 101 Yes\r\n\r\n")],
    ...[500, 501, 502, 503, 504].map((status): Row => [`gets ${status}`, true, answerOf(status)]),
    ...[200, 302, 400, 401, 403, 404, 426, 429, 499].map(
      (status): Row => [`gets ${status}`, false, answerOf(status)],
    ),
  ])("that %s counts against its backend: %s", async (_how, counts, answer) => {
    FakeUpstream.onDial = answer;
    const pool = poolOf();
    const { done } = begin(pool, { resumes });
    await pass(0);
    expect(done).toHaveBeenCalledExactlyOnceWith(
      expect.objectContaining({ kind: "failed", dials: 1 }),
    );
    expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([counts, [0, 1]]);
  });

  it.each([
    [CONNECT_TIMEOUT_MS, 10_000, true],
    [CONNECT_TIMEOUT_MS, 1_000, true],
    // The client's time was up, and not the backend's.
    [CONNECT_TIMEOUT_MS, 999, false],
    [200, 200, true],
    [200, 199, false],
  ])(
    "with a connectTimeout of %d ms and %d ms left that gets no answer counts: %s",
    async (connectTimeoutMs, timeoutMs, counts) => {
      const pool = poolOf(connectTimeoutMs);
      const { done } = begin(pool, { resumes, timeoutMs });
      await pass(Math.min(connectTimeoutMs, timeoutMs));
      expect(done).toHaveBeenCalledOnce();
      expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([counts, [0, 1]]);
    },
  );

  it("that its client leaves does not count, and leaves the next one a trial", async () => {
    const pool = poolOf();
    const { connecting } = begin(pool, { resumes });
    await pass(4_999);
    connecting.abort();
    expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([false, [0, 1]]);
    FakeUpstream.onDial = (dial) => dial.refuse();
    begin(pool, { resumes });
    await pass(0);
    expect(backendOf(pool, 1).ejected).toBe(true);
    await pass(EJECTION.durationMs);
    FakeUpstream.onDial = () => undefined;
    const trial = begin(pool, { resumes });
    await pass(10);
    expect(backendOf(pool, 1).available).toBe(false);
    trial.connecting.abort();
    expect([backendOf(pool, 1).available, backendOf(pool, 1).ejected]).toEqual([true, true]);
  });
});

async function standby() {
  FakeUpstream.onDial = (dial) => dial.accept();
  const pool = poolOf();
  const { done } = begin(pool, { resumes: true });
  await pass(0);
  const [result] = done.mock.calls[0] ?? [];
  if (result?.kind !== "connected") throw new Error("not connected");
  const onDead = vi.fn<() => void>();
  return { pool, onDead, standby: new Standby(result, onDead), result };
}

describe("A connection", () => {
  it("to which its session objects does not count", async () => {
    FakeUpstream.onDial = (dial) => dial.accept();
    const pool = poolOf();
    begin(pool, { resumes: true, objection: () => "deflate" });
    await pass(0);
    expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([false, [0, 1]]);
  });

  it("that lives as a trial brings its backend back, 5 s after its dial", async () => {
    const pool = poolOf();
    FakeUpstream.onDial = (dial) => dial.refuse();
    begin(pool);
    await pass(EJECTION.durationMs);
    expect(backendOf(pool, 1).ejected).toBe(true);
    FakeUpstream.onDial = (dial) => dial.after(1_000, (due) => due.accept());
    const { done } = begin(pool);
    await pass(5_999);
    expect(done).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ kind: "connected" }));
    expect(backendOf(pool, 1).ejected).toBe(true);
    await pass(1);
    expect(backendOf(pool, 1).ejected).toBe(false);
  });

  it("that dies while it stands by counts, is told once, and cannot be taken", async () => {
    const { pool, onDead, standby: subject, result } = await standby();
    const { socket } = result.connection.upstream;
    socket.emit("error", new Error("ECONNRESET"));
    socket.destroy();
    await pass(0);
    expect(onDead).toHaveBeenCalledOnce();
    expect(subject.take()).toBeNull();
    expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([true, [0, 1]]);
  });

  it("that is discarded while it stands by does not, and nobody is told", async () => {
    const { pool, onDead, standby: subject } = await standby();
    subject.discard();
    await pass(0);
    expect(onDead).not.toHaveBeenCalled();
    expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([false, [0, 1]]);
  });

  it("that was taken is its session's to judge", async () => {
    const { pool, onDead, standby: subject, result } = await standby();
    expect(subject.take()).toBe(result);
    expect(subject.take()).toBeNull();
    result.connection.upstream.socket.destroy();
    await pass(0);
    expect([backendOf(pool, 1).ejected, taken(pool)]).toEqual([false, [1, 1]]);
    expect(onDead).not.toHaveBeenCalled();
    result.slot.judge("bad");
    expect(backendOf(pool, 1).ejected).toBe(true);
  });
});
