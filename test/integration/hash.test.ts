/** `balance: hash`: who says the same comes to the same backend, and one that leaves moves only its own. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import { PoolSetting, poolYaml, servedBy } from "../support/pool-setting.ts";
import type { RawClientOptions } from "../support/raw-client.ts";
import { upgradeRequest } from "../support/raw-client.ts";
import type { RawUpstream } from "../support/raw-upstream.ts";

/** So many that of three backends each has some, but for once in a million runs. */
const KEYS = Array.from({ length: 40 }, (_, index) => `user-${index}`);
const TRUSTING =
  'listeners: [{ name: test, bind: "127.0.0.1:0", trustedProxies: ["127.0.0.1/32"] }]\n';

let setting: PoolSetting;

beforeEach(() => {
  setting = new PoolSetting();
});

afterEach(async () => {
  await setting.stop();
});

async function start(
  of: string,
  { pool = "", perBackend = "", more = "" } = {},
): Promise<RawUpstream[]> {
  const upstreams = await setting.backends(3);
  const urls = upstreams.map(({ url }) => url);
  await setting.start(
    poolYaml({ urls, perBackend, pool: `balance: hash, of: "${of}", ${pool}`, more }),
  );
  return upstreams;
}

/** The backend of each, in order; the clients stay. */
async function placesOf(
  requests: readonly RawClientOptions[],
): Promise<{ clients: PoliteRawClient[]; ports: number[] }> {
  const clients = await Promise.all(requests.map((request) => setting.open(request)));
  return { clients, ports: await Promise.all(clients.map(servedBy)) };
}

async function leave(clients: readonly PoliteRawClient[]): Promise<void> {
  const open = clients.filter(({ log }) => log.closes.length === 0);
  for (const client of open) client.sendClose(1000);
  await Promise.all(open.map((client) => client.ended()));
  await eventually(() => expect(setting.gateway.slots).toBe(0));
}

const byHeader = (key: string): RawClientOptions => ({ headers: { "X-User": key } });

describe("a client that says the same", () => {
  it.each(
    titled([
      {
        title: "address, as a trusted proxy has it",
        of: "clientIp",
        more: TRUSTING,
        request: (key: string): RawClientOptions => ({
          headers: { "X-Forwarded-For": `10.1.2.${key.slice(5)}` },
        }),
      },
      { title: "header", of: "header:X-User", more: "", request: byHeader },
      {
        title: "cookie",
        of: "cookie:user",
        more: "",
        request: (key: string): RawClientOptions => ({
          headers: { Cookie: `other=${Math.random()}; user=${key}` },
        }),
      },
      {
        title: "query",
        of: "query:user",
        more: "",
        request: (key: string): RawClientOptions => ({
          request: upgradeRequest({ path: `/ws?n=${Math.random()}&user=${key}` }),
        }),
      },
    ]),
  )("by its %s comes to the same backend again, whatever else is going on", async (_, row) => {
    const upstreams = await start(row.of, { more: row.more });
    const first = await placesOf(KEYS.map(row.request));
    // Neither load nor order matters: the first clients are still there.
    const second = await placesOf(KEYS.toReversed().map(row.request));
    expect(second.ports.toReversed()).toEqual(first.ports);
    expect(new Set(first.ports)).toEqual(new Set(upstreams.map(({ port }) => port)));
    await leave([...first.clients, ...second.clients]);
    const third = await placesOf(KEYS.map(row.request));
    expect(third.ports).toEqual(first.ports);
    await leave(third.clients);
  });

  it("of an address that nobody vouches for is all in one place", async () => {
    await start("clientIp");
    const { clients, ports } = await placesOf(
      KEYS.map((_, index) => ({ headers: { "X-Forwarded-For": `10.1.2.${index}` } })),
    );
    expect(new Set(ports).size).toBe(1);
    await leave(clients);
  });

  it("nothing at all is spread by load", async () => {
    await start("header:X-User");
    const { clients, ports } = await placesOf(Array.from({ length: 30 }, () => ({})));
    for (const port of new Set(ports)) {
      expect(ports.filter((one) => one === port)).toHaveLength(10);
    }
    await leave(clients);
  });
});

/** Where all are once `gone` is out, if only its own have moved; those are as `after` has them. */
function withItsOwnMoved(
  before: readonly number[],
  after: readonly number[],
  gone: number,
): (number | undefined)[] {
  const elsewhere = after.map((port) => (port === gone ? undefined : port));
  return before.map((port, index) => (port === gone ? elsewhere[index] : port));
}

