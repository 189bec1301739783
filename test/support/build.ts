/** Vitest's global set-up: tests that start the gateway as a process of its own need a fresh `dist`. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const BUILT = join(ROOT, "dist/main.js");

/** `npm test` has just built: then nothing is done again. */
export function setup(): void {
  if (existsSync(BUILT) && statSync(BUILT).mtimeMs > newestSource()) return;
  execFileSync("npm", ["run", "--silent", "build"], { cwd: ROOT, stdio: "inherit" });
}

function newestSource(): number {
  const source = join(ROOT, "src");
  const times = readdirSync(source, { recursive: true, encoding: "utf8" }).map(
    (entry) => statSync(join(source, entry)).mtimeMs,
  );
  return Math.max(...times);
}
