/** `slowStart`: a backend that is back fills up bit by bit, however many clients wait for it. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { SlowStart } from "../../src/upstream/slow-start.ts";
import { eventually } from "../support/eventually.ts";
import { livePeers, PoolSetting, poolYaml, servedBy } from "../support/pool-setting.ts";
import { speaksWebSocket } from "../support/probed-backends.ts";
import type { Behaviour } from "../support/raw-upstream.ts";

const CAP = 20;
const RAMP_MS = 2_000;

let setting: PoolSetting;

beforeEach(() => {
  setting = new PoolSetting();
});

afterEach(async () => {
  await setting.stop();
});

it("fills a backend that has recovered over slowStart, never above its cap of the moment", async () => {
  let isIll = true;
  const behaviour: Behaviour = (peer) => {
    const isProbe = peer.head.startsWith("GET /healthz ");
    if (!isProbe || !isIll) speaksWebSocket(peer);
  };
  const [upstream] = await setting.backends(1, behaviour);
  if (upstream === undefined) throw new Error("no upstream");
  const { url } = upstream;
  await setting.start(
    poolYaml({
      urls: [url],
      perBackend: `maxConnections: ${CAP}`,
      pool: `slowStart: ${RAMP_MS}ms, queue: { size: 100, timeout: 1h }, health: { type: websocket, path: /healthz, interval: 150ms, timeout: 150ms, rise: 1, fall: 2 }`,
    }),
  );
  await eventually(() => expect(setting.status(url).up).toBe(false));

  const startedAt = performance.now();
  isIll = false;
  await eventually(() => expect(setting.status(url).up).toBe(true));
  const clients = Array.from({ length: CAP + 10 }, () => setting.knock());
  const ramp = new SlowStart(RAMP_MS);
  // The ramp begins later than this: what it allows by now, this allows, too.
  ramp.begin(startedAt);
  const surplus: number[] = [];
  const steps = new Set<number>();
  await eventually(() => {
    const { connections } = setting.status(url);
    steps.add(connections);
    surplus.push(connections - ramp.capOf(CAP, performance.now()));
    expect(connections).toBe(CAP);
  });
  expect(Math.max(...surplus)).toBeLessThanOrEqual(0);
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(RAMP_MS);
  // Bit by bit, not all at its end.
  expect(steps.size).toBeGreaterThan(5);
  await eventually(() => expect(setting.queueLength).toBe(10));
  for (const client of clients) {
    if (client.raw.head === null) client.raw.reset();
    else client.sendClose(1000);
  }
  await setting.gateway.recorded(CAP + 10);
});

it("gives a backend that joins by a reload few sessions at first", async () => {
  const [old, fresh] = await setting.backends(2);
  if (old === undefined || fresh === undefined) throw new Error("no upstreams");
  const pool = "slowStart: 1h, balance: roundRobin";
  await setting.start(poolYaml({ urls: [old.url], pool }));
  await setting.gateway.reload(poolYaml({ urls: [old.url, fresh.url], pool }));
  const clients = await Promise.all(Array.from({ length: 44 }, () => setting.open()));
  await Promise.all(clients.map(servedBy));
  // A tenth of the other's share.
  expect([livePeers(old).length, livePeers(fresh).length]).toEqual([40, 4]);
  for (const client of clients) client.sendClose(1000);
  await setting.gateway.recorded(44);
});
