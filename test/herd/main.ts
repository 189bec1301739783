/**
 * `npm run herd`: 5,000 clients that ignore `retry-after` and connect again at once whenever they are
 * turned away, against a listener with `acceptRate: 100`. Prints what they and the gateway's event loop
 * went through, and exits 1 if the loop was late or a refusal was not clean.
 * Flags: --clients N, --seconds N, --rate N, --profile FOLDER (a CPU profile of the gateway).
 */
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { boundedRun } from "../bench/bounded-run.ts";
import { freePort } from "../bench/free-port.ts";
import type { Processes, RunningProcess } from "../bench/processes.ts";
import type { HerdJob, HerdResult, LoopReport } from "./jobs.ts";

const DEFAULT_CLIENTS = 5_000;
const DEFAULT_SECONDS = 20;
const DEFAULT_RATE = 100;

const MAX_P99_MS = 50;
/** How far the sessions of a second may exceed the rate; the first second has the burst as well. */
const MAX_PEAK_FACTOR = 1.5;

/** Compiled code and existing pools, before anything is measured. */
const WARM_UP: Omit<HerdJob, "port"> = { clients: 100, durationMs: 2_000 };

const IDLE_MS = 2_000;
const RUN_LIMIT_MS = 5 * 60_000;

async function herd(processes: Processes, folder: string): Promise<boolean> {
  const { values } = parseArgs({
    options: {
      clients: { type: "string" },
      seconds: { type: "string" },
      rate: { type: "string" },
      profile: { type: "string" },
    },
  });
  const clients = positive("clients", values.clients, DEFAULT_CLIENTS);
  const durationMs = positive("seconds", values.seconds, DEFAULT_SECONDS) * 1000;
  const rate = positive("rate", values.rate, DEFAULT_RATE);
  const backend = await processes.fork("backend", new URL("../bench/echo-backend.js", here));
  const port = await freePort();
  const adminPort = await freePort();
  const gateway = await startGateway(processes, folder, {
    port,
    adminPort,
    backendPort: backend.port,
    rate,
    profile: values.profile,
  });

  const warmUp = await runHerd(processes, { port, ...WARM_UP });
  await processes.end(warmUp.running);
  await loopReport(gateway);
  await delay(IDLE_MS);
  const idle = await loopReport(gateway);
  const { result, running } = await runHerd(processes, { port, clients, durationMs });
  const loop = await loopReport(gateway);
  const peakAdmittedPerSecond = peakAfterTheFirst(await sessionStarts(adminPort));
  await processes.end(running);
  await processes.end(gateway);

  const { handshakes, admitted, turnedAway, unclean } = result;
  print("clients", clients);
  print("handshakes", `${handshakes} (${Math.round((handshakes * 1000) / durationMs)}/s)`);
  print("turned away cleanly", turnedAway);
  print("time to be turned away", `p50 ${ms(result.p50Ms)}, p99 ${ms(result.p99Ms)}`);
  print("sessions", `${admitted}, at most ${peakAdmittedPerSecond}/s after the first second`);
  print("event loop delay, idle", percentiles(idle.p50Ms, idle.p99Ms, idle.maxMs));
  print("event loop delay, herd", percentiles(loop.p50Ms, loop.p99Ms, loop.maxMs));
  print("  less waits for a CPU", percentiles(loop.ownP50Ms, loop.ownP99Ms, loop.ownMaxMs));
  print("event loop busy", `${Math.round(loop.busy * 100)} %`);
  console.log();
  const wrong = Object.entries(unclean).map(([what, times]) => `${times} x ${what}`);
  return [
    judge(
      `event loop delay p99, less waits for a CPU, under ${MAX_P99_MS} ms`,
      loop.ownP99Ms < MAX_P99_MS,
      ms(loop.ownP99Ms),
    ),
    judge("every refusal: 101, Close 1013, FIN", wrong.length === 0, wrong.join(", ")),
    judge(
      `at most ${MAX_PEAK_FACTOR} x acceptRate sessions a second after the first`,
      peakAdmittedPerSecond <= MAX_PEAK_FACTOR * rate,
      `${peakAdmittedPerSecond}`,
    ),
    judge(
      "acceptRate is used up",
      admitted >= Math.min(clients, (rate * durationMs) / 1000) * 0.9,
      `${admitted}`,
    ),
  ].every((passed) => passed);
}

