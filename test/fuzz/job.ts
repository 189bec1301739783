/** What the main process tells the process that fuzzes one target, and what it hears from it. */
import type { FileCoverage } from "./coverage.ts";
import type { TargetName } from "./target.ts";

export interface Job {
  readonly target: TargetName;
  readonly seed: number;
  readonly durationMs: number;
  /** The bytes of each input are here before it is run, behind 4 bytes of their length. */
  readonly lastInputFile: string;
  /** One input to run instead. */
  readonly inputFile: string | null;
}

export interface Report {
  readonly executions: number;
  readonly seconds: number;
  readonly corpus: number;
  readonly coverage: readonly FileCoverage[];
  readonly finding: { readonly hex: string; readonly message: string } | null;
}
