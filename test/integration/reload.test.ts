/** Reloads under traffic: what closes, what is lost, what is counted, and what is left behind. */
import { afterEach, expect, it } from "vitest";
import { type ConfigFile, startReloadable } from "../support/config-file.ts";
import { CountingClient } from "../support/counting-client.ts";
import { eventually } from "../support/eventually.ts";
import type { TestGateway } from "../support/gateway.ts";
import { LightUpstream } from "../support/light-peers.ts";

const SESSIONS = Number(process.env["RELOAD_SESSIONS"] ?? 2_000);
const RELOADS = 50;
/** One in so many clients sends at a time. */
const TURNS = 5;
const TURN_MS = 100;
/** So many valid reloads lie between the one that takes a backend out and the start, or the next. */
const TAKEN_OUT_AT = [6, 14];

let upstreams: LightUpstream[] = [];
let gateway: TestGateway;
let file: ConfigFile;
const clients: CountingClient[] = [];
let sending: NodeJS.Timeout | undefined;
let turn = 0;

afterEach(async () => {
  clearInterval(sending);
  for (const client of clients.splice(0)) client.destroy();
  await gateway.gateway.stop();
  await Promise.all(upstreams.map((upstream) => upstream.stop()));
  file.remove();
});

/** What is open in this process, by kind. */
function openHandles(): { servers: number; watchers: number } {
  const kinds = process.getActiveResourcesInfo();
  return {
    servers: kinds.filter((kind) => kind === "TCPServerWrap").length,
    watchers: kinds.filter((kind) => /^FS(EVENT|Event)/.test(kind)).length,
  };
}

/** The n-th valid configuration: what can change without a session having to leave changes, and more. */
function configuration(n: number, retry: string): string {
  // The first three serve to the end, the next two are taken out one after the other, the last one comes and goes.
  const urls = upstreams
    .slice(0, 3 + TAKEN_OUT_AT.filter((at) => n < at).length)
    .map(({ url }) => url);
  const entries = urls.map(
    (url, index) =>
      `{ url: "${url}", maxConnections: ${SESSIONS + n}, weight: ${1 + ((n + index) % 3)} }`,
  );
  if (n % 2 === 1) entries.push(`{ url: "${upstreams[5]?.url}" }`);
  // The same backends under another name of their pool, and in another order.
  const pool = n % 4 < 2 ? "main" : "primary";
  if (n % 3 === 0) entries.reverse();
  const extra = [
    `{ name: extra, match: { path: "/extra" }, pool: ${pool} }`,
    `{ name: other, match: { path: "/other" }, pool: ${pool} }`,
  ];
  const before = n % 2 === 0 ? extra : extra.toReversed();
  const second = n % 3 === 1 ? ', { name: second, bind: "127.0.0.1:0" }' : "";
  return `listeners: [{ name: test, bind: "127.0.0.1:0", maxConnections: ${SESSIONS * 2 + n} }${second}]
routes:
  - ${before.slice(0, n % 3).join("\n  - ")}${n % 3 === 0 ? "{ name: only, match: { host: nobody.test }, pool: " : ""}${n % 3 === 0 ? `${pool} }` : ""}
  - { name: all, pool: ${pool} }
pools:
  ${pool}:
    balance: ${n % 2 === 0 ? "leastConnections" : "roundRobin"}
    backends: [${entries.join(", ")}]
drain: { timeout: ${1_000 + n}ms }
limits: { maxMessageSize: ${n + 1}KiB }
${retry}`;
}

const INVALID: readonly ((valid: string) => string)[] = [
  (valid) => valid.replaceAll("maxConnections", "maxConections"),
  (valid) => valid.slice(0, valid.indexOf("pools:")),
  (valid) => `${valid}  - [`,
  () => "",
  (valid) => valid.replace(/weight: \d/, "weight: many"),
  (valid) => valid.replace(/name: all, pool: \w+/, "name: all, pool: nowhere"),
];

async function open(count: number): Promise<void> {
  const fresh = Array.from({ length: count }, (_, i) => new CountingClient(gateway.port, `/${i}`));
  clients.push(...fresh);
  await Promise.all(fresh.map(({ opened }) => opened));
}

/** Half of the reloads, every second one, are of files that are no good. */
async function reloadOverAndOver(retry: string): Promise<void> {
  for (let i = 1; i <= RELOADS; i += 1) {
    const n = Math.floor(i / 2);
    const valid = configuration(i % 2 === 0 ? n : n + 1, retry);
    const bad = INVALID[n % INVALID.length];
    file.write(i % 2 === 0 || bad === undefined ? valid : bad(valid));
    const { outcome, problems } = await gateway.gateway.reload();
    expect([outcome, problems.length > 0]).toEqual(
      i % 2 === 0 ? ["applied", false] : ["invalid", true],
    );
    if (i % 10 === 0) await open(10);
    await traffic();
  }
}

/** Waits until some of the clients have sent once more. */
async function traffic(): Promise<void> {
  const before = turn;
  await eventually(() => expect(turn).toBeGreaterThan(before));
}

async function begin(retry: string): Promise<void> {
  upstreams = await Promise.all(Array.from({ length: 6 }, () => LightUpstream.startEcho()));
  ({ gateway, file } = await startReloadable(configuration(0, retry)));
  await open(SESSIONS);
  sending = setInterval(() => {
    turn += 1;
    for (let i = turn % TURNS; i < clients.length; i += TURNS) {
      const client = clients[i];
      if (client?.endings.length === 0) client.sendNext();
    }
  }, TURN_MS);
}

