/** What a session is made of: what all of a gateway share, and what each is given. */
import type { RetryAfter } from "../close/retry-after.ts";
import type { RouteConfig } from "../config/config.ts";
import type { Slot } from "../upstream/backend.ts";
import type { DeflateParameters } from "../wire/deflate.ts";
import type { SlabPool } from "../wire/slab.ts";
import type { Clock } from "./clock.ts";
import type { PingMark } from "./heartbeat.ts";
import type { LegSocket } from "./leg.ts";
import type { SessionObserver, SessionRecord } from "./record.ts";
import type { Session } from "./session.ts";
import type { Redial } from "./session-retry.ts";
import type { Wheel } from "./wheel.ts";

/** What all sessions of a gateway share. */
export interface SessionContext {
  readonly clock: Clock;
  readonly wheel: Wheel;
  readonly observer: SessionObserver;
  readonly pingMark: PingMark;
  readonly retryAfter: RetryAfter;
  readonly random: () => number;
  /** Bytes that may wait in user space before the other leg is paused; the sockets' high-water mark. */
  readonly highWaterMarkBytes: number;
  readonly slabs: SlabPool;
  /** Told of a bug of ours, with what was thrown. */
  readonly onBug: (error: unknown) => void;
}

/** An upstream leg as it comes from the dial, with the slot that it holds. */
export interface UpstreamParts {
  readonly slot: Slot;
  readonly socket: LegSocket;
}

export interface SessionParts {
  readonly id: string;
  readonly route: RouteConfig;
  readonly clientIp: string;
  readonly subprotocol: string;
  /** What the client was told; null: no compression. */
  readonly deflate: DeflateParameters | null;
  readonly client: LegSocket;
  readonly upstream: UpstreamParts;
  /** What dialling again takes; null: the route has no session retry. */
  readonly redial: Redial | null;
  readonly dials: number;
  /** Wall clock, and the context's clock, when the handshake began. */
  readonly startedAt: number;
  readonly startedAtMs: number;
  /** Called once, last, when both sockets are closed. */
  readonly onClosed: (session: Session, record: SessionRecord) => void;
}
