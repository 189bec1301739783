/** `softclose check FILE`: says whether a configuration is good, or everything that is wrong with it. */
import type { GatewayConfig } from "../config/config.ts";
import type { Environment } from "../config/interpolate.ts";
import { formatProblem, loadConfigFile } from "../config/load.ts";

/** Where a command writes its lines. */
export interface CommandOutput {
  out(line: string): void;
  err(line: string): void;
}

/** DESIGN: 64 is bad usage or configuration (EX_USAGE of sysexits.h). */
const BAD_CONFIG = 64;

/** The exit code: 0 for a good file, 64 for a bad one with one line for each problem. */
export function runCheck(file: string, env: Environment, io: CommandOutput): number {
  const result = loadConfigFile(file, env);
  if ("errors" in result) {
    for (const problem of result.errors) io.err(formatProblem(problem));
    return BAD_CONFIG;
  }
  io.out(`${file}: ok (${summarise(result.config)})`);
  return 0;
}

function summarise({ listeners, routes, pools }: GatewayConfig): string {
  const backends = pools.reduce((sum, pool) => sum + pool.backends.length, 0);
  return [
    plural(listeners.length, "listener"),
    plural(routes.length, "route"),
    plural(pools.length, "pool"),
    plural(backends, "backend"),
  ].join(", ");
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
