import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { monotonicClock } from "../../../src/session/clock.ts";
import type { Session } from "../../../src/session/session.ts";
import { SessionTable } from "../../../src/session/session-table.ts";
import { routeOf, SessionBench } from "./fake-socket.ts";

let table: SessionTable;
let bench: SessionBench;

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setInterval", "clearInterval", "setTimeout", "clearTimeout", "performance", "Date"],
  });
  table = new SessionTable();
  bench = new SessionBench();
});

afterEach(() => {
  bench.wheel.stop();
  vi.useRealTimers();
});

const ROUTE = routeOf("heartbeat: { client: { interval: 0s }, upstream: { interval: 0s } }\n");

/** Sessions in the table; each leaves it when its sockets have closed. */
function open(count: number): Session[] {
  return Array.from({ length: count }, () => {
    const { session, client, upstream } = bench.open(ROUTE);
    table.add(session);
    let gone = 0;
    for (const socket of [client, upstream]) {
      socket.on("close", () => {
        gone += 1;
        if (gone === 2) table.delete(session);
      });
    }
    return session;
  });
}

const stillOpen = (sessions: readonly Session[]): number =>
  sessions.filter(({ state }) => state === "open").length;

describe("SessionTable", () => {
  it("counts by route, finds by id, keeps the order, and bears a second delete", () => {
    const [first, second] = open(2);
    expect(table.size).toBe(2);
    expect(table.countByRoute().get("all")).toBe(2);
    expect([...table.values()]).toEqual([first, second]);
    if (first === undefined) throw new Error("no session");
    expect(table.get(first.id)).toBe(first);
    table.delete(first);
    table.delete(first);
    expect([table.size, table.countByRoute().get("all")]).toEqual([1, 1]);
    expect(table.get(first.id)).toBeUndefined();
  });

  it("drains at once when it is empty", async () => {
    expect(await table.drain(60_000, monotonicClock)).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("closes the same number of sessions in every part of the time, oldest first", async () => {
    const sessions = open(1_000);
    const drained = table.drain(10_000, monotonicClock);
    for (let tenth = 1; tenth < 10; tenth += 1) {
      await vi.advanceTimersByTimeAsync(900);
      const closed = 1_000 - stillOpen(sessions);
      expect(Math.abs(closed - tenth * 100)).toBeLessThanOrEqual(3);
      const firstOpen = sessions.findIndex(({ state }) => state === "open");
      expect(stillOpen(sessions.slice(firstOpen))).toBe(1_000 - firstOpen);
    }
    await vi.advanceTimersByTimeAsync(920);
    expect(stillOpen(sessions)).toBe(0);
    await vi.advanceTimersByTimeAsync(2_000);
    // Nobody has answered: those whose close.timeout was not over had to be destroyed.
    expect(await drained).toBeGreaterThan(0);
    expect(table.size).toBe(0);
  });

  it("resolves as soon as the last session is gone, with 0 if none had to be destroyed", async () => {
    const sessions = open(10);
    const drained = table.drain(3_600_000, monotonicClock);
    for (const session of sessions) session.destroy();
    await vi.advanceTimersByTimeAsync(1);
    expect(await drained).toBe(0);
    bench.wheel.stop();
    expect(vi.getTimerCount()).toBe(0);
  });

  it("closes everybody at once where there is no time", async () => {
    const sessions = open(20);
    const drained = table.drain(0, monotonicClock);
    expect(stillOpen(sessions)).toBe(0);
    await vi.advanceTimersByTimeAsync(10);
    expect(await drained).toBe(20);
  });
});
