/** The configuration that the chaos run's gateways have, and what a reload makes of it. */
import type { Random } from "../support/random.ts";

/** What of the configuration changes from reload to reload. None of it changes which ends are right. */
export interface Variation {
  readonly number: number;
  readonly balance: "leastConnections" | "roundRobin";
  readonly weights: readonly number[];
  readonly acceptRate: number;
  /** Of `BACKENDS`; the pools of everyday routes do without it. */
  readonly without: number | null;
}

export const BACKENDS = 4;
/** Backends behind the `capped` route, each with this cap. */
export const CAPPED_BACKENDS = 2;
export const CAP = 4;

/** So many clients may be turned away by it in a run that reaches it; far above what the run does. */
const ACCEPT_RATES = [500, 1_000];

export const FIRST_VARIATION: Variation = {
  number: 0,
  balance: "leastConnections",
  weights: [1, 1, 1, 1],
  acceptRate: 1_000,
  without: null,
};

export function vary(random: Random, number: number, without: number | null): Variation {
  return {
    number,
    balance: random.pick(["leastConnections", "roundRobin"]),
    weights: Array.from({ length: BACKENDS }, () => random.int(1, 3)),
    acceptRate: random.pick(ACCEPT_RATES),
    without,
  };
}

export interface Ports {
  readonly listener: number;
  readonly admin: number;
  readonly backends: readonly number[];
}

/** Times are short, so that a minute sees all of them; but long for a machine that is busy. */
export function configOf(ports: Ports, variation: Variation): string {
  const { balance, weights, acceptRate, without, number } = variation;
  const everyday = ports.backends
    .map((port, index) => ({ url: `ws://127.0.0.1:${port}`, index }))
    .filter(({ index }) => index !== without)
    .map(({ url, index }) => `{ url: "${url}", weight: ${weights[index] ?? 1} }`)
    .join(", ");
  const capped = ports.backends
    .slice(0, CAPPED_BACKENDS)
    .map((port) => `{ url: "ws://127.0.0.1:${port}", maxConnections: ${CAP} }`)
    .join(", ");
  return `# ${number}
listeners:
  - { name: public, bind: "127.0.0.1:${ports.listener}", trustedProxies: [127.0.0.1/32], acceptRate: ${acceptRate} }
admin: { bind: "127.0.0.1:${ports.admin}" }
heartbeat:
  client: { interval: 2s, timeout: 5s }
  upstream: { interval: 500ms, timeout: 3s }
retry:
  connect: { attempts: 4, timeout: 6s }
  backoff: { initial: 100ms, max: 500ms }
limits: { slowConsumerTimeout: 4s, maxMessageSize: 512KiB }
drain: { delay: 500ms, timeout: 3s }
routes:
  - { name: plain, match: { path: /plain }, pool: main }
  - { name: nasty, match: { path: /nasty }, pool: nasty }
  - { name: http, match: { path: /http }, pool: nasty, refuse: http }
  - { name: retry, match: { path: /retry }, pool: main, ${sessionRetry("none", "4s")} }
  - { name: sure, match: { path: /sure }, pool: main, ${sessionRetry("unconfirmed", "10s")} }
  - { name: capped, match: { path: /capped }, pool: capped }
  - { name: limits, match: { path: /limits }, pool: main, limits: { messageRate: 100, idleTimeout: 1s, maxMessageSize: 32KiB } }
  - { name: aged, match: { path: /aged }, pool: main, limits: { maxConnectionAge: 2s } }
pools:
  main:
    balance: ${balance}
    connectTimeout: 1s
    ejection: { failures: 0 }
    health: { type: http, path: /healthz, interval: 1s, timeout: 1s }
    backends: [${everyday}]
  nasty:
    connectTimeout: 1s
    ejection: { failures: 5, window: 5s, duration: 500ms, maxDuration: 2s }
    slowStart: 500ms
    backends: [${everyday}]
  capped:
    connectTimeout: 1s
    ejection: { failures: 0 }
    queue: { size: 5, timeout: 1s }
    backends: [${capped}]
log: { level: info }
`;
}

function sessionRetry(resend: string, timeout: string): string {
  return `retry: { session: { enabled: true, attempts: 30, timeout: ${timeout}, resend: ${resend} } }`;
}

/** Files that are no good: the gateway must keep what it has. */
export const BAD_CONFIGS: readonly string[] = [
  "",
  "listeners: [",
  "listeners: []\nroutes: []\npools: {}\n",
  "\u0000\u0001",
];
