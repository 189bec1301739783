/** A client that takes nothing of what is sent to it is judged by `limits.slowConsumerTimeout`. */
import { describe, expect, it } from "vitest";
import { eventually, LONG_MS } from "../support/eventually.ts";
import { FileNetwork, heartbeats } from "./support/fault-setting.ts";
import { MECHANISM } from "./support/network.ts";

/** More than all buffers on its way hold. */
const MESSAGE = Buffer.alloc(16 * 2 ** 20);
const network = new FileNetwork();

describe.concurrent(`A client (${MECHANISM}) that takes nothing`, () => {
  const account = { cause: "slowConsumer", client: { sent: 1008 } } as const;
  const upstream = { sent: 1001, received: 1001 };
  // Until the buffers are full it takes something, and answers no ping: the heartbeat must not come first.
  const more =
    "limits: { slowConsumerTimeout: 1500ms, maxMessageSize: 64MiB }\n" +
    heartbeats("interval: 500ms, timeout: 15s");

  it("as it does not read, is closed with 1008, which it finds when it reads on", async (context) => {
    const setting = await network.start(context, { closeTimeout: "10s", more });
    const client = await setting.openEchoing();
    const peer = await setting.peer();
    client.socket.pause();
    peer.send({ opcode: 2, payload: MESSAGE });
    await eventually(() => peer.log.frame(8), LONG_MS);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client takes data too slowly" }]);
    client.socket.resume();
    // Whether it can still answer is chance: the gateway has let go of it behind its Close.
    const { told, closes, tornBytes } = await client.finished();
    const close = { code: 1008, reason: "takes data too slowly" };
    expect({ told, closes, tornBytes }).toEqual({ told: close, closes: [close], tornBytes: 0 });
    await setting.expectAccount({ ...account, upstream });
  });

  it("as its link is down, is closed as well, and nothing is left of it", async (context) => {
    const setting = await network.start(context, { closeTimeout: "3s", more });
    await setting.openEchoing();
    const peer = await setting.peer();
    await setting.path.client.down();
    peer.send({ opcode: 2, payload: MESSAGE });
    await eventually(() => peer.log.frame(8), LONG_MS);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client takes data too slowly" }]);
    await setting.expectAccount({ ...account, client: { sent: 1008, received: null }, upstream });
  });
});
