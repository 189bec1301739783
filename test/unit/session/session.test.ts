import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { UNPIN_CHECK_MS } from "../../../src/session/flow.ts";
import { closePayload } from "../../support/frames.ts";
import { type FakeSocket, routeOf, SessionBench } from "./fake-socket.ts";

const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
const MASK = Buffer.from([9, 8, 7, 6]);
const NO_HEARTBEAT = "heartbeat: { client: { interval: 0s }, upstream: { interval: 0s } }\n";
/** Two ticks of the wheel: the precision of everything that is timed. */
const PRECISION_MS = 100;

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setInterval", "clearInterval", "setTimeout", "performance", "Date"],
  });
});

afterEach(() => {
  vi.useRealTimers();
});

async function pass(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

/** More than a leg takes without being blocked. */
function flood(from: FakeSocket, masked: boolean): void {
  const payload = Buffer.alloc(60_000);
  from.sends({ opcode: 2, payload, mask: masked ? MASK : null });
  from.sends({ opcode: 2, payload, mask: masked ? MASK : null });
}

describe("heartbeats of many sessions", () => {
  it("do not tick together, though all began in the same moment", async () => {
    const bench = new SessionBench();
    const route = routeOf("heartbeat: { client: { interval: 25s }, upstream: { interval: 0s } }\n");
    const clients = Array.from({ length: 1_000 }, () => bench.open(route).client);
    const byTick: number[] = [];
    let before = 0;
    for (let ms = 0; ms < 25_100; ms += 50) {
      await pass(50);
      const sum = clients.reduce((total, client) => total + client.count(PING), 0);
      byTick.push(sum - before);
      before = sum;
    }
    expect(before).toBeGreaterThanOrEqual(1_000);
    // Evenly spread over half the interval that would be 4 a tick.
    expect(Math.max(...byTick)).toBeLessThan(25);
    expect(byTick.filter((pings) => pings > 0).length).toBeGreaterThan(200);
    // Nothing comes before half the interval.
    expect(byTick.slice(0, 245).every((pings) => pings === 0)).toBe(true);
    bench.wheel.stop();
  });
});

describe("a heartbeat", () => {
  const yaml =
    "heartbeat: { client: { interval: 10s, timeout: 5s }, upstream: { interval: 10s, timeout: 5s } }\n";

  it("observes the time from a ping to its pong and passes the pong on to nobody", async () => {
    const bench = new SessionBench(() => 0);
    const { client, upstream } = bench.open(routeOf(yaml));
    await pass(10_000 + PRECISION_MS);
    const ping = client.log.frames.find(({ opcode }) => opcode === PING);
    await pass(300);
    client.sends({ opcode: PONG, payload: ping?.payload ?? "", mask: MASK });
    expect(bench.observer.heartbeatRtt).toHaveBeenCalledTimes(1);
    const [side, seconds] = bench.observer.heartbeatRtt.mock.calls[0] ?? [];
    expect(side).toBe("client");
    expect(seconds).toBeGreaterThanOrEqual(0.3);
    expect(seconds).toBeLessThan(0.3 + (2 * PRECISION_MS) / 1000);
    expect(upstream.count(PONG)).toBe(0);
    bench.wheel.stop();
  });

  it("does not judge a client that is not read because the upstream is full", async () => {
    const bench = new SessionBench(() => 0);
    const { session, client, upstream } = bench.open(
      routeOf("heartbeat: { client: { interval: 1s, timeout: 1s }, upstream: { interval: 0s } }\n"),
    );
    upstream.stuck = true;
    flood(client, true);
    expect(client.paused).toBe(true);
    await pass(10_000);
    expect(session.state).toBe("open");
    upstream.drain();
    expect(client.paused).toBe(false);
    await pass(3_000);
    expect(session.state).toBe("closing");
    bench.wheel.stop();
  });

  it("does not judge a client that takes nothing when only the upstream's leg has drained", async () => {
    const bench = new SessionBench(() => 0);
    const { session, client, upstream } = bench.open(
      routeOf(
        "heartbeat: { client: { interval: 1s, timeout: 1s }, upstream: { interval: 0s } }\nlimits: { slowConsumerTimeout: 60s }\n",
      ),
    );
    client.stuck = true;
    upstream.stuck = true;
    flood(upstream, false);
    flood(client, true);
    await pass(2_000);
    upstream.drain();
    // Our ping waits behind what the client has not taken: it cannot be answered.
    await pass(10_000);
    expect(session.state).toBe("open");
    client.drain();
    await pass(3_000);
    expect(session.state).toBe("closing");
    bench.wheel.stop();
  });

  it("does not judge an upstream that is not read because the client is full", async () => {
    const bench = new SessionBench(() => 0);
    const { session, client, upstream } = bench.open(
      routeOf(
        "heartbeat: { client: { interval: 0s }, upstream: { interval: 1s, timeout: 1s } }\nlimits: { slowConsumerTimeout: 60s }\n",
      ),
    );
    client.stuck = true;
    flood(upstream, false);
    await pass(10_000);
    expect(session.state).toBe("open");
    client.drain();
    await pass(3_000);
    expect(session.state).toBe("closing");
    bench.wheel.stop();
  });

  it.each(["client", "upstream"] as const)(
    "forgets no sign of life of the %s that came before it was not read for a while",
    async (side) => {
      const bench = new SessionBench(() => 0);
      const beat = "{ interval: 10s, timeout: 1s }";
      const other = side === "client" ? "upstream" : "client";
      const { session, client, upstream } = bench.open(
        routeOf(
          `heartbeat: { ${side}: ${beat}, ${other}: { interval: 0s } }\nlimits: { slowConsumerTimeout: 60s }\n`,
        ),
      );
      const [heard, full] = side === "client" ? [client, upstream] : [upstream, client];
      await pass(10_000 + PRECISION_MS);
      expect(heard.count(PING)).toBe(1);
      // What is life also fills the other side, and nothing is judged until that has drained.
      full.stuck = true;
      flood(heard, side === "client");
      await pass(UNPIN_CHECK_MS - PRECISION_MS);
      full.drain();
      await pass(4_000);
      expect(session.state).toBe("open");
      bench.wheel.stop();
    },
  );

  it("with payload text is never judged", async () => {
    const bench = new SessionBench(() => 0);
    const { session, client } = bench.open(
      routeOf(
        "heartbeat: { client: { interval: 1s, timeout: 100ms, payload: text, text: hi }, upstream: { interval: 0s } }\n",
      ),
    );
    await pass(60_000);
    expect(session.state).toBe("open");
    expect(client.count(TEXT)).toBeGreaterThan(50);
    bench.wheel.stop();
  });

  it("with payload text waits for the end of a fragmented message", async () => {
    const bench = new SessionBench(() => 0);
    const { client, upstream } = bench.open(
      routeOf(
        "heartbeat: { client: { interval: 1s, payload: text, text: hi }, upstream: { interval: 0s } }\n",
      ),
    );
    upstream.sends({ opcode: TEXT, fin: false, payload: "begun" });
    await pass(10_000);
    expect(client.log.frames).toHaveLength(1);
    upstream.sends({ opcode: 0, payload: " and ended" });
    await pass(2_000);
    expect(client.log.messages.slice(0, 2).map(String)).toEqual(["begun and ended", "hi"]);
    bench.wheel.stop();
  });
});

describe("limits.maxConnectionAge", () => {
  it("ends every session in the last tenth of it, spread, and never later", async () => {
    const bench = new SessionBench();
    const route = routeOf(`${NO_HEARTBEAT}limits: { maxConnectionAge: 1h }\n`);
    const all = Array.from({ length: 300 }, () => bench.open(route));
    await pass(54 * 60_000 - 1);
    expect(all.every(({ session }) => session.state === "open")).toBe(true);
    await pass(3 * 60_000);
    const half = all.filter(({ session }) => session.state !== "open").length;
    expect(half).toBeGreaterThan(90);
    expect(half).toBeLessThan(210);
    await pass(3 * 60_000 + PRECISION_MS);
    expect(all.every(({ client }) => client.log.closes[0]?.code === 1012)).toBe(true);
    bench.wheel.stop();
  });
});

describe("limits.idleTimeout", () => {
  it("counts from the last relayed frame, not from heartbeats", async () => {
    const bench = new SessionBench(() => 0);
    const route = routeOf(
      "heartbeat: { client: { interval: 5s }, upstream: { interval: 0s } }\nlimits: { idleTimeout: 60s }\n",
    );
    const { session, client, upstream } = bench.open(route);
    let answered = 0;
    const answer = (): void => {
      const pings = client.log.frames.filter(({ opcode }) => opcode === PING);
      for (const { payload } of pings.slice(answered)) {
        client.sends({ opcode: PONG, payload, mask: MASK });
      }
      answered = pings.length;
    };
    for (let s = 0; s < 40; s += 1) {
      await pass(1_000);
      answer();
    }
    upstream.sends({ opcode: PING, payload: "relayed" });
    // Its answer, a second later, is relayed as well.
    for (let s = 0; s < 60; s += 1) {
      await pass(1_000);
      answer();
    }
    expect(session.state).toBe("open");
    await pass(1_000 + PRECISION_MS);
    expect(client.log.closes).toEqual([{ code: 1001, reason: "idle for too long" }]);
    expect(answered).toBeGreaterThan(15);
    bench.wheel.stop();
  });
});

describe("limits.slowConsumerTimeout", () => {
  const yaml = `${NO_HEARTBEAT}limits: { slowConsumerTimeout: 30s }\n`;

  it("ends a session whose client takes nothing", async () => {
    const bench = new SessionBench();
    const { client, upstream } = bench.open(routeOf(yaml));
    client.stuck = true;
    flood(upstream, false);
    await pass(30_000 - 1);
    expect(upstream.count(CLOSE)).toBe(0);
    await pass(PRECISION_MS);
    expect(client.log.closes).toMatchObject([{ code: 1008 }]);
    expect(upstream.log.closes).toMatchObject([{ code: 1001 }]);
    expect(client.destroyed).toBe(false);
    await pass(5_000 + PRECISION_MS);
    expect(client.destroyed).toBe(true);
    bench.wheel.stop();
  });

  it("leaves a client alone that takes a little within that time, again and again", async () => {
    const bench = new SessionBench();
    const { session, client, upstream } = bench.open(routeOf(yaml));
    client.stuck = true;
    flood(upstream, false);
    for (let i = 0; i < 20; i += 1) {
      await pass(20_000);
      client.writableLength -= 1_000;
    }
    expect(session.state).toBe("open");
    expect(upstream.paused).toBe(true);
    bench.wheel.stop();
  });
});

describe("the end", () => {
  it("releases the slot once, hands in one record, and stops the wheel's timer", async () => {
    const bench = new SessionBench();
    const all = Array.from({ length: 10 }, () => bench.open(routeOf("")));
    expect(vi.getTimerCount()).toBe(1);
    for (const { client, upstream } of all) {
      client.sends({ opcode: CLOSE, payload: closePayload(1000), mask: MASK });
      upstream.sends({ opcode: CLOSE, payload: closePayload(1000) });
      upstream.emit("end");
      upstream.destroy();
      client.destroy();
    }
    await pass(0);
    expect(bench.records.map(({ cause }) => cause)).toEqual(all.map(() => "clientClosed"));
    expect(bench.slots.released).toBe(10);
    expect(bench.wheel.size).toBe(0);
    await pass(PRECISION_MS);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("destroys both sockets at close.timeout when neither peer answers", async () => {
    const bench = new SessionBench();
    const { session, client, upstream } = bench.open(routeOf(NO_HEARTBEAT));
    session.end("adminClosed");
    await pass(5_000 - 1);
    expect([client.destroyed, upstream.destroyed]).toEqual([false, false]);
    await pass(PRECISION_MS);
    expect([client.destroyed, upstream.destroyed]).toEqual([true, true]);
    expect(bench.records).toMatchObject([{ cause: "adminClosed" }]);
  });
});
