/** A backend that goes by a name: each of its addresses is a backend, for as long as it has it. */
import { EventEmitter, once } from "node:events";
import { createServer } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { freePort } from "../bench/free-port.ts";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { makeGateway } from "../support/gateway.ts";
import { livePeers, PoolSetting, type PoolYaml, poolYaml } from "../support/pool-setting.ts";
import { type Behaviour, RawUpstream } from "../support/raw-upstream.ts";

const HOST = "chat.test";
const ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4"];
/** The shortest that may be configured. */
const SOON = "dns: { interval: 1s }";

/** What names stand for; `hangs`: no answer comes. */
class Names {
  readonly asked: string[] = [];
  readonly #answers = new Map<string, readonly string[] | Error | "hangs">();

  set(host: string, answer: readonly string[] | Error | "hangs"): void {
    this.#answers.set(host, answer);
  }

  readonly resolve = async (host: string, signal: AbortSignal): Promise<readonly string[]> => {
    this.asked.push(host);
    const answer = this.#answers.get(host) ?? new Error("ENOTFOUND");
    if (answer instanceof Error) throw answer;
    if (answer !== "hangs") return answer;
    return new Promise((_, reject) => {
      signal.addEventListener("abort", () => reject(new Error("aborted")));
    });
  };
}

let setting: PoolSetting;
let names: Names;
let port: number;

beforeEach(async () => {
  setting = new PoolSetting();
  names = new Names();
  names.set(HOST, ADDRESSES);
  setting.upstreams.push(...(await servers()));
  port = setting.upstreams[0]?.port ?? 0;
});

afterEach(async () => {
  await setting.stop();
});

/** Tells the client its address. */
const greets: Behaviour = (peer) => {
  peer.answersClose().accept();
  peer.sendText(peer.socket.localAddress ?? "");
};

/** One for each address, on one port. */
async function servers(): Promise<RawUpstream[]> {
  const started: RawUpstream[] = [];
  for (const host of ADDRESSES) {
    const at = { host, port: started[0]?.port ?? 0 };
    started.push(await RawUpstream.start(greets, () => undefined, at));
  }
  return started;
}

function yaml(keys: Partial<PoolYaml> = {}): string {
  return poolYaml({ urls: [`ws://${HOST}:${port}`], pool: SOON, ...keys });
}

function urlAt(address: string): string {
  return `ws://${address}:${port}`;
}

function backends(): string[] {
  const [pool] = setting.gateway.gateway.status().pools;
  return (pool?.backends ?? []).map(({ url }) => url);
}

function connections(): number[] {
  const [pool] = setting.gateway.gateway.status().pools;
  return (pool?.backends ?? []).map(({ connections: count }) => count);
}

async function addressOf(client: PoliteRawClient): Promise<string> {
  const [greeting] = await client.log.received(1);
  return String(greeting);
}

async function openMany(count: number): Promise<PoliteRawClient[]> {
  const clients = await Promise.all(Array.from({ length: count }, () => setting.open()));
  await Promise.all(clients.map(addressOf));
  return clients;
}

async function leave(clients: readonly PoliteRawClient[]): Promise<void> {
  const open = clients.filter(({ log }) => log.closes.length === 0);
  for (const client of open) client.sendClose(1000);
  await Promise.all(open.map((client) => client.ended()));
  await eventually(() => expect(setting.gateway.gateway.status().sessions).toBe(0));
}