/** No more traffic, and all of it has come back to those who are still there. */
async function quiet(): Promise<void> {
  clearInterval(sending);
  await eventually(() => {
    const waiting = clients.filter(
      ({ endings, highestEcho, sent }) => endings.length === 0 && highestEcho < sent - 1,
    );
    expect(waiting).toHaveLength(0);
  });
}

const upTo = (count: number): number[] => Array.from({ length: count }, (_, number) => number);

async function countersAreRight(live: number): Promise<void> {
  const { gateway: subject } = gateway;
  const status = subject.status();
  expect([status.sessions, subject.placesTaken, gateway.slots]).toEqual([live, live, live]);
  expect(status.leaving).toEqual([]);
  expect(await gateway.metric('softclose_sessions_active{route="all"}')).toBe(live);
  expect(await gateway.metric('softclose_sessions_total{route="all"}')).toBe(clients.length);
  for (const outcome of ["applied", "invalid"]) {
    const reloads = await gateway.metric(`softclose_config_reloads_total{outcome="${outcome}"}`);
    expect(reloads).toBe(RELOADS / 2);
  }
  for (const { url, connections } of status.pools.flatMap(({ backends }) => backends)) {
    const upstream = upstreams.find((candidate) => candidate.url === url);
    expect(connections).toBe(upstream?.connections);
    const series = `softclose_backend_connections{pool="${status.pools[0]?.name}",backend="${url}"}`;
    expect(await gateway.metric(series)).toBe(connections);
  }
  const sent = clients.reduce((sum, client) => sum + client.echoes.length, 0);
  const relayed = 'softclose_relayed_messages_total{route="all",direction="upstreamToClient"}';
  expect(await gateway.metric(relayed)).toBe(sent);
}

async function everybodyLeaves(): Promise<void> {
  for (const client of clients) if (client.endings.length === 0) client.leave();
  await eventually(() => {
    expect([gateway.gateway.status().sessions, gateway.slots]).toEqual([0, 0]);
    expect(gateway.gateway.placesTaken).toBe(0);
  });
  // Every listener that came with a reload has gone with another one; no level "error" but for bad files.
  expect(gateway.gateway.status().listeners).toHaveLength(2);
  await gateway.gateway.stop();
  await eventually(() => expect(openHandles()).toEqual({ servers: upstreams.length, watchers: 0 }));
  const errors = gateway.lines.filter(({ level }) => level === "error");
  expect(new Set(errors.map(({ msg }) => msg))).toEqual(new Set(["reload changed nothing"]));
}

it(`closes none of ${SESSIONS} sessions in ${RELOADS} reloads but those of removed backends`, async () => {
  await begin("");
  // The last one takes some of the sessions that come between the reloads, and leaves with them.
  const [first, second, last] = upstreams.slice(3).map(({ url }) => url);
  const removed = new Set([first, second, last]);
  const onRemoved = gateway.gateway
    .sessions(Number.MAX_SAFE_INTEGER)
    .filter(({ backend }) => removed.has(backend)).length;
  expect(onRemoved).toBeGreaterThan(SESSIONS / 4);
  await reloadOverAndOver("");
  await eventually(() => expect(gateway.gateway.status().leaving).toEqual([]));
  await quiet();
  const ended = clients.filter(({ endings }) => endings.length > 0);
  await Promise.all(ended.map((client) => client.ended));
  expect(clients.flatMap(({ oddities }) => oddities)).toEqual([]);
  for (const { echoes, sent } of clients.filter(({ endings }) => endings.length === 0)) {
    expect(echoes).toEqual(upTo(sent));
  }
  for (const { endings, echoes } of ended) {
    expect(endings).toEqual(["close 1012 backend is being drained", "tcp"]);
    // What was on its way when the Close came is all that may be missing.
    expect(echoes).toEqual(upTo(echoes.length));
  }
  const records = gateway.records;
  expect(records).toHaveLength(ended.length);
  for (const { cause, client, backend } of records) {
    expect([cause, client.sent, removed.has(backend ?? undefined)]).toEqual([
      "backendDraining",
      1012,
      true,
    ]);
  }
  expect(ended.length).toBeGreaterThanOrEqual(onRemoved);
  for (const url of [first, second]) {
    const ends = records
      .filter(({ backend }) => backend === url)
      .map(({ startedAt, durationMs }) => startedAt + durationMs);
    const start = Math.min(...ends);
    const span = Math.max(...ends) - start + 1;
    const quarters = upTo(4).map(
      (quarter) => ends.filter((end) => Math.floor((4 * (end - start)) / span) === quarter).length,
    );
    // Paced: in no quarter of the time more than half of them.
    expect(Math.max(...quarters)).toBeLessThan(ends.length / 2);
  }
  const ends = 'softclose_session_ends_total{route="all",cause="backendDraining"}';
  expect(await gateway.metric(ends)).toBe(ended.length);
  await countersAreRight(clients.length - ended.length);
  await everybodyLeaves();
}, 120_000);

it("moves the sessions of removed backends where session retry is on: nothing closes or is lost", async () => {
  const retry = "retry: { session: { enabled: true } }\n";
  await begin(retry);
  await reloadOverAndOver(retry);
  await eventually(() => expect(gateway.gateway.status().leaving).toEqual([]));
  await quiet();
  for (const { endings, echoes, sent, oddities } of clients) {
    expect([endings, oddities]).toEqual([[], []]);
    expect(echoes).toEqual(upTo(sent));
  }
  expect(gateway.records).toEqual([]);
  const moved = await gateway.metric('softclose_resumes_total{route="all",outcome="moved"}');
  expect(moved).toBeGreaterThan(SESSIONS / 4);
  await countersAreRight(clients.length);
  await everybodyLeaves();
}, 120_000);
