/**
 * `npm run soak`: 100,000 sessions that connect and end in every way, through one gateway process.
 * Prints a table and exits 1 when memory, descriptors or counters do not stay where they were.
 * Flags: --cycles N, --concurrency N.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { boundedRun } from "../bench/bounded-run.ts";
import type { Processes } from "../bench/processes.ts";
import { CYCLE_KINDS, runCycle } from "./cycles.ts";
import { judge } from "./flatness.ts";
import { GatewayProcess, type Sample } from "./gateway-process.ts";

const DEFAULT_CYCLES = 100_000;
const DEFAULT_CONCURRENCY = 100;

/** Samples per run; of 100,000 cycles, one every 5,000. */
const SAMPLES = 20;

/** Before the baseline: code is compiled, pools and metrics exist. */
const WARM_UP_CYCLES = 2_000;

/** How long the gateway may take to account for sessions whose client has gone. */
const SETTLE_TIMEOUT_MS = 15_000;
const SETTLE_POLL_MS = 50;

/** A gateway that hangs ends the run; 100,000 cycles take 1 to 3 minutes on 2 cores. */
const RUN_LIMIT_MS = 15 * 60_000;

const FAILURES_SHOWN = 10;

class Soak {
  readonly samples: Sample[] = [];
  readonly failures: string[] = [];
  readonly cyclesPerKind = new Map<string, number>();
  readonly #gateway: GatewayProcess;
  readonly #concurrency: number;
  #cycles = 0;

  constructor(gateway: GatewayProcess, concurrency: number) {
    this.#gateway = gateway;
    this.#concurrency = concurrency;
  }

  async runBatch(cycles: number): Promise<void> {
    const end = this.#cycles + cycles;
    const worker = async (): Promise<void> => {
      while (this.#cycles < end) {
        const kind = CYCLE_KINDS[this.#cycles++ % CYCLE_KINDS.length];
        if (kind === undefined) return;
        this.cyclesPerKind.set(kind.title, (this.cyclesPerKind.get(kind.title) ?? 0) + 1);
        const wrong = await runCycle(this.#gateway.port, kind);
        if (wrong !== undefined) this.failures.push(wrong);
      }
    };
    await Promise.all(Array.from({ length: this.#concurrency }, worker));
    const deadline = performance.now() + SETTLE_TIMEOUT_MS;
    while ((await this.#gateway.sessionsActive()) > 0 && performance.now() < deadline) {
      await delay(SETTLE_POLL_MS);
    }
    this.samples.push(await this.#gateway.sample(this.#cycles));
  }
}

async function soak(processes: Processes, folder: string): Promise<boolean> {
  const { values } = parseArgs({
    options: { cycles: { type: "string" }, concurrency: { type: "string" } },
  });
  const cycles = positive("cycles", values.cycles, DEFAULT_CYCLES);
  const concurrency = positive("concurrency", values.concurrency, DEFAULT_CONCURRENCY);
  const backend = await processes.fork("backend", new URL("./backend.js", import.meta.url));
  const gateway = await GatewayProcess.start(processes, backend.port, folder);
  const run = new Soak(gateway, concurrency);

  console.log("  cycles  cycles/s   RSS MiB  heap MiB  descriptors  active    total");
  await run.runBatch(Math.min(WARM_UP_CYCLES, cycles));
  printSample(run.samples.at(-1), 0);
  let done = 0;
  for (let batch = 1; batch <= SAMPLES; batch++) {
    const batchCycles = Math.round((cycles * batch) / SAMPLES) - done;
    done += batchCycles;
    const startedAt = performance.now();
    await run.runBatch(batchCycles);
    printSample(run.samples.at(-1), (batchCycles * 1000) / (performance.now() - startedAt));
  }

  const findings = judge(run.samples, run.cyclesPerKind);
  findings.push({
    title: "what clients saw",
    passed: run.failures.length === 0,
    detail:
      run.failures.length === 0
        ? "the right end in every cycle"
        : `${run.failures.length} wrong ends\n  ${run.failures.slice(0, FAILURES_SHOWN).join("\n  ")}`,
  });
  console.log();
  for (const { title, passed, detail } of findings) {
    console.log(`${passed ? "PASS" : "FAIL"}  ${title}: ${detail}`);
  }
  return findings.every((finding) => finding.passed);
}

function positive(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isInteger(value) || value <= 0) throw new Error(`--${flag} must be a whole number`);
  return value;
}

function printSample(sample: Sample | undefined, cyclesPerSecond: number): void {
  if (sample === undefined) return;
  const cells = [
    String(sample.cycles).padStart(8),
    cyclesPerSecond.toFixed(0).padStart(10),
    (sample.residentKib / 1024).toFixed(1).padStart(10),
    (sample.heapBytes / 1024 / 1024).toFixed(2).padStart(10),
    String(sample.descriptors).padStart(13),
    String(sample.sessionsActive).padStart(8),
    String(sample.sessionsTotal).padStart(9),
  ];
  console.log(cells.join(""));
}

await boundedRun("soak", RUN_LIMIT_MS, soak);
