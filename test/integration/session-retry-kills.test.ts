/**
 * Backends that are killed in turn, as processes, under sessions that send numbered messages all the
 * time. `KILLS=full` runs it with 500 sessions and 20 kills.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Arrival, BackendProcess } from "../support/backend-process.ts";
import { CountingClient, everybodyIsServed } from "../support/counting-client.ts";
import { eventually } from "../support/eventually.ts";
import { onePool } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";

const FULL = process.env["KILLS"] === "full";
const SESSIONS = FULL ? 500 : 200;
const KILLS = FULL ? 20 : 8;
/** Every so many kills the backend is only frozen, until the gateway's heartbeat has found it out. */
const FREEZE_EVERY = 4;
/** Two are always alive. */
const BACKENDS = 3;
const SEND_EVERY_MS = 50;
/** The longest that a frozen upstream can pass for a living one, without the turns of two busy cores. */
const HEARTBEAT = { intervalMs: 600, timeoutMs: 800 };
/** The wait of a session that is hit twice within a few seconds. */
const BACKOFF_MS = 600;
/** What busy cores may add to a time; short of the wait, in which nothing may be lost. */
const SLACK_MS = 300;
const RESUME_LIMIT_MS = 15_000;
/** Heap that has grown and not shrunk again, and no more than a full buffer for each session. */
const MEMORY_LEFT_BYTES = 40 * 1024 * 1024 + SESSIONS * 64 * 1024;

/** One loss of a backend, on the clock of `sentAt`. */
interface Outage {
  readonly from: number;
  /** When the gateway must have noticed. */
  readonly to: number;
}

let folder: string;
let backends: BackendProcess[] = [];
let clients: CountingClient[] = [];
let gateway: GatewayProcess;
let sending: NodeJS.Timeout;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "softclose-kills-"));
  backends = await Promise.all(
    Array.from({ length: BACKENDS }, (_, index) => BackendProcess.start(join(folder, `${index}`))),
  );
});

afterEach(async () => {
  clearInterval(sending);
  for (const client of clients) client.destroy();
  await gateway.stop();
  await Promise.all(backends.map((backend) => backend.kill()));
  rmSync(folder, { recursive: true });
});

async function start(resend: string): Promise<void> {
  const { intervalMs, timeoutMs } = HEARTBEAT;
  gateway = await GatewayProcess.start(
    onePool(
      backends.map(({ url }) => url),
      `heartbeat: { upstream: { interval: ${intervalMs}ms, timeout: ${timeoutMs}ms } }
retry:
  session: { enabled: true, on: [lost, unresponsive], attempts: 100, resend: ${resend} }
  backoff: { initial: ${BACKOFF_MS}ms, max: ${BACKOFF_MS}ms, jitter: 0 }
`,
    ),
    // What has survived a second and is kept no more lies in V8's old space until that is full.
    ["--max-old-space-size=64"],
  );
  clients = Array.from(
    { length: SESSIONS },
    (_, index) => new CountingClient(gateway.port, `/${index}`),
  );
  await Promise.all(clients.map(({ opened }) => opened));
  sending = setInterval(() => {
    for (const client of clients) client.sendNext();
  }, SEND_EVERY_MS);
  await everybodyIsServed(clients, RESUME_LIMIT_MS);
}

/** Kills the backends in turn; each is back, and each client served, before the next. */
async function killInTurn(): Promise<Outage[]> {
  const outages: Outage[] = [];
  for (let kill = 0; kill < KILLS; kill += 1) {
    const victim = backends[kill % BACKENDS];
    if (victim === undefined) throw new Error("no backend");
    const from = performance.now();
    if (kill % FREEZE_EVERY === FREEZE_EVERY - 1) {
      victim.freeze();
      // The ping that is answered last may have gone out just before.
      const unnoticedMs = HEARTBEAT.intervalMs + HEARTBEAT.timeoutMs;
      outages.push({ from, to: from + unnoticedMs });
      await everybodyIsServed(clients, RESUME_LIMIT_MS);
      await victim.kill();
    } else {
      await victim.kill();
      outages.push({ from, to: performance.now() });
      await everybodyIsServed(clients, RESUME_LIMIT_MS);
    }
    await victim.restart();
  }
  return outages;
}

/** All clients stop, have the last echo, and leave. */
async function leave(): Promise<void> {
  await everybodyIsServed(clients, RESUME_LIMIT_MS);
  clearInterval(sending);
  await eventually(() => {
    const waiting = clients.filter(({ highestEcho, sent }) => highestEcho < sent - 1);
    expect(waiting).toHaveLength(0);
  });
  // Nobody has seen a Close, or an end of TCP, until here.
  expect(clients.flatMap(({ endings }) => endings)).toEqual([]);
  expect(clients.flatMap(({ oddities }) => oddities)).toEqual([]);
  for (const client of clients) client.leave();
  await Promise.all(clients.map(({ ended }) => ended));
  const ending = ["close 1000", "tcp"];
  expect(clients.filter(({ endings }) => endings.join() !== ending.join())).toEqual([]);
  await eventually(() => expect(gateway.records).toHaveLength(SESSIONS));
}

/** What the session of each client's path brought to backends: one list of numbers for each upstream. */
function arrivalsByPath(): Map<string, Arrival[][]> {
  const byPath = new Map<string, Arrival[][]>();
  for (const arrival of backends.flatMap(({ arrivals }) => arrivals)) {
    const legs = byPath.get(arrival.path) ?? [];
    byPath.set(arrival.path, legs);
    const leg = legs[arrival.resume] ?? [];
    legs[arrival.resume] = leg;
    leg.push(arrival);
  }
  // An upstream that was lost before it got anything has none.
  for (const [path, legs] of byPath)
    byPath.set(
      path,
      Array.from(legs, (leg) => leg ?? []),
    );
  return byPath;
}

