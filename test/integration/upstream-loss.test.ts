/** The promise itself: whatever happens to the upstream, the client gets one clean Close. */
import { afterEach, expect, it } from "vitest";
import { WebSocket } from "ws";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

it("closes the client with 1014 when the upstream resets", async () => {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url]));
  const client = new WebSocket(gateway.url());
  const closed = new Promise<[number, string]>((resolve) => {
    client.on("close", (code, reason) => resolve([code, reason.toString()]));
  });
  await new Promise((resolve) => client.on("open", resolve));
  (await upstream.peer()).reset();
  expect(await closed).toEqual([1014, "upstream connection lost"]);
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ cause: "upstreamLost", client: { sent: 1014, received: 1014 } });
});
