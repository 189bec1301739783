/**
 * The logger and the one line that a finished session leaves behind. What is logged and when is the
 * gateway's business; this file owns the format, the level and the destination.
 */
import { type DestinationStream, type Logger, pino, stdTimeFunctions } from "pino";
import { prettyFactory } from "pino-pretty";
import type { Cause } from "../close/causes.ts";
import type { GatewayConfig, LogLevel } from "../config/config.ts";
import type { SessionRecord } from "../session/record.ts";
import { LineWriter } from "./line-writer.ts";

export type { Logger } from "pino";

const STDOUT = 1;

const FLUSH_LIMIT_MS = 500;

/**
 * `time` is ISO 8601 and `level` a word. No pid and no hostname: in a container both are noise that
 * the log pipeline knows better. Without a stream the lines go to stdout.
 */
export function createLogger(log: GatewayConfig["log"], stream?: DestinationStream): Logger {
  const out = stream ?? stdoutStream((lines) => logger.warn({ lines }, "log lines dropped"));
  const logger = pino(
    {
      level: log.level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    log.format === "pretty" ? prettyStream(out, stream === undefined) : out,
  );
  return logger;
}

/**
 * Resolves when every line is written. Without it, what is flushed while the process exits overtakes
 * the write that is under way. A reader that is stuck or gone holds nobody up.
 */
export async function flushLog(logger: Logger): Promise<void> {
  await new Promise<void>((resolve) => {
    const timer = setTimeout(resolve, FLUSH_LIMIT_MS);
    logger.flush(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** Writes the record's line at its level. */
export function logRecord(logger: Logger, record: SessionRecord): void {
  logger[recordLevel(record.cause)](
    recordLine(record),
    record.refused ? "session refused" : "session ended",
  );
}

/** The fields of a session's log line. */
export function recordLine(record: SessionRecord): Record<string, unknown> {
  const { dropped } = record;
  return {
    session: record.session,
    route: record.route,
    backend: record.backend,
    clientIp: record.clientIp,
    subprotocol: record.subprotocol,
    cause: record.cause,
    ...(record.detail === "" ? {} : { detail: record.detail }),
    ...(record.refused ? { refused: true } : {}),
    client: { sent: record.client.sent, received: record.client.received },
    upstream: { sent: record.upstream.sent, received: record.upstream.received },
    durationMs: record.durationMs,
    idleMs: record.idleMs,
    messages: record.messages,
    bytes: record.bytes,
    ...(dropped.clientToUpstream === 0 && dropped.upstreamToClient === 0 ? {} : { dropped }),
    dials: record.dials,
    resumes: record.resumes,
    ...(record.retryingMs === 0 ? {} : { retryingMs: record.retryingMs }),
  };
}

type RecordLevel = Extract<LogLevel, "info" | "warn" | "error">;

export function recordLevel(cause: Cause): RecordLevel {
  return LEVELS[cause];
}

/**
 * `warn` is what an operator can do something about: the upstream or the gateway's own limits. What
 * clients do, and what the configuration asked for, is `info`.
 */
const LEVELS: Readonly<Record<Cause, RecordLevel>> = {
  clientClosed: "info",
  upstreamClosed: "info",
  clientLost: "info",
  clientUnresponsive: "info",
  upstreamLost: "warn",
  upstreamUnresponsive: "warn",
  upstreamUnreachable: "warn",
  upstreamRejected: "warn",
  noBackend: "warn",
  capacity: "warn",
  retryExhausted: "warn",
  draining: "info",
  backendDraining: "info",
  clientProtocolError: "info",
  upstreamProtocolError: "warn",
  messageTooBig: "info",
  rateLimited: "info",
  slowConsumer: "info",
  idle: "info",
  maxAge: "info",
  unauthorized: "info",
  forbidden: "info",
  authExpired: "info",
  adminClosed: "info",
  internalError: "error",
};

/**
 * Not pino's own destination: at exit that one spins forever on a pipe whose reader has gone, and it
 * takes the process down when the disk behind stdout is full.
 */
function stdoutStream(onDropped: (lines: number) => void): DestinationStream {
  const writer = new LineWriter(STDOUT, { onDropped });
  process.once("exit", () => writer.flushSync());
  return writer;
}

/** In this thread, line by line: lines keep their order and the last one is not lost. */
function prettyStream(out: DestinationStream, toTerminal: boolean): DestinationStream {
  const pretty = prettyFactory({
    singleLine: true,
    translateTime: "SYS:HH:MM:ss.l",
    ...(toTerminal ? {} : { colorize: false }),
  });
  const flush = (done: () => void): void => (out instanceof LineWriter ? out.flush(done) : done());
  return Object.assign({ write: (line: string) => out.write(pretty(line)) }, { flush });
}
