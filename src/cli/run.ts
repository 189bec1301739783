/**
 * `softclose run`: from flags to an exit code. Logger, configuration, build, bind, wait for a signal,
 * drain.
 */
import { setFlagsFromString } from "node:v8";
import type { GatewayConfig } from "../config/config.ts";
import type { Environment } from "../config/interpolate.ts";
import { ConfigSource } from "../config/source.ts";
import { type RunFlags, resolveSources } from "../config/sources.ts";
import { ConfigWatcher, contentOf } from "../config/watch.ts";
import { BindError } from "../edge/bind-error.ts";
import { createLogger, flushLog, type Logger } from "../observe/log.ts";
import type { CommandOutput } from "./check.ts";

const CLEAN = 0;
/** Could not start, or drain had to destroy sessions. */
const FAILED = 1;
const BAD_CONFIG = 64;

/**
 * V8 lets its young generation grow to 48 MiB while sessions are opened, and keeps it: that is more
 * memory than thousands of idle sessions take. What relaying allocates dies at once, so a small one
 * costs no measurable CPU (`npm run bench`).
 */
const KEEP_YOUNG_GENERATION_SMALL = "--semi-space-growth-factor=1";
/**
 * V8 counts read buffers that it has not collected yet towards the heap, and with a heap as small as
 * ours they start a full collection every tenth of a second under load. This is the growth that V8
 * itself takes at most (four times the live heap), taken always.
 */
const COLLECT_THE_OLD_GENERATION_LATE = "--heap-growing-percent=300";

/** As much of the gateway as running it takes. */
export interface RunnableGateway {
  /** Rejects with a BindError. */
  start(): Promise<void>;
  /** Resolves to the number of sessions that had to be destroyed. */
  drain(): Promise<number>;
  /** Tells every client that the process ends by a bug of ours. */
  abandon(): Promise<void>;
  /** Reads the configuration file again; logs what came of it. */
  reload(): Promise<unknown>;
}

export interface RunOptions {
  readonly createGateway: (
    config: GatewayConfig,
    logger: Logger,
    source: ConfigSource | null,
  ) => RunnableGateway;
  readonly flags: RunFlags;
  readonly env: Environment;
  readonly io: CommandOutput;
  /** Resolves at the first signal to stop. */
  readonly stopSignal: Promise<string>;
  /** Resolves to what was thrown and caught by nobody. */
  readonly fault: Promise<unknown>;
  /** Calls back at each signal to reload. */
  readonly onHangup: (reload: () => void) => void;
}

/** Resolves to the exit code when the gateway has ended. */
export async function run(options: RunOptions): Promise<number> {
  const { createGateway, flags, env, io, stopSignal, fault, onHangup } = options;
  const sources = resolveSources(flags, env);
  if ("problems" in sources) {
    for (const problem of sources.problems) io.err(problem);
    return BAD_CONFIG;
  }
  const { config, file } = sources;
  // Now: what changes while the gateway starts is a change, too.
  const content = file === null ? null : contentOf(file);
  setFlagsFromString(KEEP_YOUNG_GENERATION_SMALL);
  setFlagsFromString(COLLECT_THE_OLD_GENERATION_LATE);
  const logger = createLogger(config.log);
  const source = file === null ? null : new ConfigSource(file, env);
  const gateway = createGateway(config, logger, source);
  const starting = gateway.start();
  // By default the signal ends the process, and looking names up takes its time: one that comes while
  // the gateway starts waits for that.
  const reload = (): void =>
    void starting.then(
      () => gateway.reload(),
      () => undefined,
    );
  onHangup(reload);
  try {
    await starting;
  } catch (error) {
    if (!(error instanceof BindError)) throw error;
    io.err(error.message);
    return FAILED;
  }
  const watcher = file === null ? null : new ConfigWatcher(file, content, reload);
  const faulted = fault.then((error) => ({ error }));
  const signal = await Promise.race([stopSignal, faulted]);
  watcher?.stop();
  if (typeof signal === "object") {
    logger.fatal({ err: signal.error }, "bug in the gateway: closing every session");
    await gateway.abandon();
    await flushLog(logger);
    return FAILED;
  }
  logger.info({ signal }, "stopping");
  const destroyed = await gateway.drain();
  await flushLog(logger);
  return destroyed === 0 ? CLEAN : FAILED;
}