async function startGateway(
  processes: Processes,
  folder: string,
  options: {
    port: number;
    adminPort: number;
    backendPort: number;
    rate: number;
    profile: string | undefined;
  },
): Promise<RunningProcess> {
  const { port, adminPort, backendPort, rate, profile } = options;
  const file = join(folder, "gateway.yaml");
  writeFileSync(
    file,
    `listeners:
  - { name: public, bind: "0.0.0.0:${port}", acceptRate: ${rate} }
admin: { bind: "127.0.0.1:${adminPort}" }
routes:
  - { name: herd, pool: herd }
pools:
  herd:
    backends:
      - { url: "ws://127.0.0.1:${backendPort}" }
retryAfter: { acceptRate: ${rate}, max: 5m }
drain: { timeout: 1s }
`,
  );
  const reporter = new URL("./report-loop-delay.js", here);
  return await processes.forkServer("softclose", new URL("../../../dist/main.js", here), port, {
    args: ["run", "-c", file],
    execArgv: [
      "--import",
      reporter.href,
      ...(profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`]),
    ],
  });
}

/** Those who got a session stay until the process is ended. */
async function runHerd(
  processes: Processes,
  job: HerdJob,
): Promise<{ result: HerdResult; running: RunningProcess }> {
  const { running } = await processes.fork("clients", new URL("./clients.js", here));
  return { result: await ask<HerdResult>(running, job), running };
}

/** When the live sessions were let in, by the gateway's own account, in ms. */
async function sessionStarts(adminPort: number): Promise<number[]> {
  const response = await fetch(`http://127.0.0.1:${adminPort}/api/sessions?limit=10000`);
  const sessions: unknown = await response.json();
  if (!Array.isArray(sessions)) throw new Error(`no list of sessions: ${response.status}`);
  return sessions.map(({ startedAt }: { startedAt: string }) => Date.parse(startedAt));
}

/** The most in any second, counted from the first start, but the first. */
function peakAfterTheFirst(startsMs: readonly number[]): number {
  const firstMs = Math.min(...startsMs);
  const perSecond = new Map<number, number>();
  for (const startMs of startsMs) {
    const second = Math.floor((startMs - firstMs) / 1000);
    perSecond.set(second, (perSecond.get(second) ?? 0) + 1);
  }
  perSecond.delete(0);
  return Math.max(0, ...perSecond.values());
}

function loopReport(gateway: RunningProcess): Promise<LoopReport> {
  return ask<LoopReport>(gateway, { kind: "report" });
}

/** Sends a message to one of our own programs; resolves with its answer. */
async function ask<Answer>(running: RunningProcess, question: object): Promise<Answer> {
  const { child, name } = running;
  const ended = new AbortController();
  const onExit = (): void => ended.abort(new Error(`${name} ended\n${running.output}`));
  child.once("exit", onExit);
  const answer = once(child, "message", { signal: ended.signal });
  child.send(question);
  const [message] = await answer;
  child.off("exit", onExit);
  return message;
}

function positive(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isInteger(value) || value <= 0) throw new Error(`--${flag} must be a whole number`);
  return value;
}

function print(title: string, value: string | number): void {
  console.log(`${title.padEnd(26)}${value}`);
}

function ms(value: number): string {
  return `${value.toFixed(1)} ms`;
}

function percentiles(p50Ms: number, p99Ms: number, maxMs: number): string {
  return `p50 ${ms(p50Ms)}, p99 ${ms(p99Ms)}, max ${ms(maxMs)}`;
}

function judge(title: string, passed: boolean, detail: string): boolean {
  console.log(`${passed ? "PASS" : "FAIL"}  ${title}${detail === "" ? "" : `: ${detail}`}`);
  return passed;
}

const here = import.meta.url;
await boundedRun("herd", RUN_LIMIT_MS, herd);
