/**
 * Rules over two values of one section: how one is stated, and where it is reported. Which rules there
 * are is in rules.ts and pool-rules.ts.
 */
import { isMapping } from "./merge.ts";
import type { Finding } from "./messages.ts";
import type { Path } from "./wording.ts";

/** Values that do not fit together; the first path that the scope sets is where it is reported. */
export interface Clash {
  readonly paths: readonly Path[];
  readonly message: string;
}

/** The clash of values that are well-formed; the schema reports those that are not. */
export function ifValid<T>(
  parsed: { success: true; data: T } | { success: false },
  rule: (data: T) => Clash | undefined,
): Clash[] {
  const clash = parsed.success ? rule(parsed.data) : undefined;
  return clash === undefined ? [] : [clash];
}

/** The mapping at `key`, empty where there is none, so that its defaults count; or what is malformed. */
export function child(value: unknown, key: string): unknown {
  if (value === undefined) return {};
  return isMapping(value) ? (value[key] ?? {}) : undefined;
}

/** What the scope does not set itself was reported where it comes from. */
export function reportClashes(
  clashes: readonly Clash[],
  scope: Path,
  written: unknown,
  findings: Finding[],
): void {
  for (const { paths, message } of clashes) {
    const path = paths.find((candidate) => isSet(written, candidate));
    if (path !== undefined) findings.push({ path: [...scope, ...path], at: "value", message });
  }
}

function isSet(value: unknown, path: Path): boolean {
  let current = value;
  for (const step of path) current = isMapping(current) ? current[step] : undefined;
  return current !== undefined;
}
