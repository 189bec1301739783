/**
 * The closed list of causes: why a session ended or was refused. Log, metrics, records and the close
 * policy all speak in these words; nothing else may.
 */

/** Every cause, in the order of the documentation. */
export const CAUSES = [
  "clientClosed",
  "upstreamClosed",
  "clientLost",
  "clientUnresponsive",
  "upstreamLost",
  "upstreamUnresponsive",
  "upstreamUnreachable",
  "upstreamRejected",
  "noBackend",
  "capacity",
  "retryExhausted",
  "draining",
  "backendDraining",
  "clientProtocolError",
  "upstreamProtocolError",
  "messageTooBig",
  "rateLimited",
  "slowConsumer",
  "idle",
  "maxAge",
  "unauthorized",
  "forbidden",
  "authExpired",
  "adminClosed",
  "internalError",
] as const;

/** Why a session ended or was refused. */
export type Cause = (typeof CAUSES)[number];

/** The two ends of a session. */
export type Side = "client" | "upstream";

/**
 * A Close frame. `code` 1005 stands for an empty Close (no payload), as RFC 6455 §7.1.5 names it;
 * it is never written as a code.
 */
export interface Close {
  readonly code: number;
  readonly reason: string;
}

/** Whether a code may stand in a Close frame: RFC 6455 §7.4.1 and what IANA has registered since. */
export function isSendable(code: number): boolean {
  if (!Number.isInteger(code)) return false;
  return (
    (code >= 1000 && code <= 1003) ||
    (code >= 1007 && code <= 1014) ||
    (code >= 3000 && code <= 4999)
  );
}
