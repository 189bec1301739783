#!/usr/bin/env node
/** The `softclose` binary: arguments, command, exit code. No logic of its own. */
import { Command, CommanderError } from "commander";
import { type CommandOutput, runCheck } from "./cli/check.ts";
import { runDemoCommand } from "./cli/demo-command.ts";
import { explain } from "./cli/explain.ts";
import { run } from "./cli/run.ts";
import { jsonSchema } from "./cli/schema.ts";
import type { GatewayConfig } from "./config/config.ts";
import type { RunFlags } from "./config/sources.ts";
import { Gateway } from "./gateway.ts";
import type { Logger } from "./observe/log.ts";
import { readVersion } from "./version.ts";

const BAD_USAGE = 64;

const io: CommandOutput = {
  out: (line) => process.stdout.write(`${line}\n`),
  err: (line) => process.stderr.write(`${line}\n`),
};

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

const createGateway = (config: GatewayConfig, logger: Logger): Gateway =>
  new Gateway(config, { logger, version: readVersion() });
const collect = (value: string, before: readonly string[] = []): string[] => [...before, value];
const end = (code: number): void => {
  process.exitCode = code;
};

const program = new Command("softclose")
  .description(
    "WebSocket gateway: clients never see 1006 because of a backend, a proxy or a deploy.",
  )
  .version(readVersion())
  .exitOverride()
  .showHelpAfterError();
program
  .command("run")
  .description("run the gateway")
  .option("-c, --config <file>", "configuration file (SOFTCLOSE_CONFIG)")
  .option("--listen <host:port>", "without a file: where clients connect (SOFTCLOSE_LISTEN)")
  .option("--upstream <url>", "without a file: backend, repeatable (SOFTCLOSE_UPSTREAM)", collect)
  .option(
    "--max-connections <n>",
    "without a file: cap of each backend (SOFTCLOSE_MAX_CONNECTIONS)",
  )
  .option("--admin <host:port>", "without a file: admin listener, or off (SOFTCLOSE_ADMIN)")
  .action(async (flags: RunFlags) => {
    // A gateway that has drained has nothing left to do; what a library keeps open must not hold it.
    process.exit(
      await run({ createGateway, flags, env: process.env, io, stopSignal: stopSignal() }),
    );
  });
program
  .command("check <file>")
  .description("check a configuration file: exit code 0, or 64 with every error")
  .action((file: string) => end(runCheck(file, process.env, io)));
program
  .command("schema")
  .description("print the JSON Schema of the configuration, for editors")
  .action(() => io.out(JSON.stringify(jsonSchema(), null, 2)));
program
  .command("explain <code> [other]")
  .description("explain a close code, or how two of them differ")
  .action((code: string, other?: string) =>
    end(explain(other === undefined ? [code] : [code, other], io)),
  );
program
  .command("demo")
  .description("two echo backends, the gateway in front, and a page to kill a backend on")
  .option("--port <n>", "port of the page")
  .action(async ({ port }: { port?: string }) => {
    process.exit(await runDemoCommand({ createGateway, port, io, stopSignal: stopSignal() }));
  });

await program.parseAsync().catch((error: unknown) => {
  if (!(error instanceof CommanderError)) throw error;
  // Help and version end this way, too; commander has printed what there is to say.
  end(error.exitCode === 0 ? 0 : BAD_USAGE);
});
