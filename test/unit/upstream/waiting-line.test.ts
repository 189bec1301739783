import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Slot } from "../../../src/upstream/backend.ts";
import { type Place, type Turn, WaitingLine } from "../../../src/upstream/waiting-line.ts";
import { makeBackend } from "../../support/pool-config.ts";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  const left = vi.getTimerCount();
  vi.useRealTimers();
  if (left > 0) throw new Error(`${left} timers left`);
});

const BACKEND = makeBackend({ host: "b" });

/** A line before `free` slots; whose turn came, and how, is in `turns`. */
function lineOf(size: number, timeoutMs = 1_000) {
  const turns: string[] = [];
  const line = new WaitingLine({ size, timeoutMs }, () => Date.now());
  const stock = {
    free: 0,
    take: (): Slot | null => {
      if (stock.free === 0) return null;
      stock.free -= 1;
      return new Slot(BACKEND, null, {
        now: () => Date.now(),
        onTrial: () => undefined,
        onRelease: () => {
          stock.free += 1;
          line.serve();
        },
      });
    },
  };
  const join = (name: string, then?: (turn: Turn) => void): Place | null =>
    line.join({
      take: stock.take,
      onTurn: (turn) => {
        turns.push(typeof turn === "string" ? `${name} ${turn}` : name);
        then?.(turn);
      },
    });
  return { line, stock, turns, join };
}

function release(turn: Turn): void {
  if (typeof turn !== "string") turn.release();
}

