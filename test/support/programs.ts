/** Programs that tests need and npm does not bring: without them a suite is skipped, but never in CI. */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Debian does not have this one in everybody's PATH. */
const MORE_FOLDERS = ["/usr/sbin", "/sbin"];

/** Something that a suite needs. */
export interface Need {
  /** As the reader of a skipped test should read it, e.g. `nginx` or `python3-websockets`. */
  readonly name: string;
  readonly found: () => boolean;
}

/** The path of a program; null: this machine does not have it. */
export function which(name: string): string | null {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), ...MORE_FOLDERS];
  const paths = folders.map((folder) => join(folder, name));
  return paths.find((path) => isExecutable(path)) ?? null;
}

/** The path of a program that a suite has asked for. */
export function pathOf(name: string): string {
  const path = which(name);
  if (path === null) throw new Error(`no ${name}`);
  return path;
}

export function program(name: string): Need {
  return { name, found: () => which(name) !== null };
}

/** Debian's own Python, as its modules are not those of another one in the PATH. */
export const PYTHON = "/usr/bin/python3";

export function pythonModule(module: string): Need {
  return {
    name: `python3-${module}`,
    found: () => isExecutable(PYTHON) && spawnSync(PYTHON, ["-c", `import ${module}`]).status === 0,
  };
}

/**
 * For `describe.skipIf`: whether something that the suite needs is not on this machine, and says what.
 * With `REAL_TESTS=required`, as in CI, that is an error.
 */
export function lacks(...needs: readonly Need[]): boolean {
  const missing = needs.filter(({ found }) => !found()).map(({ name }) => name);
  if (missing.length === 0) return false;
  const what = `not found on this machine: ${missing.join(", ")}`;
  if (process.env["REAL_TESTS"] === "required") throw new Error(what);
  console.warn(`skipped, ${what}`);
  return true;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    // Not there, or not ours to run: either way not found.
    return false;
  }
}
