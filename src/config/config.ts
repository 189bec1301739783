/**
 * The configuration as the gateway uses it: validated, defaults filled in, top-level policies merged
 * into every route, durations in milliseconds and sizes in bytes. Made by `load.ts`; knows no YAML.
 */
import type { Cause } from "../close/causes.ts";

export interface GatewayConfig {
  readonly listeners: readonly ListenerConfig[];
  readonly admin: AdminConfig;
  /** In file order: the first match wins. */
  readonly routes: readonly RouteConfig[];
  readonly pools: readonly PoolConfig[];
  /** The top-level policies: what holds before a route is known. */
  readonly policies: Policies;
  readonly drain: { readonly delayMs: number; readonly timeoutMs: number };
  readonly log: { readonly level: LogLevel; readonly format: "json" | "pretty" };
}

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";

export interface Bind {
  /** Without brackets for IPv6. */
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
}

export interface ListenerConfig {
  readonly name: string;
  readonly bind: Bind;
  /** CIDRs (or single addresses) whose X-Forwarded-* are believed. */
  readonly trustedProxies: readonly string[];
  /** WebSocket sessions and handshakes at once; 0: no limit. */
  readonly maxConnections: number;
}

export interface AdminConfig {
  /** null: no admin listener. */
  readonly bind: Bind | null;
  /** Empty: mutations need no token. */
  readonly token: string;
}

/** What can be set at the top for all routes and again inside a route. */
export interface Policies {
  readonly heartbeat: { readonly client: HeartbeatConfig; readonly upstream: HeartbeatConfig };
  readonly retry: RetryConfig;
  readonly close: CloseConfig;
  readonly refuse: "close" | "http";
  readonly retryAfter: RetryAfterConfig;
  readonly limits: LimitsConfig;
}

export interface HeartbeatConfig {
  /** 0: no heartbeat. */
  readonly intervalMs: number;
  /** How long after a ping without any byte the peer counts as unresponsive. */
  readonly timeoutMs: number;
  /** `text`: an application text message in place of a Ping frame (client side only). */
  readonly payload: "ping" | "text";
  /** The text message that is sent when `payload` is `text`. */
  readonly text: string;
}

export interface RetryConfig {
  readonly connect: { readonly attempts: number; readonly timeoutMs: number };
  readonly backoff: BackoffConfig;
}

export interface BackoffConfig {
  readonly initialMs: number;
  readonly factor: number;
  readonly maxMs: number;
  /** 0 to 1: the share of a delay that is drawn at random. */
  readonly jitter: number;
}

export interface CloseConfig {
  readonly timeoutMs: number;
  readonly legacyCodes: boolean;
  readonly causes: ReadonlyMap<Cause, { readonly code?: number; readonly reason?: string }>;
  /** Upstream code (1005: empty Close) to client code. */
  readonly translate: ReadonlyMap<number, number>;
}

export interface RetryAfterConfig {
  readonly minMs: number;
  readonly maxMs: number;
  /** Clients per second that the service can take back. */
  readonly acceptRate: number;
}

export interface LimitsConfig {
  /** At the top: until the request head is complete. In a route: from there to the answer. */
  readonly handshakeTimeoutMs: number;
  readonly maxMessageBytes: number;
  /** Client messages per second; 0: no limit. */
  readonly messageRate: number;
  /** Messages that may come at once; at least 1 where messageRate is set. */
  readonly messageBurst: number;
  /** Sessions of the route at once; 0: no limit. */
  readonly maxConnections: number;
  readonly maxConnectionsPerClient: number;
  readonly idleTimeoutMs: number;
  readonly maxConnectionAgeMs: number;
  readonly slowConsumerTimeoutMs: number;
}

export interface RouteConfig extends Policies {
  readonly name: string;
  readonly match: {
    /** Lower case; exact, or `*.suffix`; null: any. */
    readonly host: string | null;
    /** Prefix on segment borders; null: any. */
    readonly path: string | null;
  };
  readonly pool: string;
}

export interface PoolConfig {
  readonly name: string;
  readonly balance: "roundRobin" | "leastConnections";
  readonly backends: readonly BackendConfig[];
  /** From the first SYN to the verified 101 of one dial. */
  readonly connectTimeoutMs: number;
}

export interface BackendConfig {
  /** As written in the file: the backend's name in logs, metrics and the admin API. */
  readonly url: string;
  /** Without brackets for IPv6. */
  readonly host: string;
  readonly port: number;
  /** Exact cap on sessions and dials at once; 0: no limit. */
  readonly maxConnections: number;
  readonly weight: number;
}
