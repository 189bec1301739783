/**
 * Links that are bad but not dead: they lose packets, take their time, or bring bytes one by one. Nobody
 * may notice: all messages arrive, whole and in order, and every end is the one that its side chose.
 */
import { describe, expect, it, type TestContext } from "vitest";
import { eventually, LONG_MS } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import {
  cleanEnd,
  type FarClient,
  type FaultSetting,
  FileNetwork,
  heartbeats,
  SESSION_RETRY,
} from "./support/fault-setting.ts";
import { MECHANISM, PACKETS } from "./support/network.ts";

const DELAY_MS = 200;
/** Packets are lost several times in a row now and then, and each time TCP waits twice as long. */
const HEARTBEATS = heartbeats("interval: 500ms, timeout: 8s");
/** Payload sizes at which the frame's header changes its form, and those of everyday. */
const SIZES = [0, 1, 125, 126, 1_000];

const network = new FileNetwork();

interface Side {
  readonly title: string;
  readonly side: "client" | "upstream";
  readonly more: string;
}

const SIDES: readonly Side[] = [
  { title: "on the client's side", side: "client", more: "" },
  { title: "on the upstream's side", side: "upstream", more: "" },
  { title: "on the upstream's side, with session retry", side: "upstream", more: SESSION_RETRY },
];

/** Numbered, so that one that is missing, torn or out of order shows. */
function numbered(count: number): string[] {
  return Array.from({ length: count }, (_, number) =>
    `${number} `.padEnd(SIZES[number % SIZES.length] ?? 0, "."),
  );
}

function start(context: TestContext, { more }: Side): Promise<FaultSetting> {
  return network.start(context, { closeTimeout: "10s", more: HEARTBEATS + more });
}

async function converse(client: FarClient, count: number): Promise<void> {
  const messages = numbered(count);
  for (const message of messages) client.sendText(message);
  expect(await client.messagesReceived(count)).toEqual(messages);
}

/** Two sessions, each with so many messages there and back. */
async function converseTwice(setting: FaultSetting, count: number): Promise<FarClient[]> {
  const clients = [await setting.open(), await setting.open()];
  await Promise.all(clients.map((client) => converse(client, count)));
  return clients;
}

/** The client ends the first of two sessions, and the upstream the other. */
async function expectGoodEnds(
  setting: FaultSetting,
  [first, second]: readonly FarClient[],
  count: number,
): Promise<void> {
  expect(setting.gateway.records).toEqual([]);
  first?.sendClose(1000, "done");
  expect(await first?.finished()).toEqual(cleanEnd(1000, "done"));
  const [upstreamOfFirst, upstreamOfSecond] = [await setting.peer(0, 0), await setting.peer(0, 1)];
  expect(upstreamOfFirst.log.closes).toEqual([{ code: 1000, reason: "done" }]);
  const byClient = { sent: 1000, received: 1000 };
  const firstAccount = { cause: "clientClosed", client: byClient, upstream: byClient } as const;
  await eventually(() => expect(setting.gateway.records).toMatchObject([firstAccount]), LONG_MS);

  upstreamOfSecond.sendClose(4000, "moved");
  expect(await second?.finished()).toEqual(cleanEnd(4000, "moved"));
  const byUpstream = { sent: 4000, received: 4000 };
  const record = await setting.expectAccount(
    { cause: "upstreamClosed", client: byUpstream, upstream: byUpstream },
    1,
  );
  expect(record).toMatchObject({
    messages: { clientToUpstream: count, upstreamToClient: count },
  });
  // It stands there only if there is something.
  expect(record).not.toHaveProperty("dropped");
  // A link that is bad is not a loss that was absorbed, nor an outage.
  expect(await setting.absorbed("closed")).toBe(0);
  expect(await setting.absorbed("resumed")).toBe(0);
}

describe.concurrent(`A link (${MECHANISM}) that takes 200 ms each way`, () => {
  it.for(titled(SIDES))("delays messages, pongs and Closes only, %s", async ([, row], context) => {
    const setting = await start(context, row);
    await setting.path[row.side].delay(DELAY_MS);
    const clients = await converseTwice(setting, 20);
    await eventually(async () => {
      expect((await setting.heartbeats(row.side)).count).toBeGreaterThanOrEqual(6);
    }, LONG_MS);
    const { count, seconds } = await setting.heartbeats(row.side);
    expect(seconds / count).toBeGreaterThanOrEqual((2 * DELAY_MS) / 1000);
    await expectGoodEnds(setting, clients, 20);
  });
});

describe.concurrent(`A link (${MECHANISM}) that brings bytes one by one`, () => {
  it.for(titled(SIDES))("carries handshakes, frames and Closes, %s", async ([, row], context) => {
    const setting = await start(context, row);
    const link = setting.path[row.side];
    await link.segment(1);
    // Slow enough that the gateway, too, reads a few bytes at a time.
    await link.rate(200_000);
    await expectGoodEnds(setting, await converseTwice(setting, 10), 10);
    const bytes = setting.gateway.records
      .flatMap((record) => Object.values(Object(record["bytes"])))
      .reduce((sum: number, value) => sum + Number(value), 0);
    expect((await link.counts()).carried).toBeGreaterThan(bytes);
  });
});

describe.skipIf(lacks(PACKETS))(`A link (${MECHANISM}) that loses 5 % of its packets`, () => {
  it.concurrent.for(titled(SIDES))("loses no message, %s", async ([, row], context) => {
    const setting = await start(context, row);
    const link = setting.path[row.side];
    await link.lose(0.05);
    await expectGoodEnds(setting, await converseTwice(setting, 300), 300);
    expect((await link.counts()).lost).toBeGreaterThan(0);
  });
});
