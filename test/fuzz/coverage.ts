/**
 * Which parts of the code under test have run, from V8's own block coverage: in process, and without
 * instrumented copies. It does not guide the search: measured, that found no more than mutations of good
 * seeds with a dictionary, as these reach what can be reached within seconds.
 */
import { readFileSync } from "node:fs";
import { type Profiler, Session } from "node:inspector";
import { fileURLToPath } from "node:url";

export interface FileCoverage {
  readonly file: string;
  /** Characters of the compiled file that have run, and all. */
  readonly covered: number;
  readonly characters: number;
  /** Where what has not run begins, in the compiled file. */
  readonly missingLines: readonly number[];
}

export class Coverage {
  readonly #session = new Session();
  readonly #files: readonly string[];

  /** Before the code under test is loaded. `files`: ends of paths. */
  constructor(files: readonly string[]) {
    this.#files = files;
    this.#session.connect();
    this.#session.post("Profiler.enable");
    this.#session.post("Profiler.startPreciseCoverage", { callCount: false, detailed: true });
  }

  /** Once, at the end. */
  report(): FileCoverage[] {
    let scripts: readonly Profiler.ScriptCoverage[] = [];
    // A session on its own thread answers before `post` returns.
    this.#session.post("Profiler.takePreciseCoverage", (error, answer) => {
      if (error !== null) throw error;
      scripts = answer.result;
    });
    return this.#files.flatMap((file) => {
      const script = scripts.find(({ url }) => url.endsWith(`/${file}`));
      return script === undefined ? [] : [coverageOf(file, script)];
    });
  }
}

/** Functions and ranges come outermost first: the innermost that holds a character decides. */
function coverageOf(file: string, script: Profiler.ScriptCoverage): FileCoverage {
  const source = readFileSync(fileURLToPath(script.url), "utf8");
  const ran = new Uint8Array(source.length);
  for (const { ranges } of script.functions) {
    for (const { startOffset, endOffset, count } of ranges) {
      ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
    }
  }
  const missing = [...ran.keys()].filter((at) => ran[at] === 0);
  const starts = missing.filter((at) => ran[at - 1] !== 0);
  const lines = starts.map((at) => source.slice(0, at).split("\n").length);
  return {
    file,
    covered: source.length - missing.length,
    characters: source.length,
    missingLines: [...new Set(lines)],
  };
}