describe("a name with three addresses", () => {
  it("is three backends, each with slots of its own", async () => {
    await setting.start(yaml({ perBackend: "maxConnections: 2" }), names);
    expect(backends()).toEqual(ADDRESSES.map(urlAt));
    const clients = await openMany(6);
    expect(connections()).toEqual([2, 2, 2]);
    expect((await setting.knock().ended()).told.code).toBe(1013);
    const labels = `{pool="main",backend="${urlAt("127.0.0.3")}"}`;
    expect(await setting.gateway.metric(`softclose_backend_connections${labels}`)).toBe(2);
    await leave(clients);
    const served = setting.gateway.records.filter(({ refused }) => !refused);
    expect(new Set(served.map(({ backend }) => backend))).toEqual(new Set(ADDRESSES.map(urlAt)));
  });

  it("drains the one that is gone: its sessions are told, the others stay", async () => {
    await setting.start(yaml({ more: "drain: { timeout: 200ms }\n" }), names);
    const clients = await openMany(9);
    names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
    const records = await setting.gateway.recorded(3);
    for (const record of records) {
      expect(record).toMatchObject({
        cause: "backendDraining",
        backend: urlAt("127.0.0.3"),
        client: { sent: 1012 },
        upstream: { sent: 1001 },
      });
    }
    expect(backends()).toEqual([urlAt("127.0.0.2"), urlAt("127.0.0.4")]);
    const late = await openMany(4);
    expect(await Promise.all(late.map(addressOf))).not.toContain("127.0.0.3");
    await eventually(() => expect(connections()).toEqual([5, 5]));
    await leave([...clients, ...late]);
    await setting.gateway.recorded(13);
  });

  it("moves the sessions of the one that is gone, with session retry", async () => {
    const more = "retry: { session: { enabled: true } }\ndrain: { timeout: 200ms }\n";
    await setting.start(yaml({ more }), names);
    const clients = await openMany(9);
    names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
    await eventually(() => expect(connections().reduce((a, b) => a + b, 0)).toBe(9));
    const gone = setting.upstreams[1];
    await eventually(() => expect(gone === undefined ? [] : livePeers(gone)).toEqual([]));
    expect(clients.flatMap(({ log }) => log.closes)).toEqual([]);
    const moved = 'softclose_resumes_total{route="all",outcome="moved"}';
    expect(await setting.gateway.metric(moved)).toBe(3);
    await leave(clients);
  });

  it("gives a new address sessions, first of all to those who wait", async () => {
    names.set(HOST, ["127.0.0.2"]);
    await setting.start(
      yaml({
        perBackend: "maxConnections: 1",
        pool: `${SOON}, queue: { size: 10, timeout: 1h }`,
      }),
      names,
    );
    const first = await setting.open();
    const waiting = await setting.inLine();
    names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
    await waiting.opened();
    expect(await addressOf(waiting)).toBe("127.0.0.4");
    await leave([first, waiting]);
  });

  it("takes one that comes back while it is left as the one that it was", async () => {
    await setting.start(yaml({ more: "drain: { timeout: 1h }\n" }), names);
    const clients = await openMany(9);
    names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
    // The first of its three is told at once, the next after 20 minutes.
    await setting.gateway.recorded(1);
    names.set(HOST, ADDRESSES);
    await eventually(() => expect(backends()).toEqual(ADDRESSES.map(urlAt)));
    expect(connections()).toEqual([3, 2, 3]);
    const client = await setting.open();
    expect(await addressOf(client)).toBe("127.0.0.3");
    await leave([...clients, client]);
    const causes = setting.gateway.records.map(({ cause }) => cause);
    expect(causes.filter((cause) => cause === "backendDraining")).toHaveLength(1);
  });

  it("has the sessions of one that is gone, back and gone again leave anew", async () => {
    await setting.start(yaml({ more: "drain: { timeout: 1h }\n" }), names);
    const clients = await openMany(9);
    names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
    await setting.gateway.recorded(1);
    names.set(HOST, ADDRESSES);
    await eventually(() => expect(backends()).toEqual(ADDRESSES.map(urlAt)));
    names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
    // Were the first leaving still going on, the next would be told after 20 minutes.
    const records = await setting.gateway.recorded(2);
    expect(records.map(({ cause }) => cause)).toEqual(["backendDraining", "backendDraining"]);
    await leave(clients);
  });

  it("keeps the last answer while look-ups fail or find nothing, and says so once", async () => {
    await setting.start(yaml(), names);
    const clients = await openMany(3);
    const asked = names.asked.length;
    names.set(HOST, new Error("EAI_AGAIN"));
    await eventually(() => expect(names.asked.length).toBe(asked + 2));
    names.set(HOST, []);
    await eventually(() => expect(names.asked.length).toBe(asked + 3));
    expect(backends()).toEqual(ADDRESSES.map(urlAt));
    const late = await openMany(3);
    expect(connections()).toEqual([2, 2, 2]);
    const warnings = setting.gateway.lines.filter(({ level }) => level === "warn");
    expect(warnings.filter(({ host }) => host === HOST)).toHaveLength(1);
    await leave([...clients, ...late]);
    expect(setting.gateway.records.map(({ cause }) => cause)).toEqual(
      Array(6).fill("clientClosed"),
    );
  });
});

