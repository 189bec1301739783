/**
 * The default close table: which Close each leg gets for each cause, before the operator's overrides.
 * The one place these codes and reasons stand; the policy and the code registry both read it.
 */
import type { Cause, Close, Side } from "./causes.ts";

/** What is known about an end beyond its cause. */
export interface CloseDetail {
  /** Who sent the message that is too big; read by `messageTooBig` only. */
  readonly offender?: Side;
  /** The HTTP status of `upstreamRejected`; null or absent: a 101 that was none. */
  readonly status?: number | null;
  /** Says more than the default reason. A reason that the operator configured wins over it. */
  readonly reason?: string;
  /** Whole seconds after which a client that was turned away should come back. */
  readonly retryAfterS?: number;
}

/** The Close of each leg; null: that leg gets none. */
export interface LegCloses {
  readonly client: Close | null;
  readonly upstream: Close | null;
}

/** The default Closes of a cause. `clientClosed` and `upstreamClosed` are passed on, not made. */
export function defaultCloses(cause: Cause, detail: CloseDetail): LegCloses {
  const { client, upstream } = RULES[cause];
  if (cause === "upstreamRejected") return { client: rejection(detail.status ?? null), upstream };
  if (cause === "messageTooBig" && detail.offender === "upstream")
    return { client, upstream: client };
  return { client, upstream };
}

/** Whether the cause's reason ends in `; retry-after=N`. */
export function carriesRetryAfter(cause: Cause): boolean {
  return RULES[cause].retryAfter ?? false;
}

/** Whether 1000 would be a lie about this cause, whatever the operator configured. */
export function isAbnormal(cause: Cause): boolean {
  return !(RULES[cause].orderly ?? false);
}

/** The status of a refusal with `refuse: http`; `status` is what the upstream answered, if it did. */
export function httpStatusFor(cause: Cause, status: number | null = null): number {
  if (cause === "upstreamRejected") {
    // What is no refusal by itself (a false 101, a 200) is a bad gateway's answer.
    return status !== null && status >= 300 && status <= 599 ? status : 502;
  }
  return RULES[cause].httpStatus ?? 500;
}

/**
 * The leg to which a detail's reason can be said as it is. The other leg did nothing wrong: it is
 * told who did, and then the detail. Null: both.
 */
export function addresseeOf(cause: Cause): Side | null {
  if (cause === "clientProtocolError") return "client";
  // Why session retry did not help is no news to the upstream.
  if (cause === "upstreamUnresponsive") return "client";
  if (cause === "upstreamProtocolError") return "upstream";
  return null;
}

interface Rule extends LegCloses {
  /** The client is told when to come back. */
  readonly retryAfter?: true;
  /** An end by plan, with both legs sound: the operator may call it 1000. */
  readonly orderly?: true;
  /** With `refuse: http`; absent where a session only ends and is never refused. */
  readonly httpStatus?: number;
}

const RULES: Readonly<Record<Cause, Rule>> = {
  clientClosed: { client: null, upstream: null },
  upstreamClosed: { client: null, upstream: null },
  clientLost: { client: null, upstream: close(1001, "client connection lost") },
  clientUnresponsive: {
    client: close(1001, "no pong in time"),
    upstream: close(1001, "client sent no pong in time"),
  },
  upstreamLost: { client: close(1014, "upstream connection lost"), upstream: null },
  upstreamUnresponsive: {
    client: close(1014, "upstream sent no pong in time"),
    upstream: close(1001, "no pong in time"),
  },
  upstreamUnreachable: {
    client: close(1013, "upstream is unreachable"),
    upstream: null,
    retryAfter: true,
    httpStatus: 503,
  },
  // By status: see rejection().
  upstreamRejected: { client: null, upstream: null },
  noBackend: {
    client: close(1013, "no backend is available"),
    upstream: null,
    retryAfter: true,
    httpStatus: 503,
  },
  capacity: {
    client: close(1013, "at capacity"),
    upstream: null,
    retryAfter: true,
    httpStatus: 503,
  },
  retryExhausted: {
    client: close(1013, "upstream did not come back"),
    upstream: null,
    retryAfter: true,
    httpStatus: 503,
  },
  draining: {
    client: close(1012, "gateway is shutting down"),
    upstream: close(1001, "gateway is shutting down"),
    retryAfter: true,
    orderly: true,
    httpStatus: 503,
  },
  backendDraining: {
    client: close(1012, "backend is being drained"),
    upstream: close(1001, "backend is being drained"),
    orderly: true,
    httpStatus: 503,
  },
  clientProtocolError: {
    client: close(1002, "protocol error"),
    upstream: close(1001, "client broke the protocol"),
    httpStatus: 400,
  },
  upstreamProtocolError: {
    client: close(1014, "upstream broke the protocol"),
    upstream: close(1002, "protocol error"),
    httpStatus: 502,
  },
  messageTooBig: {
    client: close(1009, "message is too big"),
    // Where the client sent it; an upstream that did gets the client's 1009.
    upstream: close(1001, "client sent a message that is too big"),
  },
  rateLimited: {
    client: close(1008, "too many messages"),
    upstream: close(1001, "client sent too many messages"),
    httpStatus: 429,
  },
  slowConsumer: {
    client: close(1008, "takes data too slowly"),
    upstream: close(1001, "client takes data too slowly"),
  },
  idle: {
    client: close(1001, "idle for too long"),
    upstream: close(1001, "idle for too long"),
    orderly: true,
  },
  maxAge: {
    client: close(1012, "maximum connection age reached"),
    upstream: close(1001, "maximum connection age reached"),
    orderly: true,
  },
  unauthorized: { client: close(1008, "not authenticated"), upstream: null, httpStatus: 401 },
  forbidden: { client: close(1008, "not allowed"), upstream: null, httpStatus: 403 },
  authExpired: {
    client: close(1008, "authentication has expired"),
    upstream: close(1001, "client's authentication has expired"),
    httpStatus: 401,
  },
  adminClosed: {
    client: close(1012, "closed by an administrator"),
    upstream: close(1001, "closed by an administrator"),
    orderly: true,
  },
  internalError: {
    client: close(1011, "internal error in the gateway"),
    upstream: close(1011, "internal error in the gateway"),
    httpStatus: 500,
  },
};

/** An answer to the upstream handshake, as a close code: a verdict on the client, "later", or a fault. */
function rejection(status: number | null): Close {
  if (status === null || status === 101) {
    return close(1014, "upstream did not answer with a valid 101");
  }
  const reason = `upstream answered ${status}`;
  if (status === 429 || status === 503) return close(1013, reason);
  if (status >= 400 && status <= 499) return close(1008, reason);
  return close(1014, reason);
}

function close(code: number, reason: string): Close {
  return { code, reason };
}
