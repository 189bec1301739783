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
  /** Handshakes per second; 0: no limit. */
  readonly acceptRate: number;
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
  /** null: off. */
  readonly session: SessionRetryConfig | null;
  readonly backoff: BackoffConfig;
}

/** Which ends of the upstream leg are retried, and what the new upstream gets. */
export interface SessionRetryConfig {
  readonly onLost: boolean;
  readonly onUnresponsive: boolean;
  readonly onDrained: boolean;
  /** Close codes of the upstream. */
  readonly onCodes: ReadonlySet<number>;
  readonly attempts: number;
  readonly timeoutMs: number;
  /** Bytes of client frames that are kept for the next upstream. */
  readonly bufferBytes: number;
  readonly resend: "none" | "unconfirmed";
  /** How many of the client's first messages are sent again. */
  readonly replayFirst: number;
  /** How many of the new upstream's first messages do not reach the client. */
  readonly replaySwallow: number;
  /** Empty: none. */
  readonly notify: string;
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
  readonly balance: "roundRobin" | "leastConnections" | "hash";
  /** Set exactly where `balance` is `hash`. */
  readonly hashKey: HashKey | null;
  readonly backends: readonly BackendConfig[];
  /** From the first SYN to the verified 101 of one dial. */
  readonly connectTimeoutMs: number;
  readonly queue: QueueConfig;
  /** null: no probes. */
  readonly health: HealthConfig | null;
  /** null: off. */
  readonly ejection: EjectionConfig | null;
  /** How long a backend that comes back takes to its full share; 0: none. */
  readonly slowStartMs: number;
  readonly dns: DnsConfig;
}

export interface BackendConfig {
  /** As written in the file: the backend's name in logs, metrics and the admin API. */
  readonly url: string;
  /** Without brackets for IPv6. */
  readonly host: string;
  readonly port: number;
  /** The host is a DNS name: neither an address nor `localhost`. See `DnsConfig`. */
  readonly isName: boolean;
  /** Exact cap on sessions and dials at once; 0: no limit. */
  readonly maxConnections: number;
  readonly weight: number;
}

/** Backends whose host is a name: each of its addresses is a backend. */
export interface DnsConfig {
  /** Between resolutions; 0: none are made, and a name is dialled as it is. */
  readonly intervalMs: number;
}

/** Clients that wait for a slot when every backend is full. */
export interface QueueConfig {
  /** How many may wait; 0: none. */
  readonly size: number;
  readonly timeoutMs: number;
}

/** Active probes of a backend. */
export interface HealthConfig {
  readonly type: "http" | "tcp" | "websocket";
  /** What `http` and `websocket` ask for. */
  readonly path: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** Good probes in a row that make a backend healthy. */
  readonly rise: number;
  /** Bad probes in a row that make it unhealthy. */
  readonly fall: number;
  /** Whether an unhealthy backend's sessions are handed to session retry, or closed. */
  readonly closeSessions: boolean;
}

/** Takes a backend out after failures in real traffic. */
export interface EjectionConfig {
  readonly failures: number;
  readonly windowMs: number;
  /** The first time; doubles when it happens again. */
  readonly durationMs: number;
  readonly maxDurationMs: number;
}

/** What `balance: hash` looks at. */
export type HashKey =
  | { readonly kind: "clientIp" }
  | { readonly kind: "header" | "cookie" | "query"; readonly name: string };