interface Account {
  readonly resumes: number;
  readonly dials: number;
  readonly retryingMs: number;
}

/** The records, the metrics, the slots and the memory agree on what happened. */
async function accountsAgree(
  byPath: ReadonlyMap<string, Arrival[][]>,
  residentBefore: number,
): Promise<void> {
  const records = new Map(gateway.records.map((record) => [record["session"], record]));
  const sum: { -readonly [Key in keyof Account]: number } = { resumes: 0, dials: 0, retryingMs: 0 };
  for (const client of clients) {
    const legs = byPath.get(client.path) ?? [];
    const sessions = new Set(legs.flat().map(({ session }) => session));
    expect(sessions.size).toBe(1);
    const [session] = sessions;
    const record = records.get(session);
    const resumes = legs.length - 1;
    expect(record).toMatchObject({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
      messages: { clientToUpstream: client.sent, upstreamToClient: client.echoes.length },
      resumes,
    });
    const dials = Number(record?.["dials"]);
    // A session that is held while a backend is being killed may dial that one in vain.
    expect(dials).toBeGreaterThanOrEqual(1 + resumes);
    sum.dials += dials;
    const retryingMs = Number(record?.["retryingMs"] ?? 0);
    expect(retryingMs).toBeLessThan(resumes * RESUME_LIMIT_MS + 1);
    sum.resumes += resumes;
    sum.retryingMs += retryingMs;
  }
  // Each kill has hit somebody.
  expect(sum.resumes).toBeGreaterThanOrEqual(KILLS);
  const text = await (await fetch(`${gateway.adminUrl}/metrics`)).text();
  const metric = (series: string): number => {
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
    return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
  };
  const dialled = [...text.matchAll(/^softclose_dials_total\{.*\} (\d+)$/gm)];
  expect(dialled.reduce((all, [, count]) => all + Number(count), 0)).toBe(sum.dials);
  const route = 'route="all"';
  expect(metric(`softclose_resumes_total{${route},outcome="resumed"}`)).toBe(sum.resumes);
  expect(metric(`softclose_absorbed_drops_total{${route},outcome="resumed"}`)).toBe(sum.resumes);
  expect(metric(`softclose_absorbed_drops_total{${route},outcome="closed"}`)).toBe(0);
  for (const outcome of ["impossible", "exhausted", "ended"]) {
    expect(metric(`softclose_resumes_total{${route},outcome="${outcome}"}`)).toBe(0);
  }
  expect(metric(`softclose_resume_gap_seconds_count{${route}}`)).toBe(sum.resumes);
  // Each record's own time is rounded to a millisecond.
  const gapMs = 1000 * metric(`softclose_resume_gap_seconds_sum{${route}}`);
  expect(Math.abs(gapMs - sum.retryingMs)).toBeLessThanOrEqual(SESSIONS / 2 + 1);
  await eventually(async () => {
    expect((await gateway.status()).sessions).toBe(0);
    expect(await gateway.slots()).toEqual(backends.map(() => 0));
  });
  expect(gateway.residentBytes() - residentBefore).toBeLessThan(MEMORY_LEFT_BYTES);
  expect(gateway.lines.filter(({ level }) => level === "error")).toEqual([]);
}

describe(`${SESSIONS} sessions, while ${KILLS} backends are killed or frozen`, () => {
  const timeout = FULL ? 180_000 : 60_000;

  it(
    "lose only what was in flight, and repeat nothing, with resend: none",
    async () => {
      await start("none");
      const resident = gateway.residentBytes();
      const outages = await killInTurn();
      await leave();
      const byPath = arrivalsByPath();
      let missing = 0;
      for (const { path, sentAt, echoes } of clients) {
        const legs = (byPath.get(path) ?? []).map((leg) => leg.map(({ number }) => number));
        let next = 0;
        for (const leg of legs) {
          const [first = next] = leg;
          // Only between two upstreams may something be missing, never inside what one got.
          expect(leg).toEqual(leg.map((_, index) => first + index));
          expect(first).toBeGreaterThanOrEqual(next);
          for (let number = next; number < first; number += 1) {
            const at = sentAt[number] ?? Number.NaN;
            const inFlight = outages.some(
              ({ from, to }) => at >= from - SLACK_MS && at <= to + SLACK_MS,
            );
            expect([path, number, inFlight]).toEqual([path, number, true]);
            missing += 1;
          }
          next = first + leg.length;
        }
        expect(next).toBe(sentAt.length);
        expect(echoes).toEqual([...new Set(echoes)].toSorted((a, b) => a - b));
      }
      // Frozen backends have taken something with them, or nothing was tried here.
      expect(missing).toBeGreaterThan(0);
      await accountsAgree(byPath, resident);
    },
    timeout,
  );

  it(
    "lose nothing, and keep the order of first arrival, with resend: unconfirmed",
    async () => {
      await start("unconfirmed");
      const resident = gateway.residentBytes();
      await killInTurn();
      await leave();
      const byPath = arrivalsByPath();
      for (const { path, sent, echoes } of clients) {
        const all = Array.from({ length: sent }, (_, number) => number);
        const legs = (byPath.get(path) ?? []).map((leg) => leg.map(({ number }) => number));
        // A Set keeps the order of first arrival.
        expect([...new Set(legs.flat())]).toEqual(all);
        // What is sent again is sent again in one piece, with what follows it.
        for (const leg of legs) {
          expect(leg).toEqual(leg.map((_, index) => (leg[0] ?? Number.NaN) + index));
        }
        expect(new Set(echoes).size).toBe(sent);
      }
      await accountsAgree(byPath, resident);
    },
    timeout,
  );
});