describe("a backend that goes away", () => {
  it("by a drain moves only its own, who are back where they were when it is", async () => {
    const [gone] = await start("header:X-User", { more: "drain: { timeout: 100ms }\n" });
    if (gone === undefined) throw new Error("no upstreams");
    const before = await placesOf(KEYS.map(byHeader));
    setting.gateway.gateway.drainBackend(gone.url);
    await eventually(() => expect(setting.status(gone.url).connections).toBe(0));
    const closed = before.clients.map(({ log }) => log.closes.map(({ code }) => code));
    expect(closed).toEqual(before.ports.map((port) => (port === gone.port ? [1012] : [])));
    const during = await placesOf(KEYS.map(byHeader));
    expect(during.ports).toEqual(withItsOwnMoved(before.ports, during.ports, gone.port));
    setting.gateway.gateway.undrainBackend(gone.url);
    const after = await placesOf(KEYS.map(byHeader));
    expect(after.ports).toEqual(before.ports);
    await leave([...before.clients, ...during.clients, ...after.clients]);
  });

  it("by a drain with session retry takes its sessions to where their keys lead now", async () => {
    const more = "retry: { session: { enabled: true } }\ndrain: { timeout: 100ms }\n";
    const [gone] = await start("header:X-User", { more });
    if (gone === undefined) throw new Error("no upstreams");
    const { clients, ports } = await placesOf(KEYS.map(byHeader));
    setting.gateway.gateway.drainBackend(gone.url);
    await eventually(() => expect(setting.status(gone.url).connections).toBe(0));
    // Each backend greets: the last greeting is from where the session is now.
    await eventually(() => {
      const moved = clients.filter((_, index) => ports[index] === gone.port);
      expect(moved.every(({ log }) => log.messages.length === 2)).toBe(true);
    });
    const now = clients.map(({ log }) => Number(log.messages.at(-1)?.toString()));
    expect(now).toEqual(withItsOwnMoved(ports, now, gone.port));
    const newcomers = await placesOf(KEYS.map(byHeader));
    expect(newcomers.ports).toEqual(now);
    await leave([...clients, ...newcomers.clients]);
  });

  it("by a reload moves only its own", async () => {
    const upstreams = await start("header:X-User", { more: "drain: { timeout: 100ms }\n" });
    const [gone, ...staying] = upstreams;
    if (gone === undefined) throw new Error("no upstreams");
    const before = await placesOf(KEYS.map(byHeader));
    await setting.gateway.reload(
      poolYaml({
        urls: staying.map(({ url }) => url).toReversed(),
        pool: 'balance: hash, of: "header:X-User"',
        more: "drain: { timeout: 100ms }\n",
      }),
    );
    const after = await placesOf(KEYS.map(byHeader));
    expect(after.ports).toEqual(withItsOwnMoved(before.ports, after.ports, gone.port));
    await leave([...before.clients, ...after.clients]);
  });

  it("by being full sends the key to its next choice, and to it again when there is room", async () => {
    await start("header:X-User", { perBackend: "maxConnections: 2" });
    const same = Array.from({ length: 6 }, () => byHeader("one"));
    const clients: PoliteRawClient[] = [];
    for (const request of same) clients.push(await setting.open(request));
    const ports = await Promise.all(clients.map(servedBy));
    const [first, , second, , third] = ports;
    expect(ports).toEqual([first, first, second, second, third, third]);
    expect(new Set(ports).size).toBe(3);
    await leave(clients);
    const again = await placesOf([byHeader("one")]);
    expect(again.ports).toEqual([first]);
    await leave(again.clients);
  });

  it("by refusing its dial is passed over", async () => {
    const [gone] = await start("header:X-User");
    if (gone === undefined) throw new Error("no upstreams");
    const before = await placesOf(KEYS.map(byHeader));
    await leave(before.clients);
    await gone.stop();
    const after = await placesOf(KEYS.map(byHeader));
    expect(after.ports).toEqual(withItsOwnMoved(before.ports, after.ports, gone.port));
    await leave(after.clients);
  });
});

it("holds for those who wait: the head of the line takes any slot", async () => {
  await start("header:X-User", {
    perBackend: "maxConnections: 1",
    pool: "queue: { size: 10, timeout: 1h }",
  });
  const clients: PoliteRawClient[] = [];
  for (let i = 0; i < 3; i += 1) clients.push(await setting.open(byHeader("one")));
  const waiting = await setting.inLine(byHeader("one"));
  const last = clients[2];
  if (last === undefined) throw new Error("no client");
  last.sendClose(1000);
  await waiting.opened();
  expect(await servedBy(waiting)).toBe(await servedBy(last));
  await leave([...clients.slice(0, 2), waiting]);
});
