/** Hundreds of sessions lose the same backend at once, and the one that is left has a cap. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { startGateway, type TestGateway } from "../support/gateway.ts";
import { LightClient, LightUpstream } from "../support/light-peers.ts";
import { readSeries } from "../support/outcome.ts";

const SESSIONS = 300;
/** Half of all, and some of the others. */
const CAP = 200;

let lost: LightUpstream;
let survivor: LightUpstream;
let gateway: TestGateway;
let clients: LightClient[];
/** Texts that clients have got, by their own words: a survivor's echo shows who is served. */
let served: Set<string>;

beforeEach(async () => {
  served = new Set();
  lost = await LightUpstream.start();
  survivor = await LightUpstream.start({
    onMessage: (_socket, payload) => void served.add(payload.toString()),
  });
});

afterEach(async () => {
  await gateway.stopClean();
  await Promise.all([lost.stop(), survivor.stop()]);
});

/** As many sessions on each backend. */
async function start(session: string): Promise<void> {
  gateway = await startGateway(`
routes: [{ name: all, pool: main }]
pools:
  main:
    backends:
      - { url: "${lost.url}", maxConnections: ${SESSIONS / 2} }
      - { url: "${survivor.url}", maxConnections: ${CAP} }
retry: { session: { enabled: true, ${session} }, backoff: { initial: 100ms, max: 400ms } }
`);
  clients = Array.from({ length: SESSIONS }, () => new LightClient(gateway.port));
  const outcomes = await Promise.all(clients.map(({ outcome }) => outcome));
  expect(new Set(outcomes)).toEqual(new Set(["open"]));
  expect([lost.connections, survivor.connections]).toEqual([SESSIONS / 2, SESSIONS / 2]);
}

const live = (): LightClient[] => clients.filter(({ socket }) => !socket.closed);

/** Every client that is left says something, and all of it reaches the survivor. */
async function everybodyIsServed(): Promise<void> {
  const left = live();
  for (const [index, client] of left.entries()) client.sendText(`client ${index}`);
  await eventually(() => expect(served.size).toBe(left.length));
}

/** All that are left leave; nobody has seen 1006, or two Closes. */
async function leave(): Promise<number[]> {
  for (const client of live()) client.leave();
  const closes = await Promise.all(clients.map(({ ended }) => ended));
  expect(clients.filter(({ closeFrames }) => closeFrames !== 1)).toEqual([]);
  expect(survivor.peak).toBeLessThanOrEqual(CAP);
  await gateway.recorded(SESSIONS);
  const status = gateway.gateway.status();
  expect(status.sessions).toBe(0);
  await eventually(() => expect([gateway.slots, survivor.connections]).toEqual([0, 0]));
  return closes.map((close) => close?.code ?? 1006);
}

const count = (codes: readonly number[], code: number): number =>
  codes.filter((candidate) => candidate === code).length;

async function resumes(): Promise<Record<string, number>> {
  return (await readSeries(gateway))("softclose_resumes_total");
}

describe(`${SESSIONS / 2} sessions that lose their backend, with room for ${CAP - SESSIONS / 2}`, () => {
  it("are resumed up to the cap, and the others told when to come back", async () => {
    await start("attempts: 100, timeout: 2s");
    await lost.stop();
    const turnedAway = SESSIONS - CAP;
    await eventually(() => expect(live()).toHaveLength(CAP));
    expect(await resumes()).toEqual({
      'route="all",outcome="resumed"': CAP - SESSIONS / 2,
      'route="all",outcome="exhausted"': turnedAway,
    });
    expect(survivor.connections).toBe(CAP);
    expect(survivor.total).toBe(CAP);
    await everybodyIsServed();
    const codes = await leave();
    expect([count(codes, 1013), count(codes, 1000)]).toEqual([turnedAway, CAP]);
    const told = clients.flatMap(({ close }) => (close?.code === 1013 ? [close.reason] : []));
    expect(told.filter((reason) => !/; retry-after=\d+$/.test(reason))).toEqual([]);
    const causes = gateway.records.map(({ cause }) => cause);
    expect(causes.filter((cause) => cause === "retryExhausted")).toHaveLength(turnedAway);
    expect(causes.filter((cause) => cause === "clientClosed")).toHaveLength(CAP);
  });

  it("all stay where others leave in time: each free place is taken, none twice", async () => {
    await start("attempts: 1000, timeout: 20s");
    await lost.stop();
    await eventually(() => expect(survivor.connections).toBe(CAP));
    // Whoever goes leaves a place, or was waiting for one: no other becomes free.
    const leaving = clients.filter((_, index) => index % 2 === 1).slice(0, SESSIONS - CAP);
    for (const client of leaving) {
      client.leave();
      // oxlint-disable-next-line no-await-in-loop -- one after the other is the point
      await client.ended;
    }
    const still = SESSIONS - leaving.length;
    await eventually(() => {
      const { open } = states();
      expect(open).toBe(still);
    });
    expect(live()).toHaveLength(still);
    await everybodyIsServed();
    const codes = await leave();
    expect(count(codes, 1000)).toBe(SESSIONS);
    expect(Object.keys(await resumes())).not.toContain('route="all",outcome="exhausted"');
  });

  it("leave no slot and no session behind where clients go in the middle of it", async () => {
    await start("attempts: 1000, timeout: 20s");
    await lost.stop();
    for (const [index, client] of clients.entries()) {
      if (index % 3 === 0) client.leave();
      if (index % 3 === 1) client.socket.resetAndDestroy();
    }
    await eventually(() => {
      const { open, retrying } = states();
      expect([open, retrying]).toEqual([SESSIONS / 3, 0]);
    });
    expect(gateway.slots).toBe(SESSIONS / 3);
    await everybodyIsServed();
    for (const client of live()) client.leave();
    await gateway.recorded(SESSIONS);
    expect(survivor.peak).toBeLessThanOrEqual(CAP);
    const causes = new Set(gateway.records.map(({ cause }) => cause));
    expect(causes).toEqual(new Set(["clientClosed", "clientLost"]));
  });
});

function states(): { open: number; retrying: number } {
  const all = gateway.gateway.sessions(SESSIONS).map(({ state }) => state);
  return {
    open: all.filter((state) => state === "open").length,
    retrying: all.filter((state) => state === "retrying").length,
  };
}
