/** Which Close each side gets for each cause, as the documentation has it: written down again, not read from the code. */
import type { Cause } from "../../src/close/causes.ts";

interface Row {
  /** Null: it gets none, or one that is not the gateway's own. */
  readonly client: number | null;
  readonly upstream: number | null;
  /** The reason says when to come back. */
  readonly tellsWhen?: true;
}

export const CLOSE_TABLE: Readonly<Record<Cause, Row>> = {
  clientClosed: { client: null, upstream: null },
  upstreamClosed: { client: null, upstream: null },
  clientLost: { client: null, upstream: 1001 },
  clientUnresponsive: { client: 1001, upstream: 1001 },
  upstreamLost: { client: 1014, upstream: null },
  upstreamUnresponsive: { client: 1014, upstream: 1001 },
  upstreamUnreachable: { client: 1013, upstream: null, tellsWhen: true },
  upstreamRejected: { client: null, upstream: null },
  noBackend: { client: 1013, upstream: null, tellsWhen: true },
  capacity: { client: 1013, upstream: null, tellsWhen: true },
  retryExhausted: { client: 1013, upstream: null, tellsWhen: true },
  draining: { client: 1012, upstream: 1001, tellsWhen: true },
  backendDraining: { client: 1012, upstream: 1001 },
  clientProtocolError: { client: 1002, upstream: 1001 },
  upstreamProtocolError: { client: 1014, upstream: 1002 },
  messageTooBig: { client: 1009, upstream: 1001 },
  rateLimited: { client: 1008, upstream: 1001 },
  slowConsumer: { client: 1008, upstream: 1001 },
  idle: { client: 1001, upstream: 1001 },
  maxAge: { client: 1012, upstream: 1001 },
  unauthorized: { client: 1008, upstream: null },
  forbidden: { client: 1008, upstream: null },
  authExpired: { client: 1008, upstream: 1001 },
  adminClosed: { client: 1012, upstream: 1001 },
  internalError: { client: 1011, upstream: 1011 },
};

/** For `upstreamRejected`; null: a 101 that was none. */
export function codeOfRejection(status: number | null): number {
  if (status === 429 || status === 503) return 1013;
  return status !== null && status >= 400 && status <= 499 ? 1008 : 1014;
}
