/** Active probes in a whole gateway: who is down gets nobody new, and what becomes of who is there. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { ask } from "../support/http-backend.ts";
import { titled } from "../support/outcome.ts";
import { greets, PoolSetting, poolYaml, servedBy } from "../support/pool-setting.ts";
import { answersPing } from "../support/probed-backends.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

const PROBE = "/healthz";
const PACE = "interval: 150ms, timeout: 150ms, rise: 2, fall: 3";
const HTTP = `health: { type: http, path: ${PROBE}, ${PACE} }`;

let setting: PoolSetting;
/** Ports of those that fail their probes. */
let ill: Set<number>;

beforeEach(() => {
  setting = new PoolSetting();
  ill = new Set();
});

afterEach(async () => {
  await setting.stop();
});

function isProbe(peer: UpstreamPeer): boolean {
  return peer.head.includes(PROBE);
}

/** Serves sessions and plain requests; its probe, of type http or websocket, answers as it feels. */
const probed: Behaviour = (peer) => {
  const port = peer.socket.localPort ?? 0;
  if (peer.header("upgrade") === null) {
    const isBad = isProbe(peer) && ill.has(port);
    const body = String(port);
    const head = `HTTP/1.1 ${isBad ? 500 : 200} X\r\nContent-Length: ${body.length}\r\n`;
    peer.write(`${head}Connection: close\r\n\r\n${body}`);
    peer.end();
  } else if (!isProbe(peer)) {
    greets(peer);
  } else if (!ill.has(port)) {
    answersPing(peer);
    peer.answersClose();
  }
};

async function start(pool: string, more = "", count = 2): Promise<RawUpstream[]> {
  const upstreams = await setting.backends(count, probed);
  await setting.start(yaml(upstreams, pool, more));
  return upstreams;
}

function yaml(upstreams: readonly RawUpstream[], pool: string, more = ""): string {
  return poolYaml({ urls: upstreams.map(({ url }) => url), pool, more });
}

function pair(upstreams: readonly RawUpstream[]): [RawUpstream, RawUpstream] {
  const [first, second] = upstreams;
  if (first === undefined || second === undefined) throw new Error("no upstreams");
  return [first, second];
}

function sessions({ peers }: RawUpstream): number {
  return peers.filter((peer) => peer.head.includes("Sec-WebSocket-Key") && !isProbe(peer)).length;
}

async function goesDown({ url, port }: RawUpstream): Promise<void> {
  ill.add(port);
  await isSeen(url, false);
}

async function comesUp({ url, port }: RawUpstream): Promise<void> {
  ill.delete(port);
  await isSeen(url, true);
}

async function isSeen(url: string, up: boolean): Promise<void> {
  await eventually(() => expect(setting.status(url).up).toBe(up));
}

async function wasProbed({ url }: RawUpstream): Promise<void> {
  await eventually(() => expect(setting.status(url).probe).not.toBe(""));
}

async function openMany(count: number): Promise<PoliteRawClient[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => setting.open()));
  await Promise.all(clients.map(servedBy));
  return clients;
}

async function leave(clients: readonly PoliteRawClient[]): Promise<void> {
  for (const client of clients) client.sendClose(1000);
  const endings = await Promise.all(clients.map((client) => client.ended()));
  expect(endings.map(({ told }) => told.code)).toEqual(clients.map(() => 1000));
}

