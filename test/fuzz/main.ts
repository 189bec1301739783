/**
 * `npm run fuzz`: whatever parses what others send, against mutated inputs, each target in a process of
 * its own. Prints seed, speed, corpus and coverage; exits 1 on a finding, whose input is written to a file.
 * Flags: --seconds N (for each target), --target NAME (again for more), --seed N, --input FILE (run that
 * one only), --missing (print the lines of the compiled code that were not reached).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Fuzzing } from "./fuzzing.ts";
import { writeInput } from "./input-files.ts";
import type { Report } from "./job.ts";
import { isTargetName, TARGETS, type TargetName } from "./target.ts";

const DEFAULT_SECONDS = 60;
const FINDINGS_FOLDER = "fuzz-findings";
const SEED_LIMIT = 2 ** 32;

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string" },
    target: { type: "string", multiple: true },
    seed: { type: "string" },
    input: { type: "string" },
    missing: { type: "boolean" },
  },
});

async function fuzz(): Promise<boolean> {
  const targets = chosenTargets();
  const seconds = whole("seconds", flags.seconds, DEFAULT_SECONDS);
  const seed = whole("seed", flags.seed, Math.floor(Math.random() * SEED_LIMIT));
  if (flags.input !== undefined && targets.length !== 1) {
    throw new Error("--input needs one --target");
  }
  const folder = mkdtempSync(join(tmpdir(), "softclose-fuzz-"));
  process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
  console.log(`seed ${seed}`);
  console.log("target      executions  per second  corpus  coverage");
  let clean = true;
  for (const target of targets) {
    const fuzzing = new Fuzzing({
      target,
      seed,
      durationMs: seconds * 1000,
      lastInputFile: join(folder, target),
      inputFile: flags.input ?? null,
    });
    const end = (): void => fuzzing.kill();
    process.on("exit", end);
    const outcome = await fuzzing.outcome();
    process.off("exit", end);
    print(target, outcome);
    if (outcome.finding === null) continue;
    clean = false;
    report(target, seed, outcome.finding);
  }
  return clean;
}

function print(target: TargetName, { executions, seconds, corpus, coverage }: Report): void {
  const sum = (of: "covered" | "characters") => coverage.reduce((all, file) => all + file[of], 0);
  const share = ((100 * sum("covered")) / Math.max(1, sum("characters"))).toFixed(1);
  const cells = [
    target.padEnd(10),
    String(executions).padStart(12),
    (executions / Math.max(seconds, 0.001)).toFixed(0).padStart(12),
    String(corpus).padStart(8),
    `${share} %`.padStart(10),
  ];
  console.log(cells.join(""));
  if (flags.missing !== true) return;
  for (const { file, missingLines } of coverage) {
    if (missingLines.length > 0) console.log(`  ${file}: lines ${missingLines.join(" ")}`);
  }
}

function report(target: TargetName, seed: number, finding: { hex: string; message: string }): void {
  const input = Buffer.from(finding.hex, "hex");
  const file = writeInput(FINDINGS_FOLDER, target, String(seed), input);
  console.log(`\nFOUND in ${target}: ${finding.message}\n`);
  console.log(`its input: ${file}, ${input.length} bytes; again with`);
  console.log(`  npm run fuzz -- --target ${target} --input ${file}\n`);
}

function chosenTargets(): TargetName[] {
  const names = flags.target ?? Object.keys(TARGETS);
  return names.map((name) => {
    if (isTargetName(name)) return name;
    throw new Error(`--target is one of ${Object.keys(TARGETS).join(", ")}`);
  });
}

function whole(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`--${flag} must be a whole number`);
  return value;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.on(signal, () => process.exit(1));
}
try {
  if (!(await fuzz())) process.exitCode = 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
