/** One target's process, watched from outside: an input that kills or hangs it is a finding, too. */
import { type ChildProcess, fork } from "node:child_process";
import { existsSync, readFileSync, statSync } from "node:fs";
import type { Job, Report } from "./job.ts";

/** Loading a target, shrinking a finding and closing come on top of the time to fuzz. */
const GRACE_MS = 60_000;
/** No input may take longer. */
const HANG_MS = 30_000;
const WATCH_EVERY_MS = 1_000;

const WORKER = new URL("./worker.js", import.meta.url);

export class Fuzzing {
  readonly #child: ChildProcess;
  readonly #job: Job;

  constructor(job: Job) {
    this.#job = job;
    this.#child = fork(WORKER, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  async outcome(): Promise<Report> {
    const startedAt = performance.now();
    const latest = startedAt + this.#job.durationMs + GRACE_MS;
    let report: Report | null = null;
    this.#child.once("message", (message: Report) => {
      report = message;
    });
    let hung = false;
    const watch = setInterval(() => {
      hung = this.#isStuck() || performance.now() > latest;
      if (hung) this.kill();
    }, WATCH_EVERY_MS);
    this.#child.send(this.#job);
    const end = await new Promise<string>((resolve) => {
      this.#child.once("exit", (code, signal) => resolve(String(signal ?? code)));
    });
    clearInterval(watch);
    if (report !== null) return report;
    const message = hung ? "the process hung" : `the process ended with ${end}`;
    return {
      executions: 0,
      seconds: (performance.now() - startedAt) / 1000,
      corpus: 0,
      coverage: [],
      finding: { hex: this.#lastInput().toString("hex"), message },
    };
  }

  #isStuck(): boolean {
    const { lastInputFile } = this.#job;
    return existsSync(lastInputFile) && Date.now() - statSync(lastInputFile).mtimeMs > HANG_MS;
  }

  #lastInput(): Buffer {
    if (!existsSync(this.#job.lastInputFile)) return Buffer.alloc(0);
    const bytes = readFileSync(this.#job.lastInputFile);
    return bytes.length < 4 ? bytes : bytes.subarray(4, 4 + bytes.readUInt32LE(0));
  }
}
