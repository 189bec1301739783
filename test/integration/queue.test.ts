/** A pool that is full has a line: clients wait in their order, are served, or are told when to come back. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MAX_EARLY_BYTES } from "../../src/edge/early-bytes.ts";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { buildFrame } from "../support/frames.ts";
import { readSeries } from "../support/outcome.ts";
import { livePeers, PoolSetting, poolYaml, servedBy } from "../support/pool-setting.ts";
import { RawClient } from "../support/raw-client.ts";
import type { RawUpstream } from "../support/raw-upstream.ts";

/** Nobody's wait ends by itself while a test runs. */
const PATIENT = "queue: { size: 100, timeout: 1h }";
const MASK = Buffer.from([1, 2, 3, 4]);

let setting: PoolSetting;

beforeEach(() => {
  setting = new PoolSetting();
});

afterEach(async () => {
  await setting.stop();
});

function yaml(
  upstreams: readonly RawUpstream[],
  { cap = 1, queue = PATIENT, more = "" }: { cap?: number; queue?: string; more?: string } = {},
): string {
  const urls = upstreams.map(({ url }) => url);
  return poolYaml({ urls, perBackend: `maxConnections: ${cap}`, pool: queue, more });
}

async function start(
  count = 1,
  options: { cap?: number; queue?: string; more?: string } = {},
): Promise<RawUpstream[]> {
  const upstreams = await setting.backends(count);
  await setting.start(yaml(upstreams, options));
  return upstreams;
}

function leave(...clients: readonly PoliteRawClient[]): void {
  for (const client of clients) client.sendClose(1000);
}

/** Whether the client has been answered. */
function isIn(client: PoliteRawClient): boolean {
  return client.raw.head !== null;
}

/** How often waits have ended so, by the pool's histogram. */
async function waits(outcome: string): Promise<number> {
  return (
    (await readSeries(setting.gateway))("softclose_queue_wait_seconds_count")[
      `pool="main",outcome="${outcome}"`
    ] ?? 0
  );
}

