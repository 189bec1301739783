/** A backend's cap is exact: slots are taken before the dial and given back once, whatever happens. */
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { LightClient, LightUpstream, type LightUpstreamOptions } from "../support/light-peers.ts";
import { upgradeRequest } from "../support/raw-client.ts";

const upstreams: LightUpstream[] = [];
const gateways: TestGateway[] = [];

afterEach(async () => {
  await Promise.all(gateways.splice(0).map((gateway) => gateway.stopClean()));
  await Promise.all(upstreams.splice(0).map((started) => started.stop()));
});

async function upstream(options?: LightUpstreamOptions): Promise<LightUpstream> {
  const started = await LightUpstream.start(options);
  upstreams.push(started);
  return started;
}

async function gatewayOf(yaml: string): Promise<TestGateway> {
  const started = await startGateway(yaml);
  gateways.push(started);
  return started;
}

/** Routes and one pool; `backends` as YAML, with more keys of the pool. */
function pool(backends: readonly string[], more = "", top = ""): string {
  return `routes: [{ name: all, pool: main }]\npools: { main: { backends: [${backends.join(", ")}]${more} } }\n${top}`;
}

/** `count` clients, two hundred handshakes at a time: the kernel's queue is not what is tested. */
async function openMany(port: number, count: number): Promise<LightClient[]> {
  const clients: LightClient[] = [];
  const openOneByOne = async (): Promise<void> => {
    while (clients.length < count) {
      const client = new LightClient(port);
      clients.push(client);
      await client.outcome;
    }
  };
  await Promise.all(Array.from({ length: Math.min(200, count) }, openOneByOne));
  return clients;
}

