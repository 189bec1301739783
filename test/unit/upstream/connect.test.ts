/** Connecting over real sockets: every way a dial can go, and what becomes of the slot. */
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  type ConnectDependencies,
  Connecting,
  type ConnectResult,
} from "../../../src/upstream/connect.ts";
import { Pool } from "../../../src/upstream/pool.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { eventually } from "../../support/eventually.ts";
import { type Behaviour, RawUpstream } from "../../support/raw-upstream.ts";

const upstreams: RawUpstream[] = [];
let dialled: string[];

beforeEach(() => {
  dialled = [];
});

afterEach(async () => {
  await Promise.all(upstreams.splice(0).map((started) => started.stop()));
});

async function upstream(behaviour?: Behaviour): Promise<RawUpstream> {
  const started = await RawUpstream.start(behaviour);
  upstreams.push(started);
  return started;
}

function poolOf(ports: readonly number[], maxConnections = 1, connectTimeoutMs = 2_000): Pool {
  return new Pool({
    name: "main",
    balance: "roundRobin",
    connectTimeoutMs,
    backends: ports.map((port) => ({
      url: `ws://127.0.0.1:${port}`,
      host: "127.0.0.1",
      port,
      maxConnections,
      weight: 1,
    })),
  });
}

const BACKOFF = { initialMs: 20, factor: 2, maxMs: 100, jitter: 0 };

function begin(
  pool: Pool,
  options: { attempts?: number; timeoutMs?: number; backoff?: typeof BACKOFF } = {},
) {
  const dependencies: ConnectDependencies = {
    observer: { dialEnded: (_pool, _backend, outcome) => void dialled.push(outcome) },
    readBuffers: new ReadBuffers(new SlabPool()),
    random: () => 0,
    now: () => performance.now(),
  };
  const done = vi.fn<(result: ConnectResult) => void>();
  const request = { target: "/", headerLines: "Host: a\r\n", subprotocols: [], offers: [] };
  const connecting = new Connecting(
    pool,
    request,
    { attempts: 3, timeoutMs: 5_000, backoff: BACKOFF, wantsBody: false, ...options },
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
    expect(await begin(pool).result()).toEqual({ kind: "full", dials: 0 });
    expect(upstreams[0]?.peers).toEqual([]);
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
