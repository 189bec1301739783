/** What a reload changes, what it leaves alone, and that it changes all or nothing. */
import { rmSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import type { ReloadReport } from "../../src/admin/gateway-view.ts";
import { freePort } from "../bench/free-port.ts";
import { PoliteRawClient } from "../support/clients.ts";
import { type ConfigFile, startReloadable } from "../support/config-file.ts";
import { eventually } from "../support/eventually.ts";
import { completeConfig, onePool, type TestGateway } from "../support/gateway.ts";
import { LightClient } from "../support/light-peers.ts";
import { RawClient } from "../support/raw-client.ts";
import { type Behaviour, RawUpstream } from "../support/raw-upstream.ts";

let gateway: TestGateway;
let file: ConfigFile;
const upstreams: RawUpstream[] = [];
const clients: RawClient[] = [];

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await gateway.gateway.stop();
  await Promise.all(upstreams.splice(0).map((started) => started.stop()));
  file.remove();
});

async function upstream(
  behaviour: Behaviour = (peer) => peer.answersClose().accept(),
): Promise<RawUpstream> {
  const started = await RawUpstream.start(behaviour);
  upstreams.push(started);
  return started;
}

async function start(yaml: string): Promise<void> {
  ({ gateway, file } = await startReloadable(yaml));
}

function reload(yaml: string): Promise<ReloadReport> {
  file.write(yaml);
  return gateway.gateway.reload();
}

async function open(path = "/", port = gateway.port): Promise<RawClient> {
  const client = new PoliteRawClient(port, path);
  clients.push(client.raw);
  await client.opened();
  return client.raw;
}

function portOf(listener: string): number {
  const { listeners } = gateway.gateway.status();
  return Number(listeners.find(({ name }) => name === listener)?.address.split(":")[1]);
}

/** Whether somebody listens there. */
async function accepts(port: number): Promise<boolean> {
  const { socket } = new RawClient(port);
  return await new Promise((resolve) => {
    socket.once("connect", () => resolve(true));
    socket.once("close", () => resolve(false));
  }).then((result) => {
    socket.destroy();
    return result === true;
  });
}

/** Holds a port, or has held one that is free now. */
async function takenPort(): Promise<{ port: number; server: Server }> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return { server, port: typeof address === "object" && address !== null ? address.port : 0 };
}

const listeners = (...entries: readonly string[]): string =>
  `listeners: [${entries.map((entry) => `{ ${entry} }`).join(", ")}]\n`;
const TEST = 'name: test, bind: "127.0.0.1:0"';
const DRAIN = "drain: { timeout: 100ms }\n";
const SECOND = 'name: second, bind: "127.0.0.1:0"';

/** Leaves the request without an answer. */
const hangs: Behaviour = () => undefined;

/** A pool of one backend, which is dialled for a moment only. */
const impatient = (url: string): string =>
  `routes: [{ name: all, pool: main }]\npools: { main: { connectTimeout: 300ms, backends: [{ url: "${url}" }] } }\n`;

