/**
 * `npm run bench`: softclose against other proxies, all in one run on one machine. A report, not a
 * test: a missed target is printed and exits 0; only what could not be measured exits 1.
 * Flags: --rounds N, --seconds N, --only a,b, --quick (one short round, for a first look).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { ALWAYS_PRESENT, type Contender, installedContenders } from "./contenders.ts";
import { scenarios, type Timing } from "./measurements.ts";
import { Processes } from "./processes.ts";
import { renderGoals, renderMachine, renderPumpContext, renderTable } from "./report.ts";
import { runRounds } from "./rounds.ts";

/** Fewer would leave the median at the mercy of one slow moment. */
const DEFAULT_ROUNDS = 3;

/** A busy proxy burns 100 to 150 ticks of 10 ms in this time: one more or less is below 1 %. */
const DEFAULT_SECONDS = 1.5;
const QUICK_SECONDS = 0.5;

const WARM_UP_MS = 400;
const SETTLE_MS = 2_000;
const QUICK_SETTLE_MS = 1_000;

/** Whatever hangs, the run does not; longer only where more rounds or seconds are asked for. */
const RUN_LIMIT_MS = 10 * 60_000;

interface Options {
  rounds: number;
  timing: Timing;
  only: string[];
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string" },
      seconds: { type: "string" },
      only: { type: "string" },
      quick: { type: "boolean", default: false },
    },
  });
  const { quick } = values;
  return {
    rounds: Math.ceil(positive("rounds", values.rounds, quick ? 1 : DEFAULT_ROUNDS)),
    timing: {
      windowMs: positive("seconds", values.seconds, quick ? QUICK_SECONDS : DEFAULT_SECONDS) * 1000,
      warmUpMs: WARM_UP_MS,
      settleMs: quick ? QUICK_SETTLE_MS : SETTLE_MS,
    },
    only: (values.only ?? "").split(",").filter((name) => name !== ""),
  };
}

function positive(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!(value > 0)) throw new Error(`--${flag} must be a positive number`);
  return value;
}

function selectContenders(only: readonly string[]): Contender[] {
  const installed = installedContenders();
  for (const name of ["nginx", "haproxy"]) {
    if (!installed.some((contender) => contender.name === name)) {
      console.error(`${name} is not installed: left out`);
    }
  }
  const all = [...ALWAYS_PRESENT, ...installed];
  const unknown = only.filter((name) => !all.some((contender) => contender.name === name));
  if (unknown.length > 0) {
    const known = all.map((contender) => contender.name).join(", ");
    throw new Error(`--only: no proxy named ${unknown.join(", ")}; there are ${known}`);
  }
  return all.filter((contender) => only.length === 0 || only.includes(contender.name));
}

async function benchmark(processes: Processes, folder: string): Promise<void> {
  const options = readOptions();
  const contenders = selectContenders(options.only);
  const asked = (options.rounds * options.timing.windowMs) / (DEFAULT_ROUNDS * DEFAULT_SECONDS);
  const limitMs = RUN_LIMIT_MS * Math.max(1, asked / 1000);
  const limit = setTimeout(() => {
    console.error(`stopped: the run took longer than ${Math.round(limitMs / 60_000)} minutes`);
    process.exit(1);
  }, limitMs);
  // After an error nothing may wait for it.
  limit.unref();
  const startedAt = performance.now();
  const measurements = await runRounds({
    processes,
    contenders,
    scenarios: scenarios(options.timing),
    rounds: options.rounds,
    folder,
    onProgress: (line) => {
      console.error(
        `${((performance.now() - startedAt) / 1000).toFixed(0).padStart(4)} s  ${line}`,
      );
    },
  });
  clearTimeout(limit);
  console.log(`\n${renderTable(measurements, contenders, options.rounds)}\n`);
  console.log(`${renderMachine(contenders)}\n`);
  console.log(renderGoals(measurements));
  console.log(renderPumpContext(measurements));
}

const processes = new Processes();
const folder = mkdtempSync(join(tmpdir(), "softclose-bench-"));
process.on("exit", () => {
  processes.killAll();
  rmSync(folder, { recursive: true, force: true });
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => process.exit(1));
}

try {
  await benchmark(processes, folder);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
await processes.endAll();
