/** Inputs as files that a reader can open: text as it is, bytes in hexadecimal. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { TARGETS, type TargetName } from "./target.ts";

/** Inputs that stay: findings of the past, and what reaches parts of the code that little else does. */
export const CORPUS_FOLDER = join(packageRoot(), "test", "fixtures", "fuzz-corpus");

const BYTES_PER_LINE = 32;

export function readCorpus(target: TargetName): { name: string; input: Buffer }[] {
  const folder = join(CORPUS_FOLDER, target);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .toSorted()
    .map((name) => ({ name, input: readInput(join(folder, name)) }));
}

/** A `.hex` file is hexadecimal, any other is taken as it is. */
export function readInput(file: string): Buffer {
  const bytes = readFileSync(file);
  if (!file.endsWith(".hex")) return bytes;
  return Buffer.from(bytes.toString("latin1").replaceAll(/\s+/g, ""), "hex");
}

/** Returns the file's path. */
export function writeInput(
  folder: string,
  target: TargetName,
  name: string,
  input: Buffer,
): string {
  mkdirSync(folder, { recursive: true });
  const { isText } = TARGETS[target];
  const file = join(folder, `${target}-${name}.${isText ? "txt" : "hex"}`);
  writeFileSync(file, isText ? input : hexLines(input));
  return file;
}

function hexLines(input: Buffer): string {
  const lines: string[] = [];
  for (let at = 0; at < input.length; at += BYTES_PER_LINE) {
    lines.push(input.toString("hex", at, at + BYTES_PER_LINE));
  }
  return `${lines.join("\n")}\n`;
}

/** The compiled programs lie deeper than their sources. */
function packageRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(join(folder, "package.json"))) folder = dirname(folder);
  return folder;
}