describe("Listeners", () => {
  it("that are new are bound, and one that is gone leaves its sessions alone", async () => {
    const backend = await upstream();
    const rest = onePool([backend.url]);
    await start(listeners(TEST) + rest);
    const { port } = gateway;
    expect((await reload(listeners(TEST, SECOND) + rest)).outcome).toBe("applied");
    const second = portOf("second");
    expect(portOf("test")).toBe(port);
    const client = await open("/", second);
    expect((await reload(listeners(TEST) + rest)).outcome).toBe("applied");
    expect(gateway.gateway.status().listeners.map(({ name }) => name)).toEqual(["test"]);
    expect([await accepts(second), await accepts(port)]).toEqual([false, true]);
    (await backend.peer()).sendText("still here");
    await client.log.received(1);
    client.sendClose(1000);
    await gateway.recorded(1);
  });

  it("that are gone have their requests answered before a drain is over", async () => {
    const backend = await upstream(hangs);
    const rest = onePool([backend.url], "drain: { timeout: 8s }\n");
    await start(listeners(TEST, SECOND) + rest);
    const request = fetch(`http://127.0.0.1:${portOf("second")}/`);
    const peer = await backend.peer();
    await reload(listeners(TEST) + rest);
    const drained = gateway.gateway.drain();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    expect(await (await request).text()).toBe("hi");
    expect(await drained).toBe(0);
  });

  it("that are gone do not wait for ever for half a request", async () => {
    const backend = await upstream();
    const rest = onePool([backend.url], "limits: { handshakeTimeout: 300ms }\n");
    await start(listeners(TEST, SECOND) + rest);
    const half = new RawClient(portOf("second"), { request: "GET / HTTP/1.1\r\nHost: gate" });
    clients.push(half);
    await eventually(() => expect(half.socket.bytesWritten).toBeGreaterThan(0));
    const client = await open("/", portOf("second"));
    await reload(listeners(TEST) + rest);
    await half.ended();
    expect(client.ending).toBeNull();
  });

  it("keep their address and their count of connections under another name", async () => {
    const backend = await upstream();
    const rest = onePool([backend.url]);
    const port = await freePort();
    const bind = `bind: "127.0.0.1:${port}", maxConnections: 1`;
    await start(listeners(`name: one, ${bind}`) + rest);
    const client = await open("/", port);
    const report = await reload(listeners(`name: two, ${bind}`) + rest);
    expect(report.plan?.listeners).toEqual({ added: ["two"], removed: ["one"], changed: [] });
    expect(gateway.gateway.status().listeners).toEqual([
      { name: "two", address: `127.0.0.1:${port}` },
    ]);
    expect(gateway.lines.filter(({ msg }) => msg === "listening")).toHaveLength(2);
    const refused = new LightClient(port);
    expect(await refused.outcome).toMatchObject({ code: 1013 });
    client.sendClose(1000);
    await gateway.recorded(2);
    await open("/", port);
  });

  it("and all the rest stay as they were where an address is taken", async () => {
    const backend = await upstream();
    const rest = onePool([backend.url]);
    const free = await freePort();
    const { port: taken, server } = await takenPort();
    await start(listeners(TEST) + rest);
    const { port } = gateway;
    const wanted = [
      TEST,
      `name: free, bind: "127.0.0.1:${free}"`,
      `name: taken, bind: "127.0.0.1:${taken}"`,
    ];
    const report = await reload(listeners(...wanted) + rest.replace("name: all", "name: other"));
    const problems = [
      `cannot listen on 127.0.0.1:${taken} (listener taken): the address is in use`,
    ];
    expect(report).toEqual({ outcome: "failed", problems });
    expect(gateway.gateway.status()).toMatchObject({
      listeners: [{ name: "test", address: `127.0.0.1:${port}` }],
      routes: [{ name: "all" }],
      lastReload: { outcome: "failed", problems },
    });
    expect(await accepts(free)).toBe(false);
    // The same with the admin listener, whose turn is last.
    const admin = `admin: { bind: "127.0.0.1:${taken}" }\n`;
    expect((await reload(listeners(TEST, wanted[1] ?? "") + admin + rest)).outcome).toBe("failed");
    expect(await accepts(free)).toBe(false);
    expect((await fetch(`${gateway.adminUrl}/healthz`)).status).toBe(200);
    server.close();
    expect((await reload(listeners(...wanted) + rest)).outcome).toBe("applied");
    expect([await accepts(free), await accepts(taken)]).toEqual([true, true]);
  });
});

describe("Routes", () => {
  it("are looked up in their new order", async () => {
    const [one, two] = [await upstream(), await upstream()];
    const pools = `pools: { one: { backends: [{ url: "${one.url}" }] }, two: { backends: [{ url: "${two.url}" }] } }\n`;
    const yaml = (routes: readonly string[]): string =>
      `routes:\n${routes.map((route) => `  - ${route}\n`).join("")}${pools}`;
    const host = [
      '{ name: one, match: { host: "gateway.test" }, pool: one }',
      "{ name: two, match: { path: /ws }, pool: two }",
    ];
    await start(yaml(host));
    await open("/ws");
    expect([one.peers.length, two.peers.length]).toEqual([1, 0]);
    expect(await reload(yaml(host.toReversed()))).toMatchObject({
      outcome: "applied",
      plan: { reordered: ["routes"] },
      sessionsLeaving: 0,
    });
    await open("/ws");
    expect([one.peers.length, two.peers.length]).toEqual([1, 1]);
  });

  it("that are gone keep their sessions, which are still seen and counted", async () => {
    const backend = await upstream();
    const rest = `pools: { main: { backends: [{ url: "${backend.url}" }] } }\n`;
    await start(`routes: [{ name: old, match: { path: /old }, pool: main }]\n${rest}`);
    const client = await open("/old");
    await reload(`routes: [{ name: new, match: { path: /new }, pool: main }]\n${rest}`);
    expect(gateway.gateway.status().routes).toEqual([
      { name: "new", sessions: 0 },
      { name: "old", sessions: 1 },
    ]);
    expect(await gateway.metric('softclose_sessions_active{route="old"}')).toBe(1);
    expect(await new LightClient(gateway.port, { path: "/old" }).outcome).toMatchObject({
      code: 1008,
    });
    (await backend.peer()).sendText("still here");
    await client.log.received(1);
    client.sendClose(1000);
    await gateway.recorded(2);
    expect(gateway.gateway.status().routes).toEqual([{ name: "new", sessions: 0 }]);
    expect(
      await gateway.metric('softclose_session_ends_total{route="old",cause="clientClosed"}'),
    ).toBe(1);
  });

  it("give their new policies to new sessions only, and to refusals", async () => {
    const backend = await upstream();
    await start(onePool([backend.url], "limits: { maxMessageSize: 1KiB }\n"));
    const old = await open();
    await reload(
      onePool([backend.url], "limits: { maxMessageSize: 4KiB, maxConnections: 2 }\nrefuse: http\n"),
    );
    const fresh = await open();
    old.send({ opcode: 2, payload: Buffer.alloc(2_000) });
    fresh.send({ opcode: 2, payload: Buffer.alloc(2_000) });
    await old.log.frame(8);
    expect(old.log.closes[0]?.code).toBe(1009);
    await (await backend.peer(1)).log.received(1);
    await gateway.recorded(1);
    await open();
    const refused = new RawClient(gateway.port);
    clients.push(refused);
    // Two are there, one of them from before the limit.
    expect(await refused.answered()).toBe(503);
  });
});

