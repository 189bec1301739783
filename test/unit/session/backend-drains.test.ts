import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { BackendDrains } from "../../../src/session/backend-drains.ts";
import { monotonicClock } from "../../../src/session/clock.ts";
import type { Session } from "../../../src/session/session.ts";
import { SessionTable } from "../../../src/session/session-table.ts";
import type { Backend } from "../../../src/upstream/backend.ts";
import { makeBackend } from "../../support/pool-config.ts";
import { routeOf, SessionBench } from "./fake-socket.ts";

let table: SessionTable;
let bench: SessionBench;
let drains: BackendDrains;

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout", "performance", "Date"],
  });
  table = new SessionTable();
  bench = new SessionBench();
  drains = new BackendDrains(table, monotonicClock);
});

afterEach(() => {
  drains.stop();
  bench.wheel.stop();
  vi.useRealTimers();
});

const ROUTE = routeOf("heartbeat: { client: { interval: 0s }, upstream: { interval: 0s } }\n");

/** Sessions of one backend. */
function open(count: number): { backend: Backend; sessions: Session[] } {
  const backend = makeBackend();
  const sessions = Array.from({ length: count }, () => {
    const { session } = bench.open(ROUTE);
    vi.spyOn(session, "served", "get").mockReturnValue(backend);
    table.add(session);
    return session;
  });
  return { backend, sessions };
}

const left = (sessions: readonly Session[]): number =>
  sessions.filter(({ state }) => state !== "open").length;

describe("BackendDrains", () => {
  it("has the sessions of that backend leave, evenly, and no others", () => {
    const { backend, sessions } = open(100);
    const others = open(20);
    backend.drain();
    expect(drains.begin(backend, 10_000)).toBe(100);
    vi.advanceTimersByTime(5_000);
    expect([left(sessions), left(others.sessions)]).toEqual([50, 0]);
    vi.advanceTimersByTime(5_000);
    expect([left(sessions), left(others.sessions)]).toEqual([100, 0]);
  });

  it("is not put off by being asked for again and again", () => {
    const { backend, sessions } = open(100);
    backend.drain();
    for (let second = 0; second < 10; second += 1) {
      expect(drains.begin(backend, 10_000)).toBe(100);
      vi.advanceTimersByTime(1_000);
    }
    expect(left(sessions)).toBe(100);
  });

  it("leaves those alone whose backend has come back, and begins anew when it goes again", () => {
    const { backend, sessions } = open(100);
    backend.drain();
    drains.begin(backend, 10_000);
    vi.advanceTimersByTime(2_000);
    backend.undrain();
    drains.forgetReturned();
    vi.advanceTimersByTime(60_000);
    expect(left(sessions)).toBe(20);
    backend.drain();
    drains.begin(backend, 1_000);
    vi.advanceTimersByTime(1_000);
    expect(left(sessions)).toBe(100);
  });

  it("leaves no timer behind, whether it ends, is stopped or has nothing to do", () => {
    const { backend, sessions } = open(10);
    for (const session of sessions) vi.spyOn(session, "move").mockReturnValue();
    bench.wheel.stop();
    drains.begin(backend, 1_000);
    vi.advanceTimersByTime(1_000);
    expect(vi.getTimerCount()).toBe(0);
    drains.begin(backend, 0);
    expect(vi.getTimerCount()).toBe(0);
    drains.begin(backend, 1_000);
    drains.stop();
    expect(vi.getTimerCount()).toBe(0);
    expect(drains.begin(open(0).backend, 1_000)).toBe(0);
  });
});
