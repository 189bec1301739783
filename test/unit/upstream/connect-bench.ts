/**
 * Sessions that look for another upstream, on the clock of `vi.useFakeTimers()`. A test file puts
 * `FakeUpstream` in the place of `UpstreamSocket` (`vi.mock`), as mocks are a matter of each file.
 */

import { vi } from "vitest";
import type { BackoffConfig } from "../../../src/config/config.ts";
import type { Backend } from "../../../src/upstream/backend.ts";
import {
  Connecting,
  type ConnectOptions,
  type ConnectResult,
  type ResumeOptions,
} from "../../../src/upstream/connect.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { backendConfig, makePool } from "../../support/pool-config.ts";

const readBuffers = new ReadBuffers(new SlabPool());
/** Of the configuration. */
export const DEFAULTS: BackoffConfig = {
  initialMs: 1_000,
  factor: 2,
  maxMs: 30_000,
  jitter: 0.5,
};
const STEADY: BackoffConfig = { ...DEFAULTS, jitter: 0 };

export interface BackendSetting {
  readonly maxConnections?: number;
  /** Slots that others hold. */
  readonly taken?: number;
}

/** Backends on the ports 1, 2, …; a test loses the first one, unless it says otherwise. */
export function poolOf(
  settings: readonly BackendSetting[],
  balance: "roundRobin" | "leastConnections" = "leastConnections",
): Pool {
  const backends = settings.map(({ maxConnections = 0 }, index) =>
    backendConfig({ port: index + 1, maxConnections }),
  );
  const pool = makePool({ balance, connectTimeoutMs: 5_000, backends });
  for (const [index, { taken = 0 }] of settings.entries()) {
    for (let i = 0; i < taken; i += 1) backendOf(pool, index + 1).takeSlot();
  }
  return pool;
}

export function backendOf(pool: Pool, port: number): Backend {
  const backend = pool.backends[port - 1];
  if (backend === undefined) throw new Error(`no backend ${port}`);
  return backend;
}

export type Setting = Partial<Omit<ConnectOptions, "resume">> &
  Partial<Omit<ResumeOptions, "lost">> & {
    readonly lost?: number;
    readonly random?: () => number;
    readonly now?: () => number;
    readonly subprotocols?: readonly string[];
  };

export function begin(pool: Pool, setting: Setting = {}) {
  const { lost = 1, rounds = 0, atOnce = true, objection = () => null } = setting;
  const { random = () => 0, now = () => performance.now() } = setting;
  const {
    dialsPerRound = 3,
    subprotocols = [],
    attempts = 6,
    timeoutMs = 30_000,
    backoff = STEADY,
  } = setting;
  const outcomes: string[] = [];
  const done = vi.fn<(result: ConnectResult) => void>();
  const connecting = new Connecting(
    pool,
    { target: "/", headerLines: "Host: a\r\n", subprotocols, offers: [] },
    {
      attempts,
      timeoutMs,
      backoff,
      wantsBody: false,
      key: null,
      resume: { lost: backendOf(pool, lost), dialsPerRound, rounds, atOnce, objection },
    },
    {
      observer: { dialEnded: (_pool, _backend, outcome) => void outcomes.push(outcome) },
      readBuffers,
      random,
      now,
    },
    done,
  );
  connecting.start();
  /** What came of it; at most one. */
  const results = (): ConnectResult[] => done.mock.calls.map(([result]) => result);
  return { connecting, done, results, outcomes };
}

/** Slots taken, by backend. */
export const taken = (pool: Pool): number[] => pool.backends.map(({ connections }) => connections);

/** Ends what a test has got. */
export async function giveBack(results: readonly ConnectResult[]): Promise<void> {
  for (const result of results) {
    if (result.kind !== "connected") throw new Error(`not connected: ${result.kind}`);
    result.connection.upstream.socket.destroy();
    result.slot.release();
  }
  await vi.advanceTimersByTimeAsync(0);
}