describe("a backend that fails its probes", () => {
  it.each(
    titled([
      { title: "http", health: HTTP, detail: "answered 500" },
      {
        title: "websocket",
        health: `health: { type: websocket, path: ${PROBE}, ${PACE} }`,
        detail: "no answer to the handshake within 150 ms",
      },
    ]),
  )(
    "of type %s gets no new sessions and keeps its running ones, until it is well",
    async (_, row) => {
      const [first, second] = pair(await start(row.health));
      const before = await openMany(6);
      await goesDown(first);
      const labels = `{pool="main",backend="${first.url}"}`;
      expect(await setting.gateway.metric(`softclose_backend_up${labels}`)).toBe(0);
      expect(setting.status(first.url)).toMatchObject({
        up: false,
        probe: row.detail,
        ejected: false,
      });
      expect(setting.status(second.url)).toMatchObject({ up: true });
      const bad = `softclose_probes_total{pool="main",backend="${first.url}",outcome="bad"}`;
      expect(await setting.gateway.metric(bad)).toBeGreaterThanOrEqual(3);

      const during = await openMany(6);
      expect(new Set(await Promise.all(during.map(servedBy)))).toEqual(new Set([second.port]));
      for (const client of before) client.sendText("still here");
      const peers = [first, second].flatMap((upstream) => upstream.peers);
      await eventually(() => {
        const heard = peers.filter(({ log }) => log.messages.map(String).includes("still here"));
        expect(heard).toHaveLength(before.length);
      });
      expect(sessions(first)).toBe(3);
      expect(before.flatMap(({ log }) => log.closes)).toEqual([]);

      await comesUp(first);
      expect(await setting.gateway.metric(`softclose_backend_up${labels}`)).toBe(1);
      const after = await openMany(6);
      expect(await Promise.all(after.map(servedBy))).toContain(first.port);
      await leave([...before, ...during, ...after]);
      const log = setting.gateway.lines.map(({ msg }) => msg);
      expect(log.filter((msg) => msg === "backend is down")).toHaveLength(1);
      expect(log.filter((msg) => msg === "backend is up")).toHaveLength(1);
    },
  );

  it("of type tcp is one that takes no connections", async () => {
    const [first, second] = pair(await start(`health: { type: tcp, ${PACE} }`));
    await wasProbed(first);
    const { port } = first;
    const running = await openMany(2);
    await first.stop();
    await isSeen(first.url, false);
    const clients = await openMany(4);
    expect(new Set(await Promise.all(clients.map(servedBy)))).toEqual(new Set([second.port]));
    expect(sessions(first)).toBe(1);
    const again = await RawUpstream.start(probed, () => undefined, { port });
    setting.upstreams.push(again);
    await isSeen(first.url, true);
    const after = await openMany(4);
    expect(await Promise.all(after.map(servedBy))).toContain(port);
    for (const client of [...clients, ...after, ...running]) {
      if (client.raw.ending === null) client.sendClose(1000);
    }
    await setting.gateway.recorded(10);
  });

  it("is avoided by plain requests", async () => {
    const [first, second] = pair(await start(HTTP));
    await goesDown(first);
    const answers = await Promise.all(
      Array.from({ length: 8 }, () => ask(setting.gateway.port, { path: "/page" })),
    );
    expect(new Set(answers.map(({ body }) => body))).toEqual(new Set([String(second.port)]));
    await goesDown(second);
    const { status, headers } = await ask(setting.gateway.port, { path: "/page" });
    expect([status, headers["retry-after"]]).toEqual([503, "1"]);
  });

  it("and whose pool has no other is refused for: noBackend, 1013", async () => {
    const upstreams = await start(HTTP);
    const running = await openMany(2);
    for (const upstream of upstreams) await goesDown(upstream);
    const { told } = await setting.knock().ended();
    expect(told.code).toBe(1013);
    expect(told.reason).toMatch(/; retry-after=\d+$/);
    const [refused] = await setting.gateway.recorded();
    expect(refused).toMatchObject({ cause: "noBackend", refused: true, dials: 0 });
    await comesUp(pair(upstreams)[1]);
    const client = await setting.open();
    expect(await servedBy(client)).toBe(upstreams[1]?.port);
    await leave([...running, client]);
  });

  it("serves those who wait in the queue as soon as it is back", async () => {
    const upstreams = await setting.backends(2, probed);
    const [first, second] = pair(upstreams);
    await setting.start(
      poolYaml({
        urls: upstreams.map(({ url }) => url),
        perBackend: "maxConnections: 1",
        pool: `${HTTP}, queue: { size: 10, timeout: 1h }`,
      }),
    );
    await goesDown(first);
    const running = await setting.open();
    const waiting = await setting.inLine();
    await comesUp(first);
    await waiting.opened();
    expect(await servedBy(waiting)).toBe(first.port);
    expect(await servedBy(running)).toBe(second.port);
    await leave([running, waiting]);
  });
});

describe("closeSessions: true", () => {
  const CLOSING = `health: { type: http, path: ${PROBE}, ${PACE}, closeSessions: true }`;

  it("tells the sessions of the backend 1012, paced, and no others", async () => {
    const [first, second] = pair(await start(CLOSING, "drain: { timeout: 300ms }\n"));
    const clients = await openMany(12);
    await goesDown(first);
    const records = await setting.gateway.recorded(6);
    for (const record of records) {
      expect(record).toMatchObject({
        cause: "backendDraining",
        backend: first.url,
        client: { sent: 1012 },
        upstream: { sent: 1001 },
      });
    }
    const ends = records.map(({ startedAt, durationMs }) => startedAt + durationMs);
    expect(Math.max(...ends) - Math.min(...ends)).toBeGreaterThan(100);
    expect(sessions(second)).toBe(6);
    await leave(clients.filter(({ log }) => log.closes.length === 0));
    await setting.gateway.recorded(12);
  });

  it("begins anew when the backend has been up meanwhile", async () => {
    const [first, second] = pair(await start(CLOSING, "drain: { timeout: 1h }\n"));
    const clients = await openMany(12);
    await goesDown(first);
    await setting.gateway.recorded(1);
    await comesUp(first);
    await goesDown(first);
    // Were the first leaving still going on, the next would be told after 10 minutes.
    await setting.gateway.recorded(2);
    expect(sessions(second)).toBe(6);
    await leave(clients.filter(({ log }) => log.closes.length === 0));
  });

  it("moves them with session retry, unseen", async () => {
    const retry = "retry: { session: { enabled: true } }\ndrain: { timeout: 200ms }\n";
    const [first, second] = pair(await start(CLOSING, retry));
    const clients = await openMany(12);
    await goesDown(first);
    await eventually(() => expect(setting.status(second.url).connections).toBe(12));
    await eventually(() => expect(setting.status(first.url).connections).toBe(0));
    expect(clients.flatMap(({ log }) => log.closes)).toEqual([]);
    await leave(clients);
    expect(
      await setting.gateway.metric('softclose_resumes_total{route="all",outcome="moved"}'),
    ).toBe(6);
  });

  it("spares those whose turn had not come when the backend is back", async () => {
    const [first] = pair(await start(CLOSING, "drain: { timeout: 1h }\n"));
    const clients = await openMany(12);
    await goesDown(first);
    // The first is due at once, the second after ten minutes.
    await setting.gateway.recorded(1);
    await comesUp(first);
    const after = await openMany(2);
    await leave([...clients, ...after].filter(({ log }) => log.closes.length === 0));
    const causes = setting.gateway.records.map(({ cause }) => cause);
    expect(causes.filter((cause) => cause === "backendDraining")).toHaveLength(1);
  });
});

