/** Peers that are alive but do not read: nobody waits for them for ever, and who still reads gets all. */
import { afterEach, expect, it } from "vitest";
import { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

/** Fits into the kernel's buffers: nothing of it waits where the gateway could see it. */
const BURST_BYTES = 48 * 32_768;

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

it("lets a slow client that goes on sending read everything up to its Close", async () => {
  upstream = await RawUpstream.start();
  const limits = "limits: { slowConsumerTimeout: 15s }\nclose: { timeout: 200ms }\n";
  gateway = await startGateway(onePool([upstream.url], limits));
  const client = new RawClient(gateway.port);
  expect(await client.answered()).toBe(101);
  client.socket.pause();
  const peer = await upstream.peer();
  for (let sent = 0; sent < BURST_BYTES; sent += 32_768) {
    peer.send({ opcode: 2, payload: Buffer.alloc(32_768) });
  }
  peer.sendClose(4001, "done");
  // Takes one chunk now and then, and has always something to say.
  const rest = (): void => void client.socket.pause();
  client.socket.on("data", rest);
  const reading = setInterval(() => {
    client.sendText("still here");
    client.socket.resume();
  }, 40);
  await eventually(
    () => expect(client.log.closes).toEqual([{ code: 4001, reason: "done" }]),
    15_000,
  );
  clearInterval(reading);
  client.socket.off("data", rest);
  client.socket.resume();
  client.sendClose(4001);
  expect(await client.ended()).toBe("fin");
  expect(client.log.messages).toHaveLength(BURST_BYTES / 32_768);
  expect(client.log.torn).toHaveLength(0);
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ cause: "upstreamClosed", client: { sent: 4001, received: 4001 } });
});

it("gives up an upstream that sends and never reads, so that the client's Close is answered", async () => {
  upstream = await RawUpstream.start();
  const limits = "limits: { slowConsumerTimeout: 300ms }\nclose: { timeout: 300ms }\n";
  const heartbeat = "heartbeat: { upstream: { interval: 100ms, timeout: 200ms } }\n";
  gateway = await startGateway(onePool([upstream.url], limits + heartbeat));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await upstream.peer();
  peer.socket.pause();
  const talking = setInterval(() => peer.sendText("I talk"), 20);
  for (let sent = 0; sent < 16 * 1024 * 1024; sent += 65_536) {
    client.raw.send({ opcode: 2, payload: Buffer.alloc(65_536) });
  }
  client.raw.sendClose(1000);
  const [record] = await gateway.recorded();
  clearInterval(talking);
  expect(record).toMatchObject({ cause: "upstreamUnresponsive", client: { sent: 1014 } });
  expect(client.log.closes).toEqual([{ code: 1014, reason: "upstream sent no pong in time" }]);
});