describe("clients that wait for a full pool", () => {
  it("are served in the order in which they came, each by a slot that has become free", async () => {
    const [upstream] = await start();
    const first = await setting.open();
    const line: PoliteRawClient[] = [];
    for (let i = 0; i < 5; i += 1) line.push(await setting.inLine());
    expect(await setting.gateway.metric('softclose_queue_length{pool="main"}')).toBe(5);
    expect(upstream?.peers).toHaveLength(1);

    let served = first;
    for (const [index, next] of line.entries()) {
      leave(served);
      await next.opened();
      expect(line.map(isIn)).toEqual(line.map((_, other) => other <= index));
      expect(setting.queueLength).toBe(line.length - index - 1);
      expect(setting.gateway.slots).toBe(1);
      served = next;
    }
    leave(served);
    const records = await setting.gateway.recorded(6);
    expect(records.map(({ cause, refused }) => [cause, refused])).toEqual(
      records.map(() => ["clientClosed", false]),
    );
    expect(await waits("served")).toBe(5);
    const sum = (await readSeries(setting.gateway))("softclose_queue_wait_seconds_sum");
    expect(sum['pool="main",outcome="served"']).toBeGreaterThan(0);
    expect(await setting.gateway.metric('softclose_queue_length{pool="main"}')).toBe(0);
  });

  it("are skipped when they have left, and leave nothing behind", async () => {
    await start();
    const first = await setting.open();
    const line: PoliteRawClient[] = [];
    for (let i = 0; i < 5; i += 1) line.push(await setting.inLine());
    const [reset, ended, second, cut, last] = line;
    reset?.raw.reset();
    ended?.raw.socket.end();
    cut?.raw.reset();
    await eventually(() => expect(setting.queueLength).toBe(2));
    const gone = await setting.gateway.recorded(3);
    expect(gone).toMatchObject(
      gone.map(() => ({ cause: "clientLost", refused: true, backend: null, dials: 0 })),
    );
    leave(first);
    await second?.opened();
    expect(setting.queueLength).toBe(1);
    if (second !== undefined) leave(second);
    await last?.opened();
    if (last !== undefined) leave(last);
    await setting.gateway.recorded(6);
    expect([await waits("left"), await waits("served")]).toEqual([3, 2]);
  });

  it("are served before any newcomer, who goes behind them", async () => {
    const [upstream] = await start();
    const first = await setting.open();
    const head = await setting.inLine();
    // A crowd that knocks at the very moment at which the slot becomes free.
    const crowd: PoliteRawClient[] = [];
    leave(first);
    for (let i = 0; i < 20; i += 1) crowd.push(setting.knock());
    await head.opened();
    await eventually(() => expect(setting.queueLength).toBe(20));
    expect(crowd.filter(isIn)).toEqual([]);
    expect(upstream?.peers).toHaveLength(2);
    for (const client of crowd) client.raw.reset();
    leave(head);
    await setting.gateway.recorded(22);
  });

  it("hold no slot, and are dialled once, whoever turns them away", async () => {
    const [upstream] = await start(1, { cap: 2, queue: "queue: { size: 3, timeout: 1h }" });
    const open = [await setting.open(), await setting.open()];
    const line = [await setting.inLine(), await setting.inLine(), await setting.inLine()];
    expect(setting.gateway.slots).toBe(2);
    const beyond = setting.knock();
    const { told } = await beyond.ended();
    expect(told.code).toBe(1013);
    expect(told.reason).toMatch(/; retry-after=\d+$/);
    leave(...open);
    await Promise.all(line.slice(0, 2).map((client) => client.opened()));
    expect(setting.queueLength).toBe(1);
    leave(...line.slice(0, 2));
    await line[2]?.opened();
    leave(...line.slice(2));
    await setting.gateway.recorded(6);
    expect(upstream?.peers).toHaveLength(5);
  });

  it("get the slot of whichever backend is free first", async () => {
    await start(2);
    const first = await setting.open();
    const second = await setting.open();
    const head = await setting.inLine();
    const last = await setting.inLine();
    leave(second);
    await head.opened();
    expect(await servedBy(head)).toBe(await servedBy(second));
    leave(first);
    await last.opened();
    expect(await servedBy(last)).toBe(await servedBy(first));
    leave(head, last);
    await setting.gateway.recorded(4);
  });

  it("get the slots of a backend that is put back into service", async () => {
    const [one, two] = await start(2);
    if (one === undefined || two === undefined) throw new Error("no upstreams");
    setting.gateway.gateway.drainBackend(one.url);
    const first = await setting.open();
    const waiting = await setting.inLine();
    setting.gateway.gateway.undrainBackend(one.url);
    await waiting.opened();
    expect([await servedBy(first), await servedBy(waiting)]).toEqual([two.port, one.port]);
    leave(first, waiting);
    await setting.gateway.recorded(2);
  });

  it("are told 1013 and when to come back after queue.timeout", async () => {
    await start(1, { queue: "queue: { size: 10, timeout: 200ms }" });
    const first = await setting.open();
    const waiting = [await setting.inLine(), await setting.inLine()];
    for (const client of waiting) {
      const { told, closes } = await client.ended();
      expect(told.code).toBe(1013);
      expect(told.reason).toMatch(/; retry-after=\d+$/);
      expect(closes).toHaveLength(1);
    }
    const records = await setting.gateway.recorded(2);
    for (const record of records) {
      expect(record).toMatchObject({ cause: "capacity", refused: true, dials: 0 });
      expect(record.detail).toContain("queue.timeout");
      expect(record.durationMs).toBeGreaterThanOrEqual(195);
    }
    expect(setting.queueLength).toBe(0);
    expect(await waits("timeout")).toBe(2);
    const refusals = 'softclose_refusals_total{route="all",cause="capacity"}';
    expect(await setting.gateway.metric(refusals)).toBe(2);
    leave(first);
  });

  it("are answered 503 with Retry-After where refusals are by HTTP", async () => {
    await start(1, { queue: "queue: { size: 10, timeout: 100ms }", more: "refuse: http\n" });
    const first = await setting.open();
    const waiting = new RawClient(setting.gateway.port);
    expect(await waiting.answered()).toBe(503);
    expect(waiting.header("retry-after")).toMatch(/^\d+$/);
    expect(waiting.header("connection")).toBe("close");
    expect(await waiting.ended()).toBe("fin");
    leave(first);
  });

  it("are dialled in vain by a backend that is gone, and the next in line has its turn", async () => {
    const [upstream] = await start(1, { more: "retry: { connect: { attempts: 1 } }\n" });
    const first = await setting.open();
    const line = [await setting.inLine(), await setting.inLine()];
    // From now on nobody gets a 101.
    const peer = await upstream?.peer();
    await upstream?.stop();
    await first.ended();
    for (const client of line) expect((await client.ended()).told.code).toBe(1013);
    const records = await setting.gateway.recorded(3);
    expect(records.map(({ cause }) => cause)).toEqual([
      "upstreamLost",
      "upstreamUnreachable",
      "upstreamUnreachable",
    ]);
    expect(peer?.ending).not.toBeNull();
    expect(setting.queueLength).toBe(0);
  });
});