describe("a reload", () => {
  it("that changes nothing of the probes keeps the verdicts", async () => {
    const upstreams = await start(HTTP);
    const [first] = pair(upstreams);
    await goesDown(first);
    await setting.gateway.reload(yaml(upstreams, HTTP, "refuse: http\n"));
    expect(setting.status(first.url).up).toBe(false);
  });

  it("that changes how it is probed brings no dead backend to life", async () => {
    const upstreams = await start(HTTP);
    const [first, second] = pair(upstreams);
    await goesDown(first);
    const slow = `health: { type: http, path: ${PROBE}, interval: 100ms, timeout: 100ms, rise: 1, fall: 2 }`;
    await setting.gateway.reload(yaml(upstreams, slow));
    expect([first, second].map(({ url }) => setting.status(url).up)).toEqual([false, true]);
    await comesUp(first);
  });

  it("that takes the probes away puts every backend into service, for who waits, too", async () => {
    const upstreams = await setting.backends(2, probed);
    const [first] = pair(upstreams);
    const keys = {
      urls: upstreams.map(({ url }) => url),
      perBackend: "maxConnections: 1",
    };
    const queue = "queue: { size: 10, timeout: 1h }";
    await setting.start(poolYaml({ ...keys, pool: `${HTTP}, ${queue}` }));
    await goesDown(first);
    const running = await setting.open();
    const waiting = await setting.inLine();
    await setting.gateway.reload(poolYaml({ ...keys, pool: queue }));
    await waiting.opened();
    expect(await servedBy(waiting)).toBe(first.port);
    expect(setting.status(first.url)).toMatchObject({ up: true, probe: null });
    const probes = upstreams.map(({ peers }) => peers.filter(isProbe).length);
    // Silence is what is shown: several intervals without a probe.
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(upstreams.map(({ peers }) => peers.filter(isProbe).length)).toEqual(probes);
    await leave([running, waiting]);
  });

  it("that adds probes finds out who is down", async () => {
    const upstreams = await start("");
    const [first, second] = pair(upstreams);
    ill.add(first.port);
    expect(setting.status(first.url)).toMatchObject({ up: true, probe: null });
    await setting.gateway.reload(yaml(upstreams, HTTP));
    await isSeen(first.url, false);
    expect(setting.status(second.url).up).toBe(true);
  });

  it("that brings a backend back finds it as it is, not as it was when it went", async () => {
    const upstreams = await start(HTTP, "drain: { timeout: 1h }\n");
    const [first, second] = pair(upstreams);
    const clients = await openMany(4);
    await goesDown(first);
    await setting.gateway.reload(yaml([second], HTTP, "drain: { timeout: 1h }\n"));
    ill.delete(first.port);
    // One of its two sessions was told at once; the other one keeps the backend.
    await setting.gateway.recorded(1);
    await setting.gateway.reload(yaml(upstreams, HTTP, "drain: { timeout: 1h }\n"));
    expect(setting.status(first.url).connections).toBe(1);
    await isSeen(first.url, true);
    const after = await openMany(4);
    expect(await Promise.all(after.map(servedBy))).toContain(first.port);
    await leave([...clients, ...after].filter(({ log }) => log.closes.length === 0));
  });
});

it("ends with the gateway: no probe afterwards, and none that was under way goes on", async () => {
  const silent = await setting.backends(2, (peer) => {
    if (!isProbe(peer)) greets(peer);
  });
  const health = `health: { type: http, path: ${PROBE}, interval: 10s, timeout: 10s }`;
  await setting.start(yaml(silent, health));
  await Promise.all(silent.map((upstream) => upstream.peer()));
  await setting.gateway.gateway.stop();
  for (const { peers } of silent) await Promise.all(peers.map((peer) => peer.ended()));
  expect(silent.map(({ peers }) => peers.length)).toEqual([1, 1]);
});