it("probes each address by itself", async () => {
  const health = "health: { type: tcp, interval: 150ms, timeout: 150ms, rise: 1, fall: 2 }";
  await setting.start(yaml({ pool: `${SOON}, ${health}` }), names);
  const dead = urlAt("127.0.0.3");
  await setting.upstreams[1]?.stop();
  await eventually(() => expect(setting.status(dead).up).toBe(false));
  const clients = await openMany(6);
  expect(await Promise.all(clients.map(addressOf))).not.toContain("127.0.0.3");
  names.set(HOST, ["127.0.0.2", "127.0.0.4"]);
  await eventually(() => expect(backends()).not.toContain(dead));
  await leave(clients);
});

it("takes an address behind two names as one server, with one cap", async () => {
  names.set("one.test", ["127.0.0.2", "127.0.0.3"]);
  names.set("two.test", ["127.0.0.3", "127.0.0.4"]);
  const urls = ["one.test", "two.test"].map((host) => `ws://${host}:${port}`);
  await setting.start(yaml({ urls, perBackend: "maxConnections: 1" }), names);
  expect(backends()).toEqual(ADDRESSES.map(urlAt));
  const clients = await openMany(3);
  expect((await setting.knock().ended()).told.code).toBe(1013);
  await leave(clients);
});

it("dials the name as it is with dns.interval: 0s", async () => {
  const urls = [`ws://nobody.invalid:${port}`];
  const more = "retry: { connect: { attempts: 1, timeout: 500ms } }\n";
  await setting.start(yaml({ urls, pool: "dns: { interval: 0s }", more }), names);
  expect(backends()).toEqual(urls);
  expect((await setting.knock().ended()).told.code).toBe(1013);
  const [record] = await setting.gateway.recorded();
  expect(record).toMatchObject({ cause: "upstreamUnreachable", backend: urls[0], dials: 1 });
  expect(names.asked).toEqual([]);
});

describe("a start", () => {
  it("waits for the first answer", async () => {
    const answers = new EventEmitter();
    const resolve = async (): Promise<readonly string[]> => {
      await once(answers, "answer");
      return ADDRESSES;
    };
    const pending = setting.start(yaml(), { resolve });
    const isReady = await Promise.race([
      pending.then(() => true),
      // Silence is what is shown.
      new Promise((settle) => setTimeout(() => settle(false), 200)),
    ]);
    expect(isReady).toBe(false);
    answers.emit("answer");
    await pending;
    expect(setting.gateway.gateway.ready()).toBe(true);
    await leave(await openMany(1));
  });

  it("waits not for ever, and serves as soon as there is an answer", async () => {
    names.set(HOST, new Error("ENOTFOUND"));
    await setting.start(yaml(), names);
    expect(backends()).toEqual([]);
    expect((await setting.knock().ended()).told.code).toBe(1013);
    expect(await setting.gateway.recorded()).toMatchObject([{ cause: "noBackend" }]);
    names.set(HOST, ADDRESSES);
    await eventually(() => expect(backends()).toEqual(ADDRESSES.map(urlAt)));
    await leave(await openMany(1));
  });

  it("that is stopped while it waits leaves nothing bound", async () => {
    names.set(HOST, "hangs");
    const gateway = makeGateway(yaml(), names);
    const starting = gateway.gateway.start();
    await eventually(() => expect(names.asked).toHaveLength(1));
    await gateway.gateway.stop();
    await starting;
    expect(gateway.gateway.ready()).toBe(false);
    expect(gateway.lines.map(({ msg }) => msg)).not.toContain("ready");
    for (const { address } of gateway.gateway.status().listeners) {
      await expectFree(Number(address.slice(address.lastIndexOf(":") + 1)));
    }
  });
});