describe("WaitingLine", () => {
  it("serves in the order of arrival, as far as the slots reach", () => {
    const { line, stock, turns, join } = lineOf(10);
    for (const name of ["a", "b", "c", "d"]) join(name);
    line.serve();
    expect(turns).toEqual([]);
    stock.free = 2;
    line.serve();
    expect(turns).toEqual(["a", "b"]);
    expect([line.length, stock.free]).toEqual([2, 0]);
    stock.free = 9;
    line.serve();
    expect(turns).toEqual(["a", "b", "c", "d"]);
    expect([line.length, stock.free]).toEqual([0, 7]);
  });

  it("has no room beyond its size, and none at all at 0", () => {
    const { line, join } = lineOf(2);
    const place = join("a");
    expect(join("b")).not.toBeNull();
    expect(join("c")).toBeNull();
    place?.leave();
    expect(join("c")).not.toBeNull();
    expect(lineOf(0).join("a")).toBeNull();
    line.close();
  });

  it("never calls one who has left, and one who leaves twice has left once", () => {
    const { line, stock, turns, join } = lineOf(10);
    const places = ["a", "b", "c", "d"].map((name) => join(name));
    for (const which of [1, 3, 1, 0]) places[which]?.leave();
    expect(line.length).toBe(1);
    stock.free = 9;
    line.serve();
    places[2]?.leave();
    vi.advanceTimersByTime(5_000);
    expect(turns).toEqual(["c"]);
    expect(line.length).toBe(0);
  });

  it("tells each at its own deadline that the time is up", () => {
    const { turns, join } = lineOf(10);
    join("a");
    vi.advanceTimersByTime(400);
    join("b");
    join("c");
    vi.advanceTimersByTime(599);
    expect(turns).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(turns).toEqual(["a timeout"]);
    vi.advanceTimersByTime(400);
    expect(turns).toEqual(["a timeout", "b timeout", "c timeout"]);
  });

  it("has one timer for all, and none when nobody waits", () => {
    const { line, stock, join } = lineOf(1_000);
    const places = Array.from({ length: 1_000 }, (_, i) => join(String(i)));
    expect(vi.getTimerCount()).toBe(1);
    for (const place of places) place?.leave();
    expect(vi.getTimerCount()).toBe(0);
    join("again");
    expect(vi.getTimerCount()).toBe(1);
    stock.free = 1;
    line.serve();
    expect(vi.getTimerCount()).toBe(0);
  });

  it("does not mistake a timer that fires early for the deadline", () => {
    const turns: Turn[] = [];
    // As when the clock that timers go by is a little ahead.
    const line = new WaitingLine({ size: 1, timeoutMs: 100 }, () => Date.now() * 0.99);
    line.join({ take: () => null, onTurn: (turn) => turns.push(turn) });
    vi.advanceTimersByTime(100);
    expect(turns).toEqual([]);
    vi.advanceTimersByTime(2);
    expect(turns).toEqual(["timeout"]);
  });

  it("looks for a slot once more before it turns anybody away", () => {
    const { stock, turns, join } = lineOf(10);
    join("a");
    join("b");
    stock.free = 1;
    vi.advanceTimersByTime(1_000);
    expect(turns).toEqual(["a", "b timeout"]);
  });

  it("hands a slot that is given back from within a turn to the next, in the same pass", () => {
    const { line, stock, turns, join } = lineOf(10);
    for (const name of ["a", "b", "c"]) join(name, release);
    stock.free = 1;
    line.serve();
    expect(turns).toEqual(["a", "b", "c"]);
    expect(stock.free).toBe(1);
  });

  it("serves one who joins from within a turn after all the others, without stopping the event loop", () => {
    const { line, stock, turns, join } = lineOf(10);
    // Fails and comes back at once, for ever.
    const again = (turn: Turn): void => {
      release(turn);
      join("restless", again);
    };
    join("restless", again);
    join("b", release);
    stock.free = 1;
    line.serve();
    expect(turns).toEqual(["restless", "b"]);
    expect(line.length).toBe(1);
    vi.advanceTimersToNextTimer();
    expect(turns).toEqual(["restless", "b", "restless"]);
    line.close();
  });

  it("lets a turn end the wait of another, also of one whose time is up as well", () => {
    const { line, stock, turns, join } = lineOf(10);
    let place: Place | null = null;
    join("a", () => place?.leave());
    place = join("b");
    join("c");
    vi.advanceTimersByTime(1_000);
    expect(turns).toEqual(["a timeout", "c timeout"]);
    join("d", () => place?.leave());
    place = join("e");
    stock.free = 9;
    line.serve();
    expect(turns).toEqual(["a timeout", "c timeout", "d"]);
  });

  it("throws nobody out when a reload makes it smaller, but lets nobody in either", () => {
    const { line, stock, turns, join } = lineOf(3);
    for (const name of ["a", "b", "c"]) join(name);
    line.reconfigure({ size: 1, timeoutMs: 1_000 });
    expect(line.length).toBe(3);
    stock.free = 2;
    line.serve();
    expect(join("d")).toBeNull();
    stock.free = 1;
    line.serve();
    expect(join("d")).not.toBeNull();
    expect(turns).toEqual(["a", "b", "c"]);
    line.close();
  });

  it("gives the timeout of a reload to those who come from then on", () => {
    const { line, turns, join } = lineOf(10);
    join("long");
    line.reconfigure({ size: 10, timeoutMs: 100 });
    join("short");
    line.reconfigure({ size: 10, timeoutMs: 2_000 });
    join("longest");
    vi.advanceTimersByTime(100);
    expect(turns).toEqual(["short timeout"]);
    vi.advanceTimersByTime(900);
    expect(turns).toEqual(["short timeout", "long timeout"]);
    vi.advanceTimersByTime(1_000);
    expect(turns).toEqual(["short timeout", "long timeout", "longest timeout"]);
  });

  it("tells everybody when it is closed, and nobody waits from then on", () => {
    const { line, stock, turns, join } = lineOf(10);
    join("a", () => expect(join("late")).toBeNull());
    join("b");
    line.close();
    expect(turns).toEqual(["a closed", "b closed"]);
    stock.free = 1;
    line.serve();
    expect([join("c"), line.length, stock.free]).toEqual([null, 0, 1]);
  });

  it("can be closed from within a turn", () => {
    const { line, stock, turns, join } = lineOf(10);
    join("a", () => line.close());
    join("b");
    stock.free = 2;
    line.serve();
    expect(turns).toEqual(["a", "b closed"]);
    expect(stock.free).toBe(1);
    expect(join("c")).toBeNull();
  });
});
