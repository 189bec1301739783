/**
 * The logger and the one line that a finished session leaves behind. What is logged and when is the
 * gateway's business; this file owns the format, the level and the destination.
 */
import { type DestinationStream, destination, type Logger, pino, stdTimeFunctions } from "pino";
import { PinoPretty } from "pino-pretty";
import type { Cause } from "../close/causes.ts";
import type { GatewayConfig, LogLevel } from "../config/config.ts";
import type { SessionRecord } from "../session/record.ts";

export type { Logger } from "pino";

/**
 * Lines that wait for a reader of stdout. When nobody reads, lines beyond this are dropped: a stuck
 * log shipper must neither stop the relay nor eat its memory.
 */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;

const STDOUT = 1;

/**
 * `time` is ISO 8601 and `level` a word. No pid and no hostname: in a container both are noise that
 * the log pipeline knows better.
 */
export function createLogger(log: GatewayConfig["log"], stream?: DestinationStream): Logger {
  return pino(
    {
      level: log.level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    log.format === "pretty" ? prettyStream(stream) : (stream ?? stdoutStream()),
  );
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

/** Asynchronous, so that a slow reader never blocks the event loop; pino flushes it at exit. */
function stdoutStream(): DestinationStream {
  return destination({ dest: STDOUT, sync: false, maxLength: MAX_WAITING_BYTES });
}

/** In this process, not in a worker: lines keep their order and the last one is not lost. */
function prettyStream(stream: DestinationStream | undefined): DestinationStream {
  return PinoPretty({
    destination: stream ?? STDOUT,
    sync: true,
    singleLine: true,
    translateTime: "SYS:HH:MM:ss.l",
    ...(stream === undefined ? {} : { colorize: false }),
  });
}
