/** Connecting over real sockets: every way a dial can go, and what becomes of the slot. */
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Backend } from "../../../src/upstream/backend.ts";
import {
  type ConnectDependencies,
  Connecting,
  type ConnectOptions,
  type ConnectResult,
} from "../../../src/upstream/connect.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { eventually } from "../../support/eventually.ts";
import { backendConfig, makePool } from "../../support/pool-config.ts";
import { type Behaviour, RawUpstream } from "../../support/raw-upstream.ts";

const upstreams: RawUpstream[] = [];
let dialled: string[];
/** How each wait in the pool's line ended, and after how many seconds. */
let waited: [outcome: string, seconds: number][];

beforeEach(() => {
  dialled = [];
  waited = [];
});

afterEach(async () => {
  await Promise.all(upstreams.splice(0).map((started) => started.stop()));
});

async function upstream(behaviour?: Behaviour): Promise<RawUpstream> {
  const started = await RawUpstream.start(behaviour);
  upstreams.push(started);
  return started;
}

function poolOf(
  ports: readonly number[],
  maxConnections = 1,
  connectTimeoutMs = 2_000,
  queue = { size: 0, timeoutMs: 5_000 },
): Pool {
  const backends = ports.map((port) => backendConfig({ port, maxConnections }));
  return makePool({ balance: "roundRobin", connectTimeoutMs, queue, backends });
}

/** A pool with a line of two, all of whose slots are taken. */
function fullPoolOf(ports: readonly number[]) {
  const pool = poolOf(ports, 1, 2_000, { size: 2, timeoutMs: 5_000 });
  const slots = ports.map(() => pool.takeSlot(new Set()));
  return { pool, slots };
}

const BACKOFF = { initialMs: 20, factor: 2, maxMs: 100, jitter: 0 };

type Options = Partial<ConnectOptions> & { now?: () => number };

function begin(pool: Pool, { now = () => performance.now(), ...options }: Options = {}) {
  const dependencies: ConnectDependencies = {
    observer: {
      dialEnded: (_pool, _backend, outcome) => void dialled.push(outcome),
      waited: (_pool, seconds, outcome) => void waited.push([outcome, seconds]),
    },
    readBuffers: new ReadBuffers(new SlabPool()),
    random: () => 0,
    now,
  };
  const done = vi.fn<(result: ConnectResult) => void>();
  const request = { target: "/", headerLines: "Host: a\r\n", subprotocols: [], offers: [] };
  const connecting = new Connecting(
    pool,
    request,
    { attempts: 3, timeoutMs: 5_000, backoff: BACKOFF, wantsBody: false, key: null, ...options },
    dependencies,
    done,
  );
  connecting.start();
  const result = (): Promise<ConnectResult> =>
    eventually(() => {
      const [first] = done.mock.calls[0] ?? [];
      if (first === undefined) throw new Error("not done");
      return first;
    });
  return { connecting, done, result };
}

const taken = (pool: Pool): number[] => pool.backends.map(({ connections }) => connections);

/** A port on which nobody listens: it was free a moment ago. */
async function closedPort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

