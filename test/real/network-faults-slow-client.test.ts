/** A client at the end of a link that brings 1 kB/s: it costs time, neither its session nor memory. */
import { describe, expect, it } from "vitest";
import { lacks } from "../support/programs.ts";
import {
  cleanEnd,
  type FaultSetting,
  FileNetwork,
  heartbeats,
  lasts,
} from "./support/fault-setting.ts";
import { MECHANISM, PACKETS } from "./support/network.ts";

const MIB = 2 ** 20;
const MESSAGE = Buffer.alloc(16 * MIB, Buffer.from("0123456789abcdefghijklmnopqrstuvwxyz"));
/** Half of the message. */
const MAX_GROWTH_BYTES = 8 * MIB;
const SLOW_CONSUMER_MS = 6_000;
const BYTES_PER_SECOND = 1_000;

const network = new FileNetwork();

async function bytesToClient({ gateway }: FaultSetting): Promise<number> {
  const [session] = await gateway.sessions();
  return session?.bytes.upstreamToClient ?? 0;
}

describe.skipIf(lacks(PACKETS))(`A client (${MECHANISM}) that gets 1 kB/s`, () => {
  it("keeps its session for as long as it takes something, and a message of 16 MiB arrives whole", async (context) => {
    const setting = await network.start(context, {
      hasNarrowClientLink: true,
      closeTimeout: "10s",
      more:
        `limits: { slowConsumerTimeout: ${SLOW_CONSUMER_MS}ms, maxMessageSize: 64MiB }\n` +
        heartbeats("interval: 1s, timeout: 3s"),
    });
    await setting.path.client.rate(BYTES_PER_SECOND);
    const client = await setting.openEchoing();
    const peer = await setting.peer();
    const freshBytes = setting.gateway.residentBytes();
    peer.send({ opcode: 2, payload: MESSAGE });
    await lasts(2.5 * SLOW_CONSUMER_MS);
    expect(await setting.gateway.sessions()).toMatchObject([{ state: "open" }]);
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