describe("what a client sends while it waits", () => {
  it("is delivered, in order and before anything later", async () => {
    const [upstream] = await start();
    const first = await setting.open();
    const early = Buffer.concat(
      ["one", "two"].map((payload) => buildFrame({ opcode: 1, mask: MASK, payload })),
    );
    const waiting = await setting.inLine({ early });
    waiting.sendText("three");
    leave(first);
    await waiting.opened();
    waiting.sendText("four");
    const messages = await (await upstream?.peer(1))?.log.received(4);
    expect(messages?.map(String)).toEqual(["one", "two", "three", "four"]);
    leave(waiting);
    await setting.gateway.recorded(2);
  });

  it("is not read beyond a bound, and nothing of it is lost", async () => {
    const [upstream] = await start();
    const first = await setting.open();
    const waiting = await setting.inLine();
    const payload = Buffer.alloc(16 * 1024, "x");
    const COUNT = 1_024;
    const frame = buildFrame({ opcode: 2, mask: MASK, payload });
    let flushed = 0;
    for (let i = 0; i < COUNT; i += 1) waiting.raw.socket.write(frame, () => (flushed += 1));
    // The kernel's buffers of both ends take some megabytes; then nothing moves any more.
    let before = -1;
    await eventually(async () => {
      const now = flushed;
      await new Promise((resolve) => setTimeout(resolve, 100));
      const settled = now === before && now > 0;
      before = now;
      expect(settled).toBe(true);
    });
    expect(flushed * frame.length).toBeGreaterThan(MAX_EARLY_BYTES);
    expect(flushed).toBeLessThan(COUNT);
    leave(first);
    await waiting.opened();
    const messages = await (await upstream?.peer(1))?.log.received(COUNT);
    expect(messages?.every(({ length }) => length === payload.length)).toBe(true);
    leave(waiting);
    await setting.gateway.recorded(2);
  });
});

describe("a drain while clients wait", () => {
  it("tells them at once, with 1012 and when to come back, and hands no slot to them", async () => {
    const [upstream] = await start(1, { more: "drain: { timeout: 300ms }\n" });
    const first = await setting.open();
    const line = [await setting.inLine(), await setting.inLine(), await setting.inLine()];
    const drained = setting.gateway.gateway.drain();
    for (const client of line) {
      const { told } = await client.ended();
      expect(told.code).toBe(1012);
      expect(told.reason).toMatch(/shutting down; retry-after=\d+$/);
    }
    expect((await first.ended()).told.code).toBe(1012);
    expect(await drained).toBe(0);
    const records = setting.gateway.records;
    expect(records.map(({ cause }) => cause)).toEqual(records.map(() => "draining"));
    expect(records.filter(({ refused }) => refused)).toHaveLength(3);
    expect(upstream?.peers).toHaveLength(1);
    expect(await waits("closed")).toBe(3);
  });

  it("serves them for as long as drain.delay lasts", async () => {
    await start(1, { more: "drain: { delay: 500ms, timeout: 100ms }\n" });
    const first = await setting.open();
    const [head, last] = [await setting.inLine(), await setting.inLine()];
    const drained = setting.gateway.gateway.drain();
    leave(first);
    await head.opened();
    expect((await last.ended()).told.code).toBe(1012);
    expect((await head.ended()).told.code).toBe(1012);
    expect(await drained).toBe(0);
    const causes = setting.gateway.records.map(({ cause, refused }) => [cause, refused]);
    expect(causes).toContainEqual(["draining", true]);
    expect(causes).toContainEqual(["draining", false]);
    expect(causes).toContainEqual(["clientClosed", false]);
  });

  it("by the end of the process without a drain leaves nobody waiting", async () => {
    await start();
    const first = await setting.open();
    const line = [await setting.inLine(), await setting.inLine()];
    await setting.gateway.gateway.stop();
    await Promise.all([first, ...line].map((client) => client.raw.ended()));
    expect(setting.queueLength).toBe(0);
  });

  it("by a bug of ours tells them, too, however many", async () => {
    // The one that has the slot has no session yet: nothing but the clients that wait holds the end up.
    const [mute] = await setting.backends(1, () => undefined);
    await setting.start(yaml(mute === undefined ? [] : [mute]));
    const clients = Array.from({ length: 61 }, () => setting.knock());
    await eventually(() => expect(setting.queueLength).toBe(60));
    // Unread data makes a reset of the end of a connection that is destroyed.
    const sending = setInterval(() => {
      for (const client of clients) if (client.raw.ending === null) client.sendText("early");
    }, 1);
    await eventually(() =>
      expect(clients.every(({ raw }) => raw.socket.bytesWritten > 500)).toBe(true),
    );
    await setting.gateway.gateway.abandon();
    clearInterval(sending);
    const told = await Promise.all(clients.map((client) => client.ended()));
    expect(told.map(({ told: { code } }) => code)).toEqual(told.map(() => 1012));
  });
});

