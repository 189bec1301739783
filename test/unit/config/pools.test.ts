/** The keys of a pool, from the file to what the gateway uses. What is refused: fixtures/bad-config. */
import { describe, expect, it } from "vitest";
import type { PoolConfig } from "../../../src/config/config.ts";
import { load, MINIMAL } from "./support.ts";

const withKeys = (keys: string) => MINIMAL.replace("{ chat: {", `{ chat: { ${keys},`);

/** The pool that has these keys. */
function poolOf(keys: string, env = {}): PoolConfig {
  const [pool] = load(withKeys(keys), env).pools;
  if (pool === undefined) throw new Error("one pool");
  return pool;
}

/** The one backend with this URL. */
function backendOf(url: string) {
  return load(MINIMAL.replace("ws://127.0.0.1:9001", url)).pools[0]?.backends[0];
}

describe("balance", () => {
  it.each(["roundRobin", "leastConnections"])("may be %s, and then has no key", (balance) => {
    expect(poolOf(`balance: ${balance}`)).toMatchObject({ balance, hashKey: null });
  });

  it("may be hash, of what a client brings", () => {
    const keyOf = (of: string) => poolOf(`balance: hash, of: ${of}`).hashKey;
    expect(poolOf("balance: hash, of: clientIp").balance).toBe("hash");
    expect(keyOf("clientIp")).toEqual({ kind: "clientIp" });
    expect(keyOf("header:X-User-Id")).toEqual({ kind: "header", name: "x-user-id" });
    expect(keyOf("cookie:Sid")).toEqual({ kind: "cookie", name: "Sid" });
    expect(keyOf("query:room")).toEqual({ kind: "query", name: "room" });
  });

  it("may come from the environment", () => {
    const env = { BALANCE: "hash", OF: "query:42" };
    expect(poolOf('balance: "${BALANCE}", of: "${OF}"', env).hashKey).toEqual({
      kind: "query",
      name: "42",
    });
  });
});

describe("the queue", () => {
  it("has a size and a timeout, each with its default", () => {
    expect(poolOf("queue: { size: 100 }").queue).toEqual({ size: 100, timeoutMs: 5000 });
    expect(poolOf("queue: { timeout: 1m }").queue).toEqual({ size: 0, timeoutMs: 60_000 });
  });
});

describe("health", () => {
  it("is on once it has a type", () => {
    for (const type of ["http", "tcp", "websocket"] as const) {
      expect(poolOf(`health: { type: ${type} }`).health).toEqual({
        type,
        path: "/",
        intervalMs: 5000,
        timeoutMs: 2000,
        rise: 2,
        fall: 3,
        closeSessions: false,
      });
    }
  });

  it("takes every key", () => {
    const keys =
      'type: websocket, path: "/ws?probe=1", interval: 10s, timeout: 10s, rise: 1, fall: 1, closeSessions: true';
    expect(poolOf(`health: { ${keys} }`).health).toEqual({
      type: "websocket",
      path: "/ws?probe=1",
      intervalMs: 10_000,
      timeoutMs: 10_000,
      rise: 1,
      fall: 1,
      closeSessions: true,
    });
  });
});

describe("ejection", () => {
  it("is on by default, and each key has its own", () => {
    const byDefault = {
      failures: 5,
      windowMs: 30_000,
      durationMs: 10_000,
      maxDurationMs: 300_000,
    };
    expect(poolOf("ejection: {}").ejection).toEqual(byDefault);
    expect(poolOf("ejection: { failures: 1 }").ejection).toEqual({ ...byDefault, failures: 1 });
    expect(poolOf("ejection: { window: 1s, duration: 2s, maxDuration: 2s }").ejection).toEqual({
      failures: 5,
      windowMs: 1000,
      durationMs: 2000,
      maxDurationMs: 2000,
    });
  });

  it("is off with no failures, whatever else is set", () => {
    expect(poolOf("ejection: { failures: 0 }").ejection).toBeNull();
    expect(poolOf("ejection: { failures: 0, duration: 10m }").ejection).toBeNull();
  });
});

describe("slow start", () => {
  it("is a time", () => {
    expect(poolOf("slowStart: 30s").slowStartMs).toBe(30_000);
  });
});

describe("DNS", () => {
  it("is for hosts that are names", () => {
    const names = ["chat", "Chat.Example.com", "my_chat", "chat:9001", "localhost.lan"];
    const others = ["127.0.0.1", "127.0.0.1:9001", "[::1]", "[2001:db8::1]:9001", "localhost"];
    for (const host of names)
      expect([host, backendOf(`ws://${host}`)?.isName]).toEqual([host, true]);
    for (const host of others)
      expect([host, backendOf(`ws://${host}`)?.isName]).toEqual([host, false]);
    expect(backendOf("ws://LOCALHOST:9001/")?.isName).toBe(false);
  });

  it("is asked again at an interval, or not at all", () => {
    expect(poolOf("dns: { interval: 1s }").dns).toEqual({ intervalMs: 1000 });
    expect(poolOf("dns: { interval: 0s }").dns).toEqual({ intervalMs: 0 });
    expect(poolOf("dns: {}").dns).toEqual({ intervalMs: 30_000 });
  });
});

describe("a listener's acceptRate", () => {
  it("is a number of handshakes per second", () => {
    const text = MINIMAL.replace("127.0.0.1:8080", "127.0.0.1:8080, acceptRate: 100");
    expect(load(text).listeners[0]?.acceptRate).toBe(100);
  });
});
