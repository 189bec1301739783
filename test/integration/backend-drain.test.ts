/** Backends that are taken out of service under traffic: sessions move, or are told, one after another. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BackendProcess } from "../support/backend-process.ts";
import { PoliteRawClient } from "../support/clients.ts";
import { CountingClient, everybodyIsServed } from "../support/counting-client.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

const SESSIONS = 600;
const BACKENDS = 3;
const SEND_EVERY_MS = 50;
const SERVED_LIMIT_MS = 15_000;

let gateway: TestGateway;

async function ask(path: string, body: unknown = {}): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${gateway.adminUrl}${path}`, {
    method: "POST",
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

function connectionsOf(url: string): number {
  const [pool] = gateway.gateway.status().pools;
  return pool?.backends.find((backend) => backend.url === url)?.connections ?? Number.NaN;
}

describe("A rolling restart under 600 sessions", () => {
  let folder: string;
  let backends: BackendProcess[];
  let clients: CountingClient[];
  let sending: NodeJS.Timeout;

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "softclose-drain-"));
    backends = await Promise.all(
      Array.from({ length: BACKENDS }, (_, index) =>
        BackendProcess.start(join(folder, `${index}`)),
      ),
    );
  });

  afterEach(async () => {
    clearInterval(sending);
    for (const client of clients) client.destroy();
    await gateway.gateway.stop();
    await Promise.all(backends.map((backend) => backend.kill()));
    rmSync(folder, { recursive: true });
  });

  async function start(retry: string): Promise<void> {
    const urls = backends.map(({ url }) => url);
    gateway = await startGateway(onePool(urls, `drain: { timeout: 1s }\n${retry}`));
    clients = Array.from(
      { length: SESSIONS },
      (_, index) => new CountingClient(gateway.port, `/${index}`),
    );
    await Promise.all(clients.map(({ opened }) => opened));
    sending = setInterval(() => {
      for (const client of clients) client.sendNext();
    }, SEND_EVERY_MS);
    await everybodyIsServed(clients, SERVED_LIMIT_MS);
  }

  it("moves every session: no Close, no message lost or doubled", async () => {
    await start("retry: { session: { enabled: true } }\n");
    for (const backend of backends) {
      const before = connectionsOf(backend.url);
      expect(before).toBeGreaterThan(0);
      const { status, body } = await ask("/api/backends/drain", { url: backend.url });
      expect([status, body]).toEqual([202, { sessions: before }]);
      await eventually(() => expect(connectionsOf(backend.url)).toBe(0), 15_000);
      await backend.kill();
      await backend.restart();
      await ask("/api/backends/undrain", { url: backend.url });
      await everybodyIsServed(clients, SERVED_LIMIT_MS);
    }
    clearInterval(sending);
    await eventually(() => {
      expect(clients.filter(({ highestEcho, sent }) => highestEcho < sent - 1)).toHaveLength(0);
    });
    for (const { sent, echoes, endings, oddities } of clients) {
      expect([endings, oddities]).toEqual([[], []]);
      expect(echoes).toEqual(Array.from({ length: sent }, (_, number) => number));
    }
    for (const client of clients) client.leave();
    const records = await gateway.recorded(SESSIONS);
    expect(new Set(records.map(({ cause }) => cause))).toEqual(new Set(["clientClosed"]));
    const resumes = records.reduce((sum, record) => sum + record.resumes, 0);
    expect(resumes).toBeGreaterThanOrEqual(SESSIONS);
    expect(await gateway.metric('softclose_resumes_total{route="all",outcome="moved"}')).toBe(
      resumes,
    );
    const dropped = records.map(({ dropped: { clientToUpstream, upstreamToClient } }) => [
      clientToUpstream,
      upstreamToClient,
    ]);
    expect(dropped.flat().filter((count) => count > 0)).toEqual([]);
    await gateway.stopClean();
  }, 120_000);

  it("without session retry tells every session 1012, evenly over drain.timeout", async () => {
    await start("");
    let told = 0;
    for (const backend of backends) {
      const sessions = connectionsOf(backend.url);
      const startedAt = Date.now();
      await ask("/api/backends/drain", { url: backend.url });
      const records = (await gateway.recorded(told + sessions)).slice(told);
      told += sessions;
      expect(records.map(({ cause, client }) => `${cause} ${client.sent}`)).toEqual(
        Array.from({ length: sessions }, () => "backendDraining 1012"),
      );
      // All over the time; a busy machine may skip a quarter of it.
      const quarters = new Set(
        records.map((record) =>
          Math.floor((record.startedAt + record.durationMs - startedAt) / 250),
        ),
      );
      expect(quarters.size).toBeGreaterThanOrEqual(3);
    }
    expect(told).toBe(SESSIONS);
    clearInterval(sending);
    const endings = new Set(clients.map((client) => client.endings.join()));
    expect(endings).toEqual(new Set(["close 1012 backend is being drained,tcp"]));
    await gateway.stopClean();
  }, 60_000);
});

describe("Without session retry", () => {
  it("tells the sessions 1012, evenly over drain.timeout", async () => {
    const upstreams = await Promise.all(
      [1, 2].map(() => RawUpstream.start((peer) => peer.answersClose().accept())),
    );
    const [first, second] = upstreams;
    if (first === undefined || second === undefined) throw new Error("no upstreams");
    gateway = await startGateway(onePool([first.url, second.url], "drain: { timeout: 1s }\n"));
    const clients = Array.from({ length: 40 }, () => new PoliteRawClient(gateway.port));
    await Promise.all(clients.map((client) => client.opened()));
    const startedAt = Date.now();
    const drained = await ask("/api/backends/drain", { url: first.url });
    expect(drained.body).toEqual({ sessions: 20 });
    const records = await gateway.recorded(20);
    expect(records.map(({ cause, client }) => [cause, client.sent])).toEqual(
      Array.from({ length: 20 }, () => ["backendDraining", 1012]),
    );
    // In each quarter of the time some of them.
    const ends = records.map((record) => record.startedAt + record.durationMs - startedAt);
    const quarters = new Set(ends.map((end) => Math.min(3, Math.floor(end / 250))));
    expect(quarters.size).toBe(4);
    expect(await ask("/api/backends/drain", { url: "ws://nobody:1" })).toMatchObject({
      status: 404,
    });
    // What comes while it is drained goes elsewhere.
    const late = new PoliteRawClient(gateway.port);
    await late.opened();
    expect(first.peers).toHaveLength(20);
    for (const client of [...clients, late]) client.sendClose(1000);
    await gateway.recorded(41);
    await gateway.stopClean();
    await Promise.all(upstreams.map((upstream) => upstream.stop()));
  });
});
