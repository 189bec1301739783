/**
 * Which characters of the code under test have run, from V8's own block counters. In process and without
 * instrumented copies; what it says covers everything since it was asked last.
 */

import { readFileSync } from "node:fs";
import { type Profiler, Session } from "node:inspector";
import { fileURLToPath } from "node:url";

export interface FileCoverage {
  readonly file: string;
  readonly covered: number;
  readonly characters: number;
  /** First lines of what has not run, in the compiled file. */
  readonly missingLines: readonly number[];
}

interface Script {
  readonly source: string;
  /** One byte per character: 1 has run. */
  readonly covered: Uint8Array;
}

export class Coverage {
  readonly #session = new Session();
  readonly #files: readonly string[];
  readonly #scripts = new Map<string, Script>();
  #last: Profiler.ScriptCoverage[] = [];

  /** Before the code under test is loaded. `files`: ends of paths. */
  constructor(files: readonly string[]) {
    this.#files = files;
    this.#session.connect();
    this.#session.post("Profiler.enable");
    this.#session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true });
  }

  /** Asks what has run since the last time; how many characters of it had never run before. */
  take(): number {
    // A session on its own thread answers before `post` returns.
    this.#session.post("Profiler.takePreciseCoverage", (error, answer) => {
      if (error !== null) throw error;
      this.#last = answer.result.filter(({ url }) =>
        this.#files.some((file) => url.endsWith(`/${file}`)),
      );
    });
    let fresh = 0;
    for (const script of this.#last) {
      const { covered } = this.#script(script.url);
      const ran = charactersOf(script, covered.length);
      for (let i = 0; i < ran.length; i += 1) fresh += (ran[i] ?? 0) & ~(covered[i] ?? 0);
    }
    return fresh;
  }

  /** From now on, what `take` has seen is nothing new. */
  keep(): void {
    for (const script of this.#last) {
      const { covered } = this.#script(script.url);
      const ran = charactersOf(script, covered.length);
      for (let i = 0; i < ran.length; i += 1) covered[i] = (covered[i] ?? 0) | (ran[i] ?? 0);
    }
  }

  report(): FileCoverage[] {
    return [...this.#scripts].map(([url, { source, covered }]) => {
      const file = this.#files.find((end) => url.endsWith(`/${end}`)) ?? url;
      const missing = [...covered.keys()].filter((at) => covered[at] === 0);
      const starts = missing.filter((at) => covered[at - 1] !== 0);
      return {
        file,
        covered: covered.length - missing.length,
        characters: covered.length,
        missingLines: starts.map((at) => source.slice(0, at).split("\n").length),
      };
    });
  }

  #script(url: string): Script {
    let script = this.#scripts.get(url);
    if (script === undefined) {
      const source = readFileSync(fileURLToPath(url), "utf8");
      script = { source, covered: new Uint8Array(source.length) };
      this.#scripts.set(url, script);
    }
    return script;
  }
}

/** Ranges come outermost first, functions likewise: the innermost that holds a character decides. */
function charactersOf(script: Profiler.ScriptCoverage, length: number): Uint8Array {
  const ran = new Uint8Array(length);
  for (const { ranges } of script.functions) {
    for (const { startOffset, endOffset, count } of ranges) {
      ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
    }
  }
  return ran;
}
