/** A long measurement: bounded in time, and whatever happens, its processes and its folder go with it. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Processes } from "./processes.ts";

/** `run` resolves to whether all is as it should be; the exit code says so, too. */
export async function boundedRun(
  name: string,
  limitMs: number,
  run: (processes: Processes, folder: string) => Promise<boolean>,
): Promise<void> {
  const processes = new Processes();
  const folder = mkdtempSync(join(tmpdir(), `softclose-${name}-`));
  process.on("exit", () => {
    processes.killAll();
    rmSync(folder, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => process.exit(1));
  }
  const limit = setTimeout(() => {
    console.error(`stopped: the run took longer than ${limitMs / 60_000} minutes`);
    process.exit(1);
  }, limitMs);
  try {
    if (!(await run(processes, folder))) process.exitCode = 1;
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
  clearTimeout(limit);
  await processes.endAll();
}