it("tells those who wait that the gateway drains, even where no backend is in service", async () => {
  const [upstream] = await start(1, { more: "drain: { timeout: 200ms }\n" });
  await setting.open();
  const waiting = await setting.inLine();
  setting.gateway.gateway.drainBackend(upstream?.url ?? "");
  await setting.gateway.gateway.drain();
  expect((await waiting.ended()).told.code).toBe(1012);
  const causes = setting.gateway.records.map(({ cause }) => cause);
  expect(causes.toSorted()).toEqual(["backendDraining", "draining"]);
});

describe("a reload while clients wait", () => {
  it("that raises the cap serves the line, as far as it goes", async () => {
    const upstreams = await start();
    const first = await setting.open();
    const line: PoliteRawClient[] = [];
    for (let i = 0; i < 4; i += 1) line.push(await setting.inLine());
    expect(await setting.gateway.reload(yaml(upstreams, { cap: 3 }))).toMatchObject({
      outcome: "applied",
    });
    await Promise.all(line.slice(0, 2).map((client) => client.opened()));
    expect(line.map(isIn)).toEqual([true, true, false, false]);
    expect(setting.queueLength).toBe(2);
    expect(setting.gateway.slots).toBe(3);
    leave(first, ...line.slice(0, 2));
    await Promise.all(line.slice(2).map((client) => client.opened()));
    leave(...line.slice(2));
    await setting.gateway.recorded(5);
  });

  it("that adds a backend serves the line by it", async () => {
    const [upstream] = await start();
    if (upstream === undefined) throw new Error("no upstream");
    const first = await setting.open();
    const waiting = await setting.inLine();
    const [added] = await setting.backends(1);
    if (added === undefined) throw new Error("no upstream");
    await setting.gateway.reload(yaml([upstream, added]));
    await waiting.opened();
    expect(await servedBy(waiting)).toBe(added.port);
    leave(first, waiting);
    await setting.gateway.recorded(2);
  });

  it("that lowers the cap and the queue throws nobody out", async () => {
    const upstreams = await start(1, { cap: 2 });
    const [upstream] = upstreams;
    const open = [await setting.open(), await setting.open()];
    const line = [await setting.inLine(), await setting.inLine()];
    await setting.gateway.reload(yaml(upstreams, { cap: 1, queue: "queue: { size: 1 }" }));
    expect(setting.queueLength).toBe(2);
    expect((await setting.knock().ended()).told.code).toBe(1013);
    leave(...open.slice(0, 1));
    await eventually(() => expect(setting.gateway.slots).toBe(1));
    expect(line.map(isIn)).toEqual([false, false]);
    leave(...open.slice(1));
    await line[0]?.opened();
    expect(upstream === undefined ? 0 : livePeers(upstream).length).toBe(1);
    leave(...line.slice(0, 1));
    await line[1]?.opened();
    leave(...line.slice(1));
    await setting.gateway.recorded(5);
  });

  it("that takes the pool away lets them wait in the one that serves the route now", async () => {
    const [upstream] = await start();
    if (upstream === undefined) throw new Error("no upstream");
    const first = await setting.open();
    const waiting = await setting.inLine();
    const backend = `{ url: "${upstream.url}", maxConnections: 1 }`;
    await setting.gateway.reload(
      `routes: [{ name: all, pool: other }]\npools: { other: { backends: [${backend}], ${PATIENT} } }\n`,
    );
    await eventually(() => expect(setting.queueLength).toBe(1));
    leave(first);
    await waiting.opened();
    leave(waiting);
    const records = await setting.gateway.recorded(2);
    expect(records.map(({ cause }) => cause)).toEqual(["clientClosed", "clientClosed"]);
  });

  it("that takes the pool away and leaves no line tells them to come back", async () => {
    const [upstream] = await start();
    if (upstream === undefined) throw new Error("no upstream");
    const first = await setting.open();
    const waiting = await setting.inLine();
    const backend = `{ url: "${upstream.url}", maxConnections: 1 }`;
    await setting.gateway.reload(
      `routes: [{ name: all, pool: other }]\npools: { other: { backends: [${backend}] } }\n`,
    );
    const { told } = await waiting.ended();
    // Not that the gateway shuts down, which it does not.
    expect(told.code).toBe(1013);
    // The backend has only got another pool: nobody on it is touched.
    expect(first.raw.ending).toBeNull();
    expect(setting.gateway.slots).toBe(1);
    leave(first);
    await setting.gateway.recorded(2);
  });
});