describe("Connecting", () => {
  it("keeps the slot of the connection that came about", async () => {
    const pool = poolOf([(await upstream()).port]);
    const result = await begin(pool).result();
    expect(result).toMatchObject({ kind: "connected", dials: 1 });
    expect(taken(pool)).toEqual([1]);
    if (result.kind !== "connected") throw new Error("not connected");
    result.connection.upstream.socket.destroy();
    result.slot.release();
    expect(taken(pool)).toEqual([0]);
  });

  it("goes on to the next backend when one refuses, resets, ends, or is busy", async () => {
    const busy = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
    const ports = [
      await closedPort(),
      (await upstream((peer) => peer.reset())).port,
      (await upstream((peer) => peer.end())).port,
      (await upstream((peer) => peer.write(busy))).port,
      (await upstream()).port,
    ];
    const pool = poolOf(ports);
    const result = await begin(pool, { attempts: 5 }).result();
    expect(result).toMatchObject({ kind: "connected", dials: 5 });
    expect(dialled).toEqual(["refused", "reset", "reset", "rejected", "connected"]);
    expect(taken(pool)).toEqual([0, 0, 0, 0, 1]);
    if (result.kind === "connected") result.connection.upstream.socket.destroy();
  });

  it("takes any other answer as final", async () => {
    const forbidden = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
    const pool = poolOf([
      (await upstream((peer) => peer.write(forbidden))).port,
      (await upstream()).port,
    ]);
    expect(await begin(pool).result()).toMatchObject({
      kind: "failed",
      dials: 1,
      failure: { outcome: "rejected", rejection: { status: 403 } },
    });
    expect(taken(pool)).toEqual([0, 0]);
  });

  it("backs off when every backend has failed, then tries again, up to the attempts", async () => {
    let requests = 0;
    const once = await upstream((peer) => {
      requests += 1;
      if (requests < 3) peer.reset();
      else peer.accept();
    });
    const pool = poolOf([once.port]);
    const result = await begin(pool).result();
    expect(result).toMatchObject({ kind: "connected", dials: 3 });
    if (result.kind !== "connected") throw new Error("not connected");
    result.connection.upstream.socket.destroy();
    result.slot.release();

    const never = poolOf([(await upstream((peer) => peer.reset())).port]);
    expect(await begin(never).result()).toMatchObject({ kind: "failed", dials: 3 });
    expect(taken(never)).toEqual([0]);
  });

  it("gives up at once where the wait would outlast the deadline", async () => {
    const pool = poolOf([(await upstream((peer) => peer.reset())).port]);
    const backoff = { ...BACKOFF, initialMs: 60_000, maxMs: 60_000 };
    expect(await begin(pool, { backoff }).result()).toMatchObject({ kind: "failed", dials: 1 });
  });

  it("is full at once where no backend has a slot, without a dial", async () => {
    const pool = poolOf([(await upstream()).port]);
    pool.takeSlot(new Set());
    expect(await begin(pool).result()).toEqual({
      kind: "full",
      dials: 0,
      queue: "noRoom",
    });
    expect(upstreams[0]?.peers).toEqual([]);
  });

  it.each<[string, (backend: Backend) => void]>([
    ["drained", (backend) => backend.drain()],
    ["down by its probe", (backend) => void (backend.isUp = false)],
  ])("has no backend where every one is %s: nobody is dialled, nobody waits", (_how, leave) => {
    const { pool } = fullPoolOf([9, 10]);
    for (const backend of pool.backends) leave(backend);
    const { done } = begin(pool);
    expect(done).toHaveBeenCalledExactlyOnceWith({ kind: "noBackend", dials: 0 });
    expect(pool.queueLength).toBe(0);
  });

  it("leaves a backend that says nothing at the pool's connectTimeout, and gives up at the deadline", async () => {
    const silent = await upstream(() => undefined);
    const pool = poolOf([silent.port], 1, 60);
    expect(await begin(pool, { attempts: 10, timeoutMs: 200 }).result()).toMatchObject({
      kind: "failed",
      failure: { outcome: "timeout" },
    });
    expect(new Set(dialled)).toEqual(new Set(["timeout"]));
    expect(taken(pool)).toEqual([0]);
    await Promise.all(silent.peers.map((peer) => peer.ended()));
  });

  it("stops dialling when aborted, releases the slot and calls nobody", async () => {
    const silent = await upstream(() => undefined);
    const pool = poolOf([silent.port]);
    const { connecting, done } = begin(pool);
    await silent.peer();
    expect(taken(pool)).toEqual([1]);
    connecting.abort();
    connecting.abort();
    expect(taken(pool)).toEqual([0]);
    expect(dialled).toEqual(["aborted"]);
    await silent.peers[0]?.ended();
    expect(done).not.toHaveBeenCalled();
  });

  it("dials no more when aborted while it waits", async () => {
    const resets = await upstream((peer) => peer.reset());
    const pool = poolOf([resets.port]);
    const { connecting, done } = begin(pool, { backoff: { ...BACKOFF, initialMs: 100 } });
    await eventually(() => expect(dialled).toEqual(["reset"]));
    const timers = vi.spyOn(globalThis, "clearTimeout");
    connecting.abort();
    expect(timers).toHaveBeenCalled();
    timers.mockRestore();
    expect(taken(pool)).toEqual([0]);
    expect(done).not.toHaveBeenCalled();
    expect(resets.peers).toHaveLength(1);
  });
});