describe("a reload", () => {
  it("of how often it is looked up moves nobody", async () => {
    await setting.start(yaml(), names);
    const clients = await openMany(6);
    const next = yaml({ pool: "dns: { interval: 30s }" });
    expect(setting.gateway.plan(next)).toMatchObject({ sessionsLeaving: 0 });
    names.set(HOST, "hangs");
    expect(await setting.gateway.reload(next)).toMatchObject({
      outcome: "applied",
      sessionsLeaving: 0,
    });
    expect(backends()).toEqual(ADDRESSES.map(urlAt));
    expect(connections()).toEqual([2, 2, 2]);
    await leave([...clients, ...(await openMany(1))]);
    expect(setting.gateway.records.every(({ cause }) => cause === "clientClosed")).toBe(true);
  });

  it("that gives the pool another name moves nobody", async () => {
    await setting.start(yaml(), names);
    const clients = await openMany(6);
    const next = yaml().replaceAll("main", "other");
    names.set(HOST, "hangs");
    expect(await setting.gateway.reload(next)).toMatchObject({
      outcome: "applied",
      sessionsLeaving: 0,
    });
    expect(connections()).toEqual([2, 2, 2]);
    await leave([...clients, ...(await openMany(1))]);
    expect(setting.gateway.records.every(({ cause }) => cause === "clientClosed")).toBe(true);
  });

  it("from an address to a name that stands for it moves nobody, and turns nobody away", async () => {
    await setting.start(yaml({ urls: [urlAt("127.0.0.3")] }), names);
    const clients = await openMany(2);
    expect(await setting.gateway.reload(yaml())).toMatchObject({
      outcome: "applied",
      sessionsLeaving: 0,
    });
    expect(backends()).toEqual(ADDRESSES.map(urlAt));
    expect(connections()).toEqual([0, 2, 0]);
    await leave([...clients, ...(await openMany(2))]);
    expect(setting.gateway.records.every(({ cause }) => cause === "clientClosed")).toBe(true);
  });

  it("to a name that nobody knows is not waited for long, and leaves in service what there is", async () => {
    await setting.start(yaml(), names);
    const clients = await openMany(3);
    const next = yaml({ urls: [`ws://nobody.test:${port}`] });
    expect(await setting.gateway.reload(next)).toMatchObject({
      outcome: "applied",
      sessionsLeaving: 0,
    });
    expect(backends()).toEqual(ADDRESSES.map(urlAt));
    clients.push(...(await openMany(1)));
    for (const client of clients) client.sendClose(1000);
    await setting.gateway.recorded(4);
  });

  it("that fails forgets the names that it would have brought", async () => {
    const taken = createServer();
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const address = taken.address();
    const bind = typeof address === "object" ? address?.port : 0;
    await setting.start(yaml(), names);
    names.set("new.test", ["127.0.0.2"]);
    const next = `listeners: [{ name: test, bind: "127.0.0.1:0" }, { name: no, bind: "127.0.0.1:${bind}" }]\n${yaml({ urls: [`ws://new.test:${port}`] })}`;
    expect(await setting.gateway.reload(next)).toMatchObject({ outcome: "failed" });
    setting.gateway.lines.length = 0;
    expect(backends()).toEqual(ADDRESSES.map(urlAt));
    const asked = names.asked.filter((host) => host === HOST).length;
    await eventually(() => {
      expect(names.asked.filter((host) => host === HOST).length).toBe(asked + 2);
    });
    expect(names.asked.filter((host) => host === "new.test")).toHaveLength(1);
    await new Promise((resolve) => taken.close(resolve));
  });

  it("that a stop overtakes binds nothing", async () => {
    await setting.start(yaml(), names);
    names.set("slow.test", "hangs");
    const free = await freePort();
    const next = `listeners: [{ name: test, bind: "127.0.0.1:0" }, { name: more, bind: "127.0.0.1:${free}" }]\n${yaml({ urls: [`ws://slow.test:${port}`] })}`;
    const reloading = setting.gateway.reload(next);
    await eventually(() => expect(names.asked).toContain("slow.test"));
    await setting.gateway.gateway.drain();
    expect(await reloading).toMatchObject({ outcome: "refused" });
    await expectFree(free);
    setting.gateway.lines.length = 0;
  });
});

/** Somebody else can have the port. */
async function expectFree(where: number): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.on("error", reject);
    server.listen(where, "127.0.0.1", resolve);
  });
  await new Promise((resolve) => server.close(resolve));
}