async function countOutcomes(clients: readonly LightClient[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const outcome of await Promise.all(clients.map((client) => client.outcome))) {
    const key = typeof outcome === "string" ? outcome : String(outcome.code);
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
}

async function leaveAll(clients: readonly LightClient[]): Promise<void> {
  for (const client of clients) client.leave();
  await Promise.all(clients.map(({ ended }) => ended));
}

it("opens exactly 2,000 of 5,000 sessions through two backends of 1,000 and tells the others when to come back", async () => {
  const first = await upstream();
  const second = await upstream();
  const backends = [first, second].map(({ url }) => `{ url: "${url}", maxConnections: 1000 }`);
  const gateway = await GatewayProcess.start(
    pool(backends, "", "retryAfter: { min: 2s, max: 20s }\n"),
  );
  try {
    const clients = await openMany(gateway.port, 5_000);

    expect(await countOutcomes(clients)).toEqual({ open: 2_000, 1013: 3_000 });
    expect([first.peak, second.peak]).toEqual([1_000, 1_000]);
    expect([first.total, second.total]).toEqual([1_000, 1_000]);
    expect(await gateway.slots()).toEqual([1_000, 1_000]);
    const reasons = clients.flatMap(({ close }) => (close === null ? [] : [close.reason]));
    const waits = reasons.map((reason) => Number(/; retry-after=(\d+)$/.exec(reason)?.[1]));
    expect(Math.min(...waits)).toBe(2);
    // 3,000 at 100 a second need 30 s: `max` is what bounds them.
    expect(Math.max(...waits)).toBe(20);
    expect(new Set(waits).size).toBe(19);

    const open = clients.filter(({ close }) => close === null);
    await leaveAll(open);
    expect(open.every(({ close }) => close?.code === 1000)).toBe(true);
    await eventually(async () => expect(await gateway.slots()).toEqual([0, 0]));
    expect((await gateway.status()).sessions).toBe(0);
    expect([first.peak, second.peak]).toEqual([1_000, 1_000]);
    expect(clients.every(({ closeFrames }) => closeFrames === 1)).toBe(true);
  } finally {
    await gateway.stop();
  }
}, 60_000);

describe("a slot", () => {
  it("is free again for the next client as soon as the upstream's connection is gone", async () => {
    const backend = await upstream();
    const gateway = await gatewayOf(pool([`{ url: "${backend.url}", maxConnections: 1 }`]));
    for (let round = 0; round < 20; round += 1) {
      const client = new LightClient(gateway.port);
      expect(await client.outcome).toBe("open");
      const other = new LightClient(gateway.port);
      expect(await other.outcome).toMatchObject({ code: 1013 });
      await leaveAll([client]);
      await eventually(() => expect(gateway.slots).toBe(0));
    }
    expect(backend.peak).toBe(1);
  });

  it("is held by a handshake that the upstream has not answered", async () => {
    let answer: (() => void) | undefined;
    const backend = await upstream({
      onRequest: (accept) => {
        answer = accept;
      },
    });
    const gateway = await gatewayOf(pool([`{ url: "${backend.url}", maxConnections: 1 }`]));
    const dialling = new LightClient(gateway.port);
    await eventually(() => expect(answer).toBeDefined());
    expect(gateway.slots).toBe(1);
    expect(gateway.gateway.placesTaken).toBe(1);
    const refused = new LightClient(gateway.port);
    expect(await refused.outcome).toMatchObject({ code: 1013 });
    expect(backend.total).toBe(1);

    answer?.();
    expect(await dialling.outcome).toBe("open");
    expect(gateway.slots).toBe(1);
    await leaveAll([dialling]);
  });

  it("is not held while a handshake waits for its back-off", async () => {
    const backend = await upstream({ onRequest: (_accept, socket) => socket.resetAndDestroy() });
    const gateway = await gatewayOf(
      pool(
        [`{ url: "${backend.url}", maxConnections: 1 }`],
        "",
        "retry: { backoff: { jitter: 0 } }\n",
      ),
    );
    const client = new LightClient(gateway.port);
    await eventually(() => expect(backend.total).toBe(1));
    await eventually(() => expect(gateway.slots).toBe(0));
    expect(gateway.gateway.placesTaken).toBe(1);
    client.socket.destroy();
    await gateway.recorded();
    expect(gateway.records[0]).toMatchObject({ cause: "clientLost", refused: true, dials: 1 });
    expect(backend.total).toBe(1);
  });

  it("is given back when the client leaves while its upstream is dialled", async () => {
    const backend = await upstream({ onRequest: () => undefined });
    const gateway = await gatewayOf(pool([`{ url: "${backend.url}", maxConnections: 5 }`]));
    const clients = Array.from({ length: 5 }, () => new LightClient(gateway.port));
    await eventually(() => expect(backend.connections).toBe(5));
    expect(gateway.slots).toBe(5);
    clients[0]?.socket.destroy();
    clients[1]?.socket.resetAndDestroy();
    clients[2]?.socket.end();
    await eventually(() => expect(gateway.slots).toBe(2));
    await eventually(() => expect(backend.connections).toBe(2));
    for (const { socket } of clients) socket.destroy();
    expect((await gateway.recorded(5)).map(({ cause }) => cause)).toEqual(
      Array.from({ length: 5 }, () => "clientLost"),
    );
  });

  it("goes over from a backend that failed to the next one", async () => {
    const broken = await upstream({ onRequest: (_accept, socket) => socket.destroy() });
    const sound = await upstream();
    const gateway = await gatewayOf(onePool([broken.url, sound.url]));
    const clients = await openMany(gateway.port, 20);
    expect(await countOutcomes(clients)).toEqual({ open: 20 });
    expect(sound.connections).toBe(20);
    expect(gateway.slots).toBe(20);
    await leaveAll(clients);
  });

  it("stays exact under racing dial failures, departures and resets", async () => {
    const cap = 10;
    let turn = 0;
    const fickle = (): LightUpstreamOptions => ({
      onRequest: (accept, socket) => {
        turn += 1;
        if (turn % 7 === 1) socket.resetAndDestroy();
        else if (turn % 7 === 2) socket.end();
        else if (turn % 7 === 3) socket.end("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
        else if (turn % 7 === 4) socket.end("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        // The rest of this turn: so that some clients have left before their answer comes.
        else setImmediate(accept);
      },
    });
    const backends = [await upstream(fickle()), await upstream(fickle())];
    const urls = backends.map(({ url }) => `{ url: "${url}", maxConnections: ${cap} }`);
    const gateway = await gatewayOf(
      pool(urls, "", "retry: { backoff: { initial: 5ms, max: 20ms } }\n"),
    );
    const clients: LightClient[] = [];
    for (let wave = 0; wave < 20; wave += 1) {
      const some = Array.from({ length: 30 }, () => new LightClient(gateway.port));
      clients.push(...some);
      some[0]?.socket.destroy();
      some[1]?.socket.once("connect", () => some[1]?.socket.resetAndDestroy());
      some[2]?.socket.once("connect", () => setImmediate(() => some[2]?.socket.destroy()));
      await Promise.all(some.map(({ outcome }) => outcome));
      expect(gateway.slots).toBeLessThanOrEqual(2 * cap);
      for (const [index, client] of some.entries()) {
        if ((await client.outcome) !== "open") continue;
        if (index % 3 === 0) client.leave();
        else if (index % 3 === 1) client.socket.resetAndDestroy();
        else client.socket.end();
      }
    }
    for (const { socket } of clients) socket.destroy();
    await eventually(() => expect(gateway.slots).toBe(0));
    for (const backend of backends) expect(backend.peak).toBeLessThanOrEqual(cap);
    const outcomes = await countOutcomes(clients);
    expect(outcomes["open"]).toBeGreaterThan(0);
    expect(outcomes["1013"]).toBeGreaterThan(0);
  });
});

describe("balancing", () => {
  it("gives each backend its share by weight with leastConnections", async () => {
    const backends = [await upstream(), await upstream(), await upstream()];
    const weights = [1, 2, 3];
    const gateway = await gatewayOf(
      pool(
        backends.map(({ url }, i) => `{ url: "${url}", weight: ${weights[i]} }`),
        ", balance: leastConnections",
      ),
    );
    const clients = await openMany(gateway.port, 60);
    expect(backends.map(({ connections }) => connections)).toEqual([10, 20, 30]);
    // The share holds after departures, too: the next ones fill the gap.
    const leaving = clients.slice(0, 30);
    await leaveAll(leaving);
    await eventually(() => expect(gateway.slots).toBe(30));
    const more = await openMany(gateway.port, 30);
    expect(backends.map(({ connections }) => connections)).toEqual([10, 20, 30]);
    await leaveAll([...clients.slice(30), ...more]);
  });

  it("takes turns by weight with roundRobin, whatever is connected", async () => {
    const backends = [await upstream(), await upstream(), await upstream()];
    const weights = [1, 2, 3];
    const gateway = await gatewayOf(
      pool(
        backends.map(({ url }, i) => `{ url: "${url}", weight: ${weights[i]} }`),
        ", balance: roundRobin",
      ),
    );
    for (let round = 0; round < 12; round += 1) {
      const client = new LightClient(gateway.port);
      expect(await client.outcome).toBe("open");
      await leaveAll([client]);
    }
    expect(backends.map(({ total }) => total)).toEqual([2, 4, 6]);
  });

  it("fills the backends that have room when others are at their caps", async () => {
    const small = await upstream();
    const large = await upstream();
    for (const balance of ["leastConnections", "roundRobin"]) {
      const gateway = await gatewayOf(
        pool(
          [
            `{ url: "${small.url}", maxConnections: 3, weight: 9 }`,
            `{ url: "${large.url}", maxConnections: 17 }`,
          ],
          `, balance: ${balance}`,
        ),
      );
      const clients = await openMany(gateway.port, 25);
      expect(await countOutcomes(clients)).toEqual({ open: 20, 1013: 5 });
      expect([small.connections, large.connections]).toEqual([3, 17]);
      await leaveAll(clients.filter(({ close }) => close === null));
      await eventually(() => expect(small.connections + large.connections).toBe(0));
    }
  });
});

describe("caps beside those of backends", () => {
  it("turns away what is above limits.maxConnectionsPerClient, address by address", async () => {
    const backend = await upstream();
    const gateway = await gatewayOf(
      onePool([backend.url], "limits: { maxConnectionsPerClient: 2 }\n"),
    );
    const clients = await openMany(gateway.port, 4);
    expect(await countOutcomes(clients)).toEqual({ open: 2, 1013: 2 });
    expect(backend.total).toBe(2);
    const elsewhere = connect({ host: "127.0.0.1", port: gateway.port, localAddress: "127.0.0.2" });
    elsewhere.write(upgradeRequest({}));
    await eventually(() => expect(backend.total).toBe(3));
    elsewhere.destroy();
    await leaveAll(clients.filter(({ close }) => close === null));
    await eventually(() => expect(gateway.gateway.placesTaken).toBe(0));
    const again = new LightClient(gateway.port);
    expect(await again.outcome).toBe("open");
    await leaveAll([again]);
  });

  it("turns away what is above the caps of the listener and of the route", async () => {
    const backend = await upstream();
    const gateway = await gatewayOf(
      `listeners: [{ name: test, bind: "127.0.0.1:0", maxConnections: 3 }]
routes:
  - { name: small, pool: main, match: { path: /small }, limits: { maxConnections: 1 } }
  - { name: rest, pool: main }
pools: { main: { backends: [{ url: "${backend.url}" }] } }
`,
    );
    const outcomes: unknown[] = [];
    const clients: LightClient[] = [];
    for (const path of ["/small", "/small", "/", "/", "/"]) {
      const client = new LightClient(gateway.port, { path });
      clients.push(client);
      const outcome = await client.outcome;
      outcomes.push(typeof outcome === "string" ? outcome : outcome.code);
    }
    expect(outcomes).toEqual(["open", 1013, "open", "open", 1013]);
    expect(backend.total).toBe(3);
    await leaveAll(clients.filter(({ close }) => close === null));
    expect((await gateway.recorded(5)).map(({ cause }) => cause).toSorted()).toEqual([
      "capacity",
      "capacity",
      "clientClosed",
      "clientClosed",
      "clientClosed",
    ]);
  });
});
