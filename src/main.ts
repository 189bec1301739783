#!/usr/bin/env node
/** The `softclose` binary: what belongs to the process, and its exit code. No logic of its own. */
import type { CommandOutput } from "./cli/check.ts";
import { runProgram } from "./cli/program.ts";
import { Gateway } from "./gateway.ts";
import { readVersion } from "./version.ts";

const io: CommandOutput = {
  out: (line) => process.stdout.write(`${line}\n`),
  err: (line) => process.stderr.write(`${line}\n`),
};

// A reader that has left, as in `softclose explain 1006 | head -1`, is no fault of ours.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

/** Resolves at the first SIGTERM or SIGINT; the second ends the process at once. */
function stopSignal(): Promise<string> {
  return new Promise((resolve) => {
    let seen = false;
    const onSignal = (signal: string): void => {
      if (seen) process.exit(1);
      seen = true;
      resolve(signal);
    };
    process.on("SIGTERM", onSignal);
    process.on("SIGINT", onSignal);
  });
}

/** Resolves at the first bug that nobody caught; the second ends the process as Node does by default. */
function fault(): Promise<unknown> {
  return new Promise((resolve) => process.once("uncaughtException", resolve));
}

const version = readVersion();
process.exitCode = await runProgram(process.argv, {
  version,
  env: process.env,
  io,
  createGateway: (config, logger, source) => new Gateway(config, { logger, version, source }),
  stopSignal,
  fault,
  onHangup: (reload) => process.on("SIGHUP", reload),
  exit: (code) => process.exit(code),
});
