/** The YAML of the demo's gateway: a small real configuration, with times short enough to watch. */

export interface DemoAddresses {
  readonly host: string;
  /** Ports of the two echo backends. */
  readonly backends: readonly [first: number, second: number];
}

/** Backends are never reachable from elsewhere, whatever the host of the rest. */
export const BACKEND_HOST = "127.0.0.1";

export function demoConfig({ host, backends: [first, second] }: DemoAddresses): string {
  const at = urlHost(host);
  return `listeners:
  - name: public
    bind: "${at}:0"
admin:
  bind: "${at}:0"
routes:
  - name: echo
    match: { path: /ws }
    pool: echo
  - name: capped
    match: { path: /capped }
    pool: capped
  - name: line
    match: { path: /line }
    pool: echo
    retry:
      session:
        enabled: true
        attempts: 200
        timeout: 1m
        resend: unconfirmed
        # The backends greet: the client has been greeted already.
        replay: { swallow: 1 }
        notify: resumed after {downMs} ms
pools:
  echo:
    balance: leastConnections
    connectTimeout: 1s
    backends:
      - { url: "ws://${BACKEND_HOST}:${first}" }
      - { url: "ws://${BACKEND_HOST}:${second}" }
  capped:
    connectTimeout: 1s
    backends:
      - { url: "ws://${BACKEND_HOST}:${first}", maxConnections: 1 }
# A dead peer is noticed within 4 s here; the default is 45 s.
heartbeat:
  client: { interval: 2s, timeout: 2s }
  upstream: { interval: 2s, timeout: 2s }
retry:
  connect: { attempts: 2, timeout: 3s }
  backoff: { initial: 200ms, factor: 2, max: 1s, jitter: 0.5 }
close: { timeout: 1s }
retryAfter: { min: 2s, max: 8s }
drain: { timeout: 1s }
log: { level: info, format: pretty }
`;
}

/** The host as it stands in a URL. */
export function urlHost(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}
