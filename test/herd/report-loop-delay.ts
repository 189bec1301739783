/**
 * Preloaded into the gateway's process (`--import`): reports its event loop delay when asked over IPC.
 * The gateway itself knows nothing of it.
 */
import { closeSync, openSync, readSync } from "node:fs";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { LoopReport } from "./jobs.ts";

/**
 * Node's default, and that of `nodejs_eventloop_lag_p99_seconds`. The delay is read from a timer of this
 * period; a shorter one would only add short values, and make the share of the long ones look smaller.
 */
const RESOLUTION_MS = 10;
const NS_PER_MS = 1e6;

/** Linux's account of the main thread: time on a CPU, time in line for one, both in ns. */
const schedstat = openSync(`/proc/self/task/${process.pid}/schedstat`, "r");
const line = Buffer.alloc(128);

const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
/** The same, less what the thread stood in line while other programs had the CPUs. */
let ownMs: number[] = [];
let since = performance.eventLoopUtilization();
let lastMs = performance.now();
let lastInLineMs = inLineMs();
delay.enable();

setInterval(() => {
  const nowMs = performance.now();
  const nowInLineMs = inLineMs();
  ownMs.push(Math.max(0, nowMs - lastMs - RESOLUTION_MS - (nowInLineMs - lastInLineMs)));
  lastMs = nowMs;
  lastInLineMs = nowInLineMs;
}, RESOLUTION_MS).unref();

process.on("message", () => {
  ownMs.sort((a, b) => a - b);
  const report: LoopReport = {
    p50Ms: late(delay.percentile(50)),
    p99Ms: late(delay.percentile(99)),
    maxMs: late(delay.max),
    ownP50Ms: ownMs[Math.floor(ownMs.length * 0.5)] ?? 0,
    ownP99Ms: ownMs[Math.floor(ownMs.length * 0.99)] ?? 0,
    ownMaxMs: ownMs.at(-1) ?? 0,
    busy: performance.eventLoopUtilization(since).utilization,
  };
  delay.reset();
  ownMs = [];
  since = performance.eventLoopUtilization();
  process.send?.(report);
});

/** The histogram has whole periods; this is by how much one was too long. */
function late(ns: number): number {
  return Math.max(0, ns / NS_PER_MS - RESOLUTION_MS);
}

function inLineMs(): number {
  const text = line.toString("latin1", 0, readSync(schedstat, line, 0, line.length, 0));
  return Number(text.split(" ")[1]) / NS_PER_MS;
}

// The channel must not keep a drained gateway alive.
process.channel?.unref();
process.on("disconnect", () => process.exit());
process.on("exit", () => closeSync(schedstat));
