/** The command line: which commands and flags there are, and what each sets going. */
import { Command, CommanderError } from "commander";
import type { GatewayConfig } from "../config/config.ts";
import type { Environment } from "../config/interpolate.ts";
import type { ConfigSource } from "../config/source.ts";
import type { RunFlags } from "../config/sources.ts";
import type { Logger } from "../observe/log.ts";
import { type CommandOutput, runCheck } from "./check.ts";
import { type DemonstrableGateway, runDemoCommand } from "./demo-command.ts";
import { explain } from "./explain.ts";
import { runPlan } from "./plan.ts";
import { type RunnableGateway, run } from "./run.ts";
import { jsonSchema } from "./schema.ts";

export interface Program {
  readonly version: string;
  readonly env: Environment;
  readonly io: CommandOutput;
  readonly createGateway: (
    config: GatewayConfig,
    logger: Logger,
    source: ConfigSource | null,
  ) => RunnableGateway & DemonstrableGateway;
  /** Resolves at the first signal to stop; asked for by commands that run until then. */
  readonly stopSignal: () => Promise<string>;
  /** Resolves to what was thrown and caught by nobody; asked for by `run` only. */
  readonly fault: () => Promise<unknown>;
  /** Calls back at each signal to reload; asked for by `run` only. */
  readonly onHangup: (reload: () => void) => void;
  /** Ends the process at once. */
  readonly exit: (code: number) => void;
}

const BAD_USAGE = 64;

/** Resolves to the exit code when the command is done. */
export async function runProgram(argv: readonly string[], program: Program): Promise<number> {
  let exitCode = 0;
  const command = commands(program, (code) => {
    exitCode = code;
  });
  try {
    await command.parseAsync(argv);
    return exitCode;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version end this way, too; commander has printed what there is to say.
    return error.exitCode === 0 ? 0 : BAD_USAGE;
  }
}

function commands(program: Program, end: (code: number) => void): Command {
  const { version, env, io, createGateway, stopSignal, fault, onHangup, exit } = program;
  const command = new Command("softclose")
    .description(
      "WebSocket gateway: clients never see 1006 because of a backend, a proxy or a deploy.",
    )
    .version(version)
    .exitOverride()
    .showHelpAfterError();
  command
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
      const signals = { stopSignal: stopSignal(), fault: fault(), onHangup };
      exit(await run({ createGateway, flags, env, io, ...signals }));
    });
  command
    .command("check <file>")
    .description("check a configuration file: exit code 0, or 64 with every error")
    .action((file: string) => end(runCheck(file, env, io)));
  command
    .command("plan <file>")
    .description("ask a running gateway what a reload with the file would change; changes nothing")
    .option("--admin <host:port>", "its admin listener; without it, the one in the file")
    .option("--token <token>", "its admin token; without it, the one in the file")
    .action(async (file: string, { admin, token }: { admin?: string; token?: string }) =>
      end(await runPlan({ file, admin, token, env, io })),
    );
  command
    .command("schema")
    .description("print the JSON Schema of the configuration, for editors")
    .action(() => io.out(JSON.stringify(jsonSchema(), null, 2)));
  command
    .command("explain <code> [other]")
    .description("explain a close code, or how two of them differ")
    .action((code: string, other?: string) =>
      end(explain(other === undefined ? [code] : [code, other], io)),
    );
  const withoutFile = (config: GatewayConfig, logger: Logger) =>
    createGateway(config, logger, null);
  command
    .command("demo")
    .description("two echo backends, the gateway in front, and a page to kill a backend on")
    .option("--port <n>", "port of the page")
    .action(async ({ port }: { port?: string }) => {
      exit(
        await runDemoCommand({ createGateway: withoutFile, port, io, stopSignal: stopSignal() }),
      );
    });
  return command;
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value];
}