describe("Connecting to a pool that is full", () => {
  it("waits in line, and dials when a slot comes back, before anyone who comes then", async () => {
    const { pool, slots } = fullPoolOf([(await upstream()).port]);
    const first = begin(pool);
    const second = begin(pool);
    expect([pool.queueLength, upstreams[0]?.peers.length]).toEqual([2, 0]);
    slots[0]?.release();
    expect(pool.queueLength).toBe(1);
    expect(pool.takeSlot(new Set())).toBeNull();
    const result = await first.result();
    expect(result).toMatchObject({ kind: "connected", dials: 1 });
    expect(second.done).not.toHaveBeenCalled();
    if (result.kind !== "connected") throw new Error("not connected");
    result.connection.upstream.socket.destroy();
    result.slot.release();
    const next = await second.result();
    expect(next).toMatchObject({ kind: "connected", dials: 1 });
    expect(waited.map(([outcome]) => outcome)).toEqual(["served", "served"]);
    expect([taken(pool), pool.queueLength]).toEqual([[1], 0]);
    if (next.kind === "connected") next.connection.upstream.socket.destroy();
  });

  it("is turned away at once where the line is full, too", async () => {
    const { pool } = fullPoolOf([(await upstream()).port]);
    const waiting = [begin(pool), begin(pool)];
    const third = begin(pool);
    expect(third.done).toHaveBeenCalledWith({ kind: "full", dials: 0, queue: "noRoom" });
    expect(waited).toEqual([]);
    for (const { connecting } of waiting) connecting.abort();
  });

  it("leaves the line when aborted, and the next is not kept waiting by it", async () => {
    const { pool, slots } = fullPoolOf([(await upstream()).port]);
    const leaver = begin(pool);
    const stayer = begin(pool);
    leaver.connecting.abort();
    leaver.connecting.abort();
    expect(pool.queueLength).toBe(1);
    slots[0]?.release();
    const result = await stayer.result();
    expect(result.kind).toBe("connected");
    expect(leaver.done).not.toHaveBeenCalled();
    expect(waited.map(([outcome]) => outcome)).toEqual(["left", "served"]);
    if (result.kind === "connected") result.connection.upstream.socket.destroy();
  });

  it("says whether its time in line was up or the line was closed", () => {
    vi.useFakeTimers();
    try {
      const { pool } = fullPoolOf([9]);
      // Less than the line's 5 s: while it waits, the deadline for the dials does not run.
      const first = begin(pool, { timeoutMs: 1_000 });
      vi.advanceTimersByTime(3_000);
      const second = begin(pool, { timeoutMs: 1_000 });
      vi.advanceTimersByTime(1_999);
      expect(first.done).not.toHaveBeenCalled();
      vi.advanceTimersByTime(1);
      expect(first.done).toHaveBeenCalledWith({ kind: "full", dials: 0, queue: "timeout" });
      pool.closeQueue();
      expect(second.done).toHaveBeenCalledWith({ kind: "full", dials: 0, queue: "closed" });
      first.connecting.abort();
      second.connecting.abort();
      expect(waited).toEqual([
        ["timeout", 5],
        ["closed", 2],
      ]);
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });

  it("has all its time for the dials when its turn comes", async () => {
    let requests = 0;
    const second = await upstream((peer) => {
      requests += 1;
      if (requests === 1) peer.reset();
      else peer.accept();
    });
    const { pool, slots } = fullPoolOf([second.port]);
    let aheadMs = 0;
    const waiting = begin(pool, { timeoutMs: 1_000, now: () => performance.now() + aheadMs });
    aheadMs = 60_000;
    slots[0]?.release();
    // Past its deadline it would not be dialled a second time.
    const result = await waiting.result();
    expect(result).toMatchObject({ kind: "connected", dials: 2 });
    if (result.kind === "connected") result.connection.upstream.socket.destroy();
  });

  it("hands the slot of a dial that failed to the line, and backs off behind it", async () => {
    let requests = 0;
    const fickle = await upstream((peer) => {
      requests += 1;
      if (requests === 1) peer.reset();
      else peer.accept();
    });
    const pool = poolOf([fickle.port], 1, 2_000, { size: 2, timeoutMs: 5_000 });
    const dialling = begin(pool);
    const waiting = begin(pool);
    const result = await waiting.result();
    expect(result).toMatchObject({ kind: "connected", dials: 1 });
    expect(await dialling.result()).toMatchObject({ kind: "failed", dials: 1 });
    expect(taken(pool)).toEqual([1]);
    if (result.kind === "connected") result.connection.upstream.socket.destroy();
  });

  it("hands the slot of a dial that is aborted to the line", async () => {
    let requests = 0;
    const silentOnce = await upstream((peer) => {
      requests += 1;
      if (requests > 1) peer.accept();
    });
    const pool = poolOf([silentOnce.port], 1, 2_000, { size: 2, timeoutMs: 5_000 });
    const dialling = begin(pool);
    await silentOnce.peer();
    const waiting = begin(pool);
    dialling.connecting.abort();
    const result = await waiting.result();
    expect(result).toMatchObject({ kind: "connected", dials: 1 });
    expect(dialling.done).not.toHaveBeenCalled();
    if (result.kind === "connected") result.connection.upstream.socket.destroy();
  });

  it.each([true, false])(
    "lets a session that resumes go ahead of the line (at once: %s)",
    async (atOnce) => {
      const { pool } = fullPoolOf([(await upstream()).port, (await upstream()).port]);
      const waiting = begin(pool);
      const [lost, other] = pool.backends;
      if (lost === undefined || other === undefined) throw new Error("two backends");
      // Room that no event has told the line of yet.
      other.reconfigure(
        backendConfig({ port: other.port, maxConnections: 2 }),
        { ejection: null, slowStartMs: 0 },
        pool,
      );
      const resume = { lost, dialsPerRound: 3, rounds: 0, atOnce, objection: () => null };
      const result = await begin(pool, { resume }).result();
      expect(result).toMatchObject({ kind: "connected", dials: 1, slot: { backend: other } });
      expect([pool.queueLength, taken(pool)]).toEqual([1, [1, 2]]);
      waiting.connecting.abort();
      if (result.kind === "connected") result.connection.upstream.socket.destroy();
    },
  );

  it("does not stand in line for a session that resumes: that one backs off", async () => {
    const { pool, slots } = fullPoolOf([(await upstream()).port]);
    const [lost] = pool.backends;
    if (lost === undefined) throw new Error("one backend");
    const resume = { lost, dialsPerRound: 3, rounds: 0, atOnce: true, objection: () => null };
    const resuming = begin(pool, { resume });
    await eventually(() => expect(resuming.connecting.rounds).toBeGreaterThan(1));
    expect(pool.queueLength).toBe(0);
    slots[0]?.release();
    const result = await resuming.result();
    expect(result).toMatchObject({ kind: "connected", dials: 1 });
    expect(waited).toEqual([]);
    if (result.kind === "connected") result.connection.upstream.socket.destroy();
  });
});
