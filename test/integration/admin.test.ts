/** The admin listener in front of a real gateway: what it shows is what is. */
import { afterEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;
const clients: RawClient[] = [];

async function start(more = "close: { timeout: 100ms }"): Promise<void> {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], more));
}

async function open(): Promise<RawClient> {
  const client = new RawClient(gateway.port);
  clients.push(client);
  expect(await client.answered()).toBe(101);
  return client;
}

async function json(path: string): Promise<unknown> {
  return await (await fetch(gateway.adminUrl + path)).json();
}

async function value(series: string): Promise<number> {
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
  return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
}

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await gateway.stopClean();
  await upstream.stop();
});

it("is healthy and ready from the start", async () => {
  await start();
  expect((await fetch(`${gateway.adminUrl}/healthz`)).status).toBe(200);
  expect((await fetch(`${gateway.adminUrl}/readyz`)).status).toBe(200);
});

it("is not ready any more while it drains, although it still accepts and stays healthy", async () => {
  await start("close: { timeout: 100ms }\ndrain: { delay: 300ms, timeout: 200ms }");
  const { adminUrl } = gateway;
  const drained = gateway.gateway.drain();
  const readiness = await fetch(`${adminUrl}/readyz`);
  expect([readiness.status, await readiness.text()]).toEqual([503, "draining\n"]);
  expect((await fetch(`${adminUrl}/healthz`)).status).toBe(200);
  expect(await json("/api/status")).toMatchObject({ state: "draining" });
  const late = await open();
  await late.log.frame(8);
  expect(late.log.closes).toMatchObject([{ code: 1012 }]);
  late.sendClose(1012);
  (await upstream.peer()).socket.destroy();
  expect(await drained).toBe(0);
});

it("shows listeners, routes, pools and the slots that are taken", async () => {
  await start();
  await open();
  const client = await open();
  const status = {
    state: "ready",
    version: "test",
    listeners: [{ name: "test", address: `127.0.0.1:${gateway.port}` }],
  };
  expect(await json("/api/status")).toMatchObject({
    ...status,
    sessions: 2,
    routes: [{ name: "all", sessions: 2 }],
    pools: [
      {
        name: "main",
        backends: [{ url: upstream.url, connections: 2, maxConnections: 0, weight: 1 }],
      },
    ],
  });
  client.reset();
  await eventually(async () => {
    expect(await json("/api/status")).toMatchObject({
      ...status,
      sessions: 1,
      routes: [{ name: "all", sessions: 1 }],
      pools: [{ backends: [{ connections: 1 }] }],
    });
  });
});

it("lists live sessions, and the closes of those that have ended, newest first", async () => {
  await start();
  const client = await open();
  client.sendText("hi");
  await (await upstream.peer()).log.received(1);
  expect(await json("/api/sessions")).toMatchObject([
    {
      session: (await upstream.peer()).header("softclose-session"),
      route: "all",
      backend: upstream.url,
      clientIp: "127.0.0.1",
      messages: { clientToUpstream: 1, upstreamToClient: 0 },
      bytes: { clientToUpstream: 8, upstreamToClient: 0 },
    },
  ]);
  expect(await json("/api/closes")).toEqual([]);
  client.reset();
  await gateway.recorded(1);
  const next = await open();
  (await upstream.peer(1)).sendClose(4001, "bye");
  await next.log.frame(8);
  next.sendClose(4001);
  await gateway.recorded(2);
  expect(await json("/api/closes")).toMatchObject([
    { cause: "upstreamClosed", client: { sent: 4001, received: 4001 } },
    { cause: "clientLost", upstream: { sent: 1001 } },
  ]);
  expect(await json("/api/closes?limit=1")).toHaveLength(1);
  expect(await json("/api/sessions")).toEqual([]);
});

describe("DELETE of a session", () => {
  it("tells the client 1012 and the upstream 1001", async () => {
    await start();
    const client = new WebSocket(gateway.url());
    const closed = new Promise<[number, string]>((resolve) => {
      client.on("close", (code, reason) => resolve([code, reason.toString()]));
    });
    await new Promise((resolve) => client.on("open", resolve));
    const peer = await upstream.peer();
    const url = `${gateway.adminUrl}/api/sessions/${peer.header("softclose-session")}`;
    expect((await fetch(url, { method: "DELETE" })).status).toBe(204);
    expect(await closed).toEqual([1012, "closed by an administrator"]);
    await peer.log.frame(8);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "closed by an administrator" }]);
    peer.end();
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "adminClosed", client: { sent: 1012, received: 1012 } });
    expect((await fetch(url, { method: "DELETE" })).status).toBe(404);
  });

  it("needs the token where one is set, and is closed to other origins", async () => {
    await start('close: { timeout: 100ms }\nadmin: { bind: "127.0.0.1:0", token: secret }');
    const client = await open();
    const peer = await upstream.peer();
    const url = `${gateway.adminUrl}/api/sessions/${peer.header("softclose-session")}`;
    const remove = async (headers: Record<string, string>): Promise<number> =>
      (await fetch(url, { method: "DELETE", headers })).status;
    expect(await remove({})).toBe(401);
    expect(await remove({ Authorization: "Bearer wrong" })).toBe(401);
    expect(await remove({ Authorization: "Bearer secret", Origin: "https://evil.example" })).toBe(
      403,
    );
    expect(client.log.closes).toEqual([]);
    expect(await remove({ Authorization: "Bearer secret" })).toBe(204);
    await client.log.frame(8);
    client.sendClose(1012);
  });
});

describe("/metrics", () => {
  it("is current for a session that lives", async () => {
    await start();
    const client = await open();
    const peer = await upstream.peer();
    expect(await value('softclose_sessions_active{route="all"}')).toBe(1);
    expect(await value('softclose_sessions_total{route="all"}')).toBe(1);
    expect(
      await value(`softclose_backend_connections{pool="main",backend="${upstream.url}"}`),
    ).toBe(1);
    for (let i = 1; i <= 3; i += 1) {
      client.sendText("12345");
      peer.sendText("123");
      await peer.log.received(i);
      await client.log.received(i);
      const messages = 'softclose_relayed_messages_total{route="all",direction=';
      const bytes = 'softclose_relayed_bytes_total{route="all",direction=';
      expect(await value(`${messages}"clientToUpstream"}`)).toBe(i);
      expect(await value(`${messages}"upstreamToClient"}`)).toBe(i);
      expect(await value(`${bytes}"clientToUpstream"}`)).toBe(i * 11);
      expect(await value(`${bytes}"upstreamToClient"}`)).toBe(i * 5);
    }
    client.reset();
    await gateway.recorded();
    expect(await value('softclose_sessions_active{route="all"}')).toBe(0);
    expect(await value('softclose_session_ends_total{route="all",cause="clientLost"}')).toBe(1);
    const total = 'softclose_relayed_messages_total{route="all",direction="clientToUpstream"}';
    expect(await value(total)).toBe(3);
  });

  it("starts every series of the configuration at nought", async () => {
    await start();
    expect(await value('softclose_sessions_total{route="all"}')).toBe(0);
    expect(await value('softclose_refusals_total{route="all",cause="capacity"}')).toBe(0);
    expect(await value('softclose_refusals_total{route="-",cause="forbidden"}')).toBe(0);
  });
});
