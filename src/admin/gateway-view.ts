/**
 * What the admin listener may see and do of the gateway. The gateway implements it; the admin server
 * knows nothing else of the gateway.
 */
import type { ReloadPlan } from "../config/plan.ts";
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
  /** Takes a backend out of service and has its sessions leave, paced; null: no such backend. */
  drainBackend(url: string): DrainedBackend | null;
  /** Puts it back; false: no such backend. */
  undrainBackend(url: string): boolean;
  /** Reads the configuration file again. */
  reload(): Promise<ReloadReport>;
  /** What a reload with this text would change. */
  plan(text: string): PlanAnswer;
  /** Prometheus text and its content type. */
  metrics(): Promise<{ readonly contentType: string; readonly text: string }>;
}

export interface GatewayStatus {
  readonly version: string;
  readonly state: "starting" | "ready" | "draining" | "stopped";
  readonly startedAt: string;
  readonly uptimeMs: number;
  readonly sessions: number;
  /** Lost upstreams that no client saw as 1006, since the start: told by a Close, or replaced. */
  readonly absorbedDrops: { readonly closed: number; readonly resumed: number };
  readonly listeners: readonly { readonly name: string; readonly address: string }[];
  /** null: none since the start. */
  readonly lastReload:
    | (Pick<ReloadReport, "outcome" | "problems"> & { readonly at: string })
    | null;
  readonly routes: readonly { readonly name: string; readonly sessions: number }[];
  readonly pools: readonly {
    readonly name: string;
    /** Clients that wait for a slot. */
    readonly queued: number;
    readonly backends: readonly BackendStatus[];
  }[];
  /** Backends that a reload has taken out of their pool, as long as they have sessions. */
  readonly leaving: readonly (BackendStatus & { readonly pool: string })[];
}

export interface BackendStatus {
  readonly url: string;
  /** Slots taken: sessions and dials. */
  readonly connections: number;
  /** 0: no limit. */
  readonly maxConnections: number;
  readonly weight: number;
  /** By its active probe; true without one. */
  readonly up: boolean;
  /** Taken out for a while by failures in real traffic. */
  readonly ejected: boolean;
  readonly draining: boolean;
  /** What the last probe found; null: it is not probed. */
  readonly probe: string | null;
}

export interface DrainedBackend {
  /** That were there when the drain began. */
  readonly sessions: number;
}

/**
 * `invalid`: the file is; `failed`: an address could not be bound; `refused`: the gateway is not ready. Only
 * `applied` has changed anything.
 */
export interface ReloadReport {
  readonly outcome: "applied" | "unchanged" | "invalid" | "failed" | "refused";
  /** One line each. */
  readonly problems: readonly string[];
  readonly plan?: ReloadPlan;
  readonly sessionsLeaving?: number;
}

export type PlanAnswer =
  | { readonly plan: ReloadPlan; readonly sessionsLeaving: number }
  | { readonly problems: readonly string[] };

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
