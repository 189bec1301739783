/**
 * Reads a configuration: text or file in, a valid `GatewayConfig` or every problem with its position
 * out. Nothing that a file may contain makes it throw.
 */
import { readFileSync } from "node:fs";
import type { GatewayConfig } from "./config.ts";
import type { Environment } from "./interpolate.ts";
import { LineIndex } from "./line-index.ts";
import { type Finding, resolve } from "./resolve.ts";
import { formatPath } from "./wording.ts";
import { pathId, readTree } from "./yaml-tree.ts";

/** One thing that is wrong, in a form that tools can use too. */
export interface ConfigProblem {
  readonly file: string;
  /** From 1; 0 where the problem is the file as a whole. */
  readonly line: number;
  readonly column: number;
  /** `routes[0].match.path`; empty for the file as a whole. */
  readonly path: string;
  /** What is wrong and what would be right. */
  readonly message: string;
}

export type LoadResult =
  | { readonly config: GatewayConfig }
  | { readonly errors: readonly ConfigProblem[] };

/** A configuration of ten thousand backends fits; a log file given by mistake does not. */
const LARGEST_FILE_BYTES = 2 ** 20;

export function loadConfig(
  source: string,
  { file, env }: { readonly file: string; readonly env: Environment },
): LoadResult {
  if (Buffer.byteLength(source) > LARGEST_FILE_BYTES) return wholeFile(file, TOO_LARGE);
  // Positions are those an editor shows, and it hides the byte order mark.
  const text = source.startsWith("\uFEFF") ? source.slice(1) : source;
  const lines = new LineIndex(text);
  const tree = readTree(text, env, lines);
  const faults = tree.faults.map((fault): Located => ({ ...fault }));
  if (!tree.broken) {
    const result = resolve(tree.value, tree.texts);
    if ("config" in result && faults.length === 0) return result;
    const findings = "findings" in result ? result.findings : [];
    // Where the text itself is at fault, what the schema says about the place follows from that.
    const faulty = new Set(faults.map((fault) => pathId(fault.path)));
    const fresh = findings.filter((finding) => !isWithin(finding.path, faulty));
    faults.push(...fresh.map((finding) => ({ ...finding, offset: offsetOf(finding) })));
  }
  return { errors: toProblems(faults) };

  function offsetOf(finding: Finding): number {
    return finding.at === "key" ? tree.keyOffsetOf(finding.path) : tree.offsetOf(finding.path);
  }

  function toProblems(located: readonly Located[]): ConfigProblem[] {
    return located
      .toSorted((one, other) => one.offset - other.offset)
      .map(({ path, offset, message }) => ({
        file,
        ...lines.positionOf(offset),
        path: formatPath(path),
        message,
      }));
  }
}

/** Reads the file and loads it. */
export function loadConfigFile(path: string, env: Environment): LoadResult {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    return wholeFile(path, unreadable(error));
  }
  if (bytes.length > LARGEST_FILE_BYTES) return wholeFile(path, TOO_LARGE);
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return loadConfig(text, { file: path, env });
  } catch {
    // The decoder says no more than that.
    return wholeFile(path, "is not a text file in UTF-8");
  }
}

/** The one line that an operator reads: `file:line:column: path: message`. */
export function formatProblem(problem: ConfigProblem): string {
  const place =
    problem.line > 0 ? `${problem.file}:${problem.line}:${problem.column}` : problem.file;
  return [place, problem.path, problem.message].filter((part) => part !== "").join(": ");
}

interface Located {
  readonly path: Finding["path"];
  readonly offset: number;
  readonly message: string;
}

const TOO_LARGE = "is larger than 1MiB; that is no configuration";

function wholeFile(file: string, message: string): LoadResult {
  return { errors: [{ file, line: 0, column: 0, path: "", message }] };
}

function unreadable(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") return "there is no such file";
  if (code === "EISDIR") return "is a directory, not a file";
  if (code === "EACCES" || code === "EPERM") return "may not be read; check its permissions";
  return `cannot be read (${typeof code === "string" ? code : "unknown error"})`;
}

/** Does the path, or anything above it but the root, belong to the set? */
function isWithin(path: Finding["path"], set: ReadonlySet<string>): boolean {
  return path.some((_step, index) => set.has(pathId(path.slice(0, index + 1))));
}