describe("Handshakes that are under way", () => {
  it("go on to a backend that has come meanwhile, when theirs is gone", async () => {
    const hanging = await upstream(hangs);
    const good = await upstream();
    await start(impatient(hanging.url));
    const client = new PoliteRawClient(gateway.port);
    clients.push(client.raw);
    await hanging.peer();
    expect(await reload(impatient(good.url))).toMatchObject({
      outcome: "applied",
      sessionsLeaving: 0,
    });
    expect(gateway.gateway.status().leaving).toMatchObject([{ pool: "main", url: hanging.url }]);
    await client.opened();
    expect(good.peers).toHaveLength(1);
    expect(gateway.gateway.status().leaving).toEqual([]);
  });

  it("are told where nothing is left of their pool", async () => {
    const hanging = await upstream(hangs);
    const good = await upstream();
    await start(onePool([hanging.url], "retry: { connect: { timeout: 300ms } }\n"));
    const client = new LightClient(gateway.port);
    await hanging.peer();
    await reload(
      `routes: [{ name: all, pool: other }]\npools: { other: { backends: [{ url: "${good.url}" }] } }\n`,
    );
    expect(await client.outcome).toMatchObject({ code: 1013 });
    await gateway.recorded(1);
    await gateway.stopClean();
  });

  it("become sessions that leave at once, when their backend answers after it is gone", async () => {
    const slow = await upstream(hangs);
    const good = await upstream();
    await start(onePool([slow.url]));
    const client = new LightClient(gateway.port);
    const peer = await slow.peer();
    await reload(onePool([good.url]));
    peer.answersClose().accept();
    expect(await client.ended).toMatchObject({ code: 1012 });
    const [record] = await gateway.recorded(1);
    expect(record).toMatchObject({ cause: "backendDraining", backend: slow.url });
    await gateway.stopClean();
  });
});

describe("Backends", () => {
  it("that an operator has drained stay drained", async () => {
    const [one, two] = [await upstream(), await upstream()];
    await start(onePool([one.url, two.url]));
    expect(gateway.gateway.drainBackend(one.url)).toEqual({ sessions: 0 });
    await reload(onePool([one.url, two.url], "refuse: http\n"));
    const backends = (): unknown => gateway.gateway.status().pools[0]?.backends;
    expect(backends()).toMatchObject([{ draining: true }, { draining: false }]);
    for (let i = 0; i < 3; i += 1) await open();
    expect([one.peers.length, two.peers.length]).toEqual([0, 3]);
    // Taken out and put in again, it serves.
    await reload(onePool([two.url]));
    await reload(onePool([one.url, two.url]));
    expect(backends()).toMatchObject([{ draining: false }, { draining: false }]);
  });

  it("that come back keep those sessions which have not been told to leave yet", async () => {
    const [one, two] = [await upstream(), await upstream()];
    const slow = "drain: { timeout: 1h }\n";
    await start(onePool([one.url], slow));
    for (let i = 0; i < 10; i += 1) await open();
    expect(await reload(onePool([two.url], slow))).toMatchObject({ sessionsLeaving: 10 });
    await gateway.recorded(1);
    await reload(onePool([one.url], DRAIN));
    expect(gateway.gateway.status()).toMatchObject({
      pools: [{ backends: [{ url: one.url, draining: false }] }],
      leaving: [],
    });
    const left = gateway.slots;
    expect(left).toBeGreaterThanOrEqual(9 - 1);
    // The pace of before is gone with it: a new drain has its own, shorter time.
    await reload(onePool([two.url], DRAIN));
    await gateway.recorded(10);
    await gateway.stopClean();
  });

  it("are counted by a plan as the reload then counts them", async () => {
    const [one, two] = [await upstream(), await upstream()];
    await start(onePool([one.url, two.url], DRAIN));
    for (let i = 0; i < 5; i += 1) await open();
    const next = onePool([two.url], DRAIN);
    const planned = gateway.gateway.plan(completeConfig(next));
    expect(planned).toMatchObject({
      plan: { backends: { added: [], removed: [`main ${one.url}`], changed: [] } },
    });
    const { plan, sessionsLeaving } = await reload(next);
    expect({ plan, sessionsLeaving }).toEqual(planned);
    expect(sessionsLeaving).toBe(one.peers.length);
    await gateway.recorded(one.peers.length);
  });
});

