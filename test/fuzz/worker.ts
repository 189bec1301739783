/** The process that fuzzes one target. Whatever becomes of it, its last input lies in a file. */
import { openSync, writeSync } from "node:fs";
import { Coverage } from "./coverage.ts";
import { Fuzzer } from "./fuzzer.ts";
import { readCorpus, readInput } from "./input-files.ts";
import type { Job, Report } from "./job.ts";
import { TARGETS } from "./target.ts";

async function work(job: Job): Promise<Report> {
  const { sources, load } = TARGETS[job.target];
  const coverage = new Coverage(sources.map((source) => `src/${source}.js`));
  const target = await load();
  const descriptor = openSync(job.lastInputFile, "w");
  const length = Buffer.alloc(4);
  const onInput = (input: Buffer): void => {
    length.writeUInt32LE(input.length);
    writeSync(descriptor, Buffer.concat([length, input]), 0, null, 0);
  };
  const corpus = readCorpus(job.target).map(({ input }) => input);
  const { seed } = job;
  const fuzzer = new Fuzzer(target, corpus, { seed, onInput });
  const startedAt = performance.now();
  const finding =
    job.inputFile === null
      ? await fuzzer.run(job.durationMs)
      : await fuzzer.runOnly(readInput(job.inputFile));
  const seconds = (performance.now() - startedAt) / 1000;
  await target.close?.();
  return {
    executions: fuzzer.executions,
    seconds,
    corpus: fuzzer.corpus.length,
    coverage: coverage.report(),
    finding: finding && { hex: finding.input.toString("hex"), message: finding.message },
  };
}

async function serve(job: Job): Promise<void> {
  const report = await work(job);
  process.send?.(report, () => process.exit(0));
}

// Nobody is left to report to.
process.on("disconnect", () => process.exit(1));
process.on("message", (job: Job) => void serve(job));
