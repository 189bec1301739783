/**
 * What the admin listener may see and do of the gateway. The gateway implements it; the admin server
 * knows nothing else of the gateway.
 */
import type { SessionRecord } from "../session/record.ts";

export interface GatewayView {
  /** True from the last bind until drain begins: `/readyz`. */
  ready(): boolean;
  status(): GatewayStatus;
  /** Live sessions, oldest first, at most `limit`. */
  sessions(limit: number): SessionSummary[];
  /** The newest records (sessions and refusals), newest first, at most `limit`. */
  closes(limit: number): SessionRecord[];
  /** Ends a live session with cause `adminClosed`; false: no such session. */
  closeSession(id: string): boolean;
  /** Prometheus text and its content type. */
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>;
}

export interface GatewayStatus {
  readonly version: string;
  readonly state: "starting" | "ready" | "draining" | "stopped";
  readonly startedAt: string;
  readonly uptimeMs: number;
  readonly sessions: number;
  readonly listeners: readonly { readonly name: string; readonly address: string }[];
  readonly routes: readonly { readonly name: string; readonly sessions: number }[];
  readonly pools: readonly {
    readonly name: string;
    readonly backends: readonly BackendStatus[];
  }[];
}

export interface BackendStatus {
  readonly url: string;
  /** Slots taken: sessions and dials. */
  readonly connections: number;
  /** 0: no limit. */
  readonly maxConnections: number;
  readonly weight: number;
}

export interface SessionSummary {
  readonly session: string;
  readonly route: string;
  readonly backend: string;
  readonly clientIp: string;
  readonly subprotocol: string;
  readonly state: string;
  readonly startedAt: string;
  readonly ageMs: number;
  readonly idleMs: number;
  readonly messages: SessionRecord["messages"];
  readonly bytes: SessionRecord["bytes"];
}
