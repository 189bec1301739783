/**
 * The record: the one structured account of a finished or refused session. Log line, metrics, the
 * ledger and the admin page are views of it.
 */
import type { Cause, Side } from "../close/causes.ts";

/** One number per direction. */
export interface BothWays {
  readonly clientToUpstream: number;
  readonly upstreamToClient: number;
}

/** Close codes on one leg; null: no Close frame. 1005: an empty one. */
export interface CloseCodes {
  sent: number | null;
  received: number | null;
}

export interface SessionRecord {
  readonly session: string;
  /** Name from the config; `-` where no route matched. */
  readonly route: string;
  /** URL from the config; null where no backend was reached. */
  readonly backend: string | null;
  readonly clientIp: string;
  readonly subprotocol: string;
  readonly cause: Cause;
  /** More words on the cause for people (which rule was broken, which error a dial met). */
  readonly detail: string;
  /** True: no session came about, the handshake was refused. */
  readonly refused: boolean;
  readonly client: CloseCodes;
  readonly upstream: CloseCodes;
  readonly startedAt: number;
  readonly durationMs: number;
  /** Since the last byte from either side, at the end. */
  readonly idleMs: number;
  /** Whole messages relayed. */
  readonly messages: BothWays;
  /** Bytes of relayed frames: headers and payload, data and control. */
  readonly bytes: BothWays;
  /** Messages that were read and could not be delivered, because the other leg had ended. */
  readonly dropped: BothWays;
  readonly dials: number;
  readonly resumes: number;
  /** Time without an upstream, while the client was held. */
  readonly retryingMs: number;
}

/** What the session tells while it lives. Implemented by metrics; every call is off the data path. */
export interface SessionObserver {
  sessionOpened(route: string): void;
  /** Traffic since the last call for the same session. */
  relayed(route: string, messages: BothWays, bytes: BothWays): void;
  closeFrame(side: Side, direction: "sent" | "received", code: number): void;
  heartbeatRtt(side: Side, seconds: number): void;
  /** A new upstream has taken over after this time without one. */
  resumed(route: string, gapSeconds: number): void;
  /** A new upstream has taken over from one whose backend is drained. */
  moved(route: string): void;
  /** No resume came about: it was impossible, or the dials were used up. */
  resumeEnded(route: string, outcome: "impossible" | "exhausted" | "ended"): void;
  sessionEnded(record: SessionRecord): void;
}

/** What has been added since. */
export function difference(now: BothWays, before: BothWays): BothWays {
  return {
    clientToUpstream: now.clientToUpstream - before.clientToUpstream,
    upstreamToClient: now.upstreamToClient - before.upstreamToClient,
  };
}
