import { describe, expect, it } from "vitest";
import { load, problemsOf } from "./support.ts";

const FRAME = `
listeners: [{ name: public, bind: 127.0.0.1:8080 }]
pools: { chat: { backends: [{ url: "ws://127.0.0.1:9001" }] } }
`;

function routeOf(text: string) {
  const [route] = load(`${FRAME}${text}`).routes;
  if (route === undefined) throw new Error("no route");
  return route;
}

describe("policies", () => {
  it("of a route without any are those at the top", () => {
    const config = load(`${FRAME}
routes: [{ name: chat, pool: chat }]
limits: { idleTimeout: 7s }
refuse: http
`);
    const { name: _name, match: _match, pool: _pool, ...policies } = config.routes[0] ?? {};
    const limits = { ...config.policies.limits, handshakeTimeoutMs: Number.POSITIVE_INFINITY };
    expect(policies).toEqual({ ...config.policies, limits });
    expect(config.policies.limits.idleTimeoutMs).toBe(7000);
    expect(config.policies.refuse).toBe("http");
  });

  it("of a route bound the answer to a handshake only where the operator says so", () => {
    const config = load(`${FRAME}
routes: [{ name: a, match: { path: /a }, pool: chat, limits: { handshakeTimeout: 2s } }, { name: b, pool: chat }]
limits: { handshakeTimeout: 7s }
`);
    expect(config.policies.limits.handshakeTimeoutMs).toBe(7000);
    expect(config.routes.map(({ limits }) => limits.handshakeTimeoutMs)).toEqual([2000, 7000]);
  });

  it("of a route replace single keys and keep the rest of the top", () => {
    const route = routeOf(`
routes:
  - name: chat
    pool: chat
    heartbeat: { client: { interval: 5s } }
    limits: { maxConnections: 3 }
    retry: { backoff: { max: 5s } }
    close: { legacyCodes: true }
    retryAfter: { max: 90s }
    refuse: close
heartbeat: { client: { interval: 60s, timeout: 9s }, upstream: { timeout: 8s } }
limits: { maxConnections: 100, idleTimeout: 1h }
retry: { connect: { attempts: 9 }, backoff: { initial: 2s } }
close: { timeout: 3s }
retryAfter: { min: 2s }
refuse: http
`);
    expect(route.heartbeat.client).toMatchObject({ intervalMs: 5000, timeoutMs: 9000 });
    expect(route.heartbeat.upstream).toMatchObject({ intervalMs: 25_000, timeoutMs: 8000 });
    expect(route.limits).toMatchObject({ maxConnections: 3, idleTimeoutMs: 3_600_000 });
    expect(route.retry.connect.attempts).toBe(9);
    expect(route.retry.backoff).toMatchObject({ initialMs: 2000, maxMs: 5000 });
    expect(route.close).toMatchObject({ timeoutMs: 3000, legacyCodes: true });
    expect(route.retryAfter).toMatchObject({ minMs: 2000, maxMs: 90_000 });
    expect(route.refuse).toBe("close");
  });

  it("of one route do not touch another route or the top", () => {
    const config = load(`${FRAME}
routes:
  - { name: a, pool: chat, match: { path: /a }, limits: { maxConnections: 1 } }
  - { name: b, pool: chat }
`);
    expect(config.routes.map((route) => route.limits.maxConnections)).toEqual([1, 0]);
    expect(config.policies.limits.maxConnections).toBe(0);
  });

  it("merge close.causes and close.translate key by key", () => {
    const { close } = routeOf(`
routes:
  - name: chat
    pool: chat
    close:
      causes: { upstreamLost: { reason: mine }, idle: { code: 4000 } }
      translate: { 1011: 4001, "1005": 1001 }
close:
  causes: { upstreamLost: { code: 1012 }, maxAge: { reason: old } }
  translate: { 1011: 1012, 1001: 1000 }
`);
    expect(Object.fromEntries(close.causes)).toEqual({
      upstreamLost: { code: 1012, reason: "mine" },
      idle: { code: 4000 },
      maxAge: { reason: "old" },
    });
    expect(Object.fromEntries(close.translate)).toEqual({ 1001: 1000, 1005: 1001, 1011: 4001 });
  });

  it("are held against each other as the route gets them, and reported where they are set", () => {
    expect(
      problemsOf(`${FRAME}
routes:
  - { name: a, pool: chat, match: { path: /a }, retryAfter: { max: 90s } }
  - name: b
    pool: chat
    retryAfter: { max: 10s }
    heartbeat: { client: { payload: text } }
retryAfter: { min: 70s, max: 80s }
`),
    ).toEqual([
      "9:24: routes[1].retryAfter.max: max is shorter than min (10000ms against 70000ms)",
      "10:37: routes[1].heartbeat.client.payload: payload: text needs a message to send; set heartbeat.client.text",
    ]);
  });

  it("that clash at the top are reported once, not again for each route", () => {
    expect(
      problemsOf(`${FRAME}
routes: [{ name: a, pool: chat, match: { path: /a } }, { name: b, pool: chat }]
retryAfter: { min: 5m }
`),
    ).toEqual(["6:20: retryAfter.min: max is shorter than min (60000ms against 300000ms)"]);
  });

  it.each([
    [0, 0, 0],
    [0, 5, 5],
    [0.5, 0, 1],
    [2.5, 0, 3],
    [10, 0, 10],
    [10, 4, 4],
  ])("messageRate %d with messageBurst %d gives a burst of %d", (rate, burst, expected) => {
    const { limits } = routeOf(`
routes: [{ name: a, pool: chat }]
limits: { messageRate: ${rate}, messageBurst: ${burst} }
`);
    expect(limits.messageBurst).toBe(expected);
  });
});
