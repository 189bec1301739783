/**
 * A client at the end of a link that brings 1 kB/s, and one that takes nothing: the first costs time, the
 * second its session, and neither costs memory.
 */
import { describe, expect, it } from "vitest";
import { eventually, LONG_MS } from "../support/eventually.ts";
import {
  cleanEnd,
  type FaultSetting,
  FileNetwork,
  heartbeats,
  lasts,
  NEAR,
} from "./support/fault-setting.ts";
import { MECHANISM } from "./support/network.ts";

const MIB = 2 ** 20;
const MESSAGE = Buffer.alloc(32 * MIB, Buffer.from("0123456789abcdefghijklmnopqrstuvwxyz"));
/** Half of the message. */
const MAX_GROWTH_BYTES = 16 * MIB;
const SLOW_CONSUMER_MS = 8_000;
const BYTES_PER_SECOND = 1_000;

const network = new FileNetwork();

function limits(slowConsumerTimeoutMs: number): string {
  return `limits: { slowConsumerTimeout: ${slowConsumerTimeoutMs}ms, maxMessageSize: 64MiB }\n`;
}

const SLOW_LINK = {
  backends: [NEAR],
  // As on a serial line. A packet of 1500 bytes would take longer than TCP is used to wait.
  mtuBytes: 576,
  // The gateway sees that a client takes something when the kernel has room again.
  gatewaySendBufferBytes: 16_384,
  closeTimeout: "10s",
} as const;

async function bytesToClient({ gateway }: FaultSetting): Promise<number> {
  const [session] = await gateway.sessions();
  return session?.bytes.upstreamToClient ?? 0;
}

describe.concurrent(`A client (${MECHANISM}) that gets 1 kB/s`, () => {
  it("keeps its session for as long as it takes something, and a message of 32 MiB arrives whole", async (context) => {
    const setting = await network.start(context, {
      ...SLOW_LINK,
      more: limits(SLOW_CONSUMER_MS) + heartbeats("interval: 1s, timeout: 3s"),
    });
    const client = await setting.openEchoing();
    const peer = await setting.peer();
    const freshBytes = setting.gateway.residentBytes();
    await setting.path.client.rate(BYTES_PER_SECOND);
    peer.send({ opcode: 2, payload: MESSAGE });
    await lasts(2.5 * SLOW_CONSUMER_MS);
    expect(setting.gateway.records).toEqual([]);
    expect(client.log.closes).toEqual([]);
    const growth = setting.gateway.residentBytes() - freshBytes;
    expect(growth).toBeLessThan(MAX_GROWTH_BYTES);
    expect(await bytesToClient(setting)).toBeLessThan(MAX_GROWTH_BYTES);

    await setting.path.client.rate(0);
    await client.messagesReceived(2);
    expect(client.log.messages[1]?.equals(MESSAGE)).toBe(true);
    client.sendClose(1000, "done");
    expect(await client.finished()).toEqual(cleanEnd(1000, "done"));
    await setting.expectAccount({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
  });
});

describe.concurrent(`A client (${MECHANISM}) that takes nothing`, () => {
  const account = { cause: "slowConsumer", client: { sent: 1008 } } as const;
  const upstream = { sent: 1001, received: 1001 };
  const more = limits(1_500) + heartbeats("interval: 500ms, timeout: 1s");

  it("as it does not read, is closed with 1008, which it finds when it reads on", async (context) => {
    const setting = await network.start(context, { ...SLOW_LINK, more });
    const client = await setting.openEchoing();
    const peer = await setting.peer();
    client.socket.pause();
    peer.send({ opcode: 2, payload: MESSAGE });
    await eventually(() => peer.log.frame(8), LONG_MS);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client takes data too slowly" }]);
    client.socket.resume();
    const { told, closes, tornBytes, wasClean } = await client.finished();
    expect(closes).toEqual([{ code: 1008, reason: "takes data too slowly" }]);
    expect({ ...told, tornBytes, wasClean }).toEqual({
      code: 1008,
      reason: "takes data too slowly",
      tornBytes: 0,
      wasClean: true,
    });
    await setting.expectAccount({ ...account, upstream });
  });

  it("as its link is down, is closed as well, and nothing is left of it", async (context) => {
    const setting = await network.start(context, { ...SLOW_LINK, closeTimeout: "1s", more });
    await setting.openEchoing();
    const peer = await setting.peer();
    await setting.path.client.down();
    peer.send({ opcode: 2, payload: MESSAGE });
    await eventually(() => peer.log.frame(8), LONG_MS);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client takes data too slowly" }]);
    await setting.expectAccount({ ...account, client: { sent: 1008, received: null }, upstream });
  });
});
