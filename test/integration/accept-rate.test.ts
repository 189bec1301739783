/** `listeners[].acceptRate`: the surplus of a herd is told when to come back, and what is let in is served. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { LightClient, LightUpstream } from "../support/light-peers.ts";

let upstream: LightUpstream;
let gateway: TestGateway;

beforeEach(async () => {
  upstream = await LightUpstream.start();
});

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

/** `rate` is so low that nothing is earned while a test runs. */
async function start(rate: number, more = ""): Promise<void> {
  gateway = await startGateway(
    `listeners: [{ name: test, bind: "127.0.0.1:0", acceptRate: ${rate} }]\n${onePool([upstream.url])}${more}`,
  );
}

it("lets a second's worth in at once and turns the rest away, to come back one by one", async () => {
  await start(0.01, "retryAfter: { min: 1s, max: 1h, acceptRate: 0.1 }\n");
  const first = new LightClient(gateway.port);
  expect(await first.outcome).toBe("open");
  const surplus = Array.from({ length: 20 }, () => new LightClient(gateway.port));
  const waits: number[] = [];
  for (const client of surplus) {
    const close = await client.outcome;
    expect(close).toMatchObject({ code: 1013 });
    const reason = typeof close === "string" ? close : close.reason;
    waits.push(Number(/; retry-after=(\d+)$/.exec(reason)?.[1]));
    expect(await client.ended).toEqual(close);
    expect(client.closeFrames).toBe(1);
  }
  // One place every 10 s, each rounded up or down.
  waits.sort((a, b) => a - b);
  for (const [place, wait] of waits.entries())
    expect(Math.abs(wait - 1 - 10 * place)).toBeLessThan(5);
  for (const record of await gateway.recorded(20)) {
    expect(record).toMatchObject({
      cause: "capacity",
      detail: "the listener is at its acceptRate",
      refused: true,
      dials: 0,
    });
  }
  expect(upstream.total).toBe(1);
  first.leave();
  expect(await first.ended).toMatchObject({ code: 1000 });
});

it("lets the next ones in as time goes by", async () => {
  await start(20);
  const clients: LightClient[] = [];
  const open = (): number => clients.filter(({ close }) => close === null).length;
  await eventually(async () => {
    const client = new LightClient(gateway.port);
    clients.push(client);
    await client.outcome;
    // More than the burst can only have been earned.
    expect(open()).toBeGreaterThan(25);
  });
  for (const client of clients) client.leave();
  await Promise.all(clients.map(({ ended }) => ended));
});
