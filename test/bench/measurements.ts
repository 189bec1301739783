/** The numbers of the table: what is measured, round by round, and the medians of it. */
import type { Job } from "./jobs.ts";

/** One column; the key of a proxy's values. */
export type Metric =
  | "cpuUs64"
  | "userUs64"
  | "cpuUs1k"
  | "cpuUs16k"
  | "cpuUs64Pipelined"
  | "messagesPerSecond64"
  | "messagesPerSecond64Pipelined"
  | "p50Us"
  | "p99Us"
  | "handshakesPerSecond"
  | "cpuUsPerHandshake"
  | "kibPerIdleSession";

/** Proxy name -> metric -> one value per round. */
export class Measurements {
  readonly #values = new Map<string, Map<Metric, number[]>>();

  add(proxy: string, metric: Metric, value: number): void {
    const metrics = this.#values.get(proxy) ?? new Map<Metric, number[]>();
    this.#values.set(proxy, metrics);
    const values = metrics.get(metric) ?? [];
    metrics.set(metric, values);
    values.push(value);
  }

  median(proxy: string, metric: Metric): number | undefined {
    const values = this.#values.get(proxy)?.get(metric);
    return values === undefined ? undefined : median(values);
  }
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const upper = sorted[sorted.length >> 1];
  if (upper === undefined) throw new Error("median of nothing");
  const lower = sorted.length % 2 === 1 ? upper : sorted[(sorted.length >> 1) - 1];
  return (upper + (lower ?? upper)) / 2;
}

export interface Timing {
  /** Length of one measured window of load. */
  windowMs: number;
  /** Load before each window: the JIT of a fresh process needs some thousand messages. */
  warmUpMs: number;
  /** Wait before memory is read. */
  settleMs: number;
}

export interface Scenario {
  title: string;
  /** Memory is read from a process that has carried no load before. */
  freshProcess: boolean;
  job(port: number, pids: number[]): Job;
}

const CONNECTIONS = 50;
const HANDSHAKES_AT_ONCE = 50;
const WARM_UP_SESSIONS = 200;
const IDLE_SESSIONS = 2_000;

/** In the order in which they are run within a round. */
export function scenarios(timing: Timing): Scenario[] {
  const echo = (title: string, payloadBytes: number, inFlight: number): Scenario => ({
    title,
    freshProcess: false,
    job: (port, pids) => ({
      kind: "echo",
      port,
      pids,
      connections: CONNECTIONS,
      payloadBytes,
      inFlight,
      warmUpMs: timing.warmUpMs,
      measureMs: timing.windowMs,
    }),
  });
  return [
    echo("64 B", 64, 1),
    echo("1 KiB", 1024, 1),
    echo("16 KiB", 16_384, 1),
    echo("64 B, 16 in flight", 64, 16),
    {
      title: "handshakes",
      freshProcess: false,
      job: (port, pids) => ({
        kind: "handshakes",
        port,
        pids,
        concurrency: HANDSHAKES_AT_ONCE,
        warmUpMs: timing.warmUpMs,
        measureMs: timing.windowMs / 2,
      }),
    },
    {
      title: "idle sessions",
      freshProcess: true,
      job: (port, pids) => ({
        kind: "idle",
        port,
        pids,
        warmUpSessions: WARM_UP_SESSIONS,
        sessions: IDLE_SESSIONS,
        settleMs: timing.settleMs,
      }),
    },
  ];
}