describe("The admin listener", () => {
  it("moves, and still answers the request that has moved it", async () => {
    const backend = await upstream();
    await start(onePool([backend.url]));
    const before = gateway.adminUrl;
    const port = await freePort();
    file.write(`admin: { bind: "127.0.0.1:${port}", token: new }\n${onePool([backend.url])}`);
    const response = await fetch(`${before}/api/reload`, { method: "POST" });
    expect([response.status, await response.json()]).toMatchObject([200, { outcome: "applied" }]);
    expect(gateway.adminUrl).toBe(`http://127.0.0.1:${port}`);
    await eventually(
      async () => await expect(fetch(`${before}/healthz`)).rejects.toThrow(/fetch failed/),
    );
    const ask = (headers: Record<string, string>) =>
      fetch(`${gateway.adminUrl}/api/reload`, { method: "POST", headers });
    expect((await ask({})).status).toBe(401);
    expect(await (await ask({ Authorization: "Bearer new" })).json()).toMatchObject({
      outcome: "unchanged",
    });
    // And goes, from within.
    file.write(`admin: { bind: off }\n${onePool([backend.url])}`);
    expect((await ask({ Authorization: "Bearer new" })).status).toBe(200);
    expect(gateway.gateway.adminAddress).toBeNull();
  });
});

describe("A reload", () => {
  it("of a file that is not there, or no good, changes nothing and says why", async () => {
    const backend = await upstream();
    await start(onePool([backend.url]));
    file.write(onePool([backend.url], "refuse: never\n"));
    const { outcome, problems } = await gateway.gateway.reload();
    expect([outcome, problems.length]).toEqual(["invalid", 1]);
    expect(problems[0]).toMatch(/gateway\.yaml:5:9: refuse: /);
    rmSync(file.path);
    expect(await gateway.gateway.reload()).toEqual({
      outcome: "invalid",
      problems: [`${file.path}: there is no such file`],
    });
    const response = await fetch(`${gateway.adminUrl}/api/reload`, { method: "POST" });
    expect([response.status, await response.json()]).toMatchObject([409, { outcome: "invalid" }]);
    expect(await gateway.metric('softclose_config_reloads_total{outcome="invalid"}')).toBe(3);
    await open();
    expect((await reload(onePool([backend.url]))).outcome).toBe("unchanged");
    expect(gateway.gateway.status().lastReload).toMatchObject({ outcome: "unchanged" });
  });

  it("that comes while another one is under way reads the file once more, for all who ask", async () => {
    const backend = await upstream();
    await start(listeners(TEST) + onePool([backend.url]));
    file.write(listeners(TEST, SECOND) + onePool([backend.url]));
    const first = gateway.gateway.reload();
    file.write(listeners(TEST, SECOND) + onePool([backend.url], "refuse: http\n"));
    const later = [gateway.gateway.reload(), gateway.gateway.reload(), gateway.gateway.reload()];
    expect(await first).toMatchObject({ plan: { sections: [] } });
    for (const report of await Promise.all(later)) {
      expect(report).toMatchObject({ outcome: "applied", plan: { sections: ["policies"] } });
    }
    expect(await gateway.metric('softclose_config_reloads_total{outcome="applied"}')).toBe(2);
    expect((await gateway.gateway.reload()).outcome).toBe("unchanged");
  });

  it("is refused while the gateway drains, also if the drain begins under its hands", async () => {
    const backend = await upstream();
    const rest = onePool([backend.url], "drain: { delay: 300ms }\n");
    await start(listeners(TEST) + rest);
    const port = await freePort();
    const admin = await freePort();
    file.write(
      `${listeners(TEST, `name: late, bind: "127.0.0.1:${port}"`)}admin: { bind: "127.0.0.1:${admin}" }\n${rest}`,
    );
    const reloading = gateway.gateway.reload();
    const drained = gateway.gateway.drain();
    const refused = { outcome: "refused", problems: ["the gateway is draining"] };
    expect(await reloading).toEqual(refused);
    expect(await gateway.gateway.reload()).toEqual(refused);
    expect([await accepts(port), await accepts(admin)]).toEqual([false, false]);
    expect(await drained).toBe(0);
    expect((await gateway.gateway.reload()).outcome).toBe("refused");
  });
});
