/** Session retry: the upstream dies, the client stays. */
import { afterEach, expect, it } from "vitest";
import { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { startGateway, type TestGateway } from "../support/gateway.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstreams: RawUpstream[] = [];
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await Promise.all(upstreams.map((upstream) => upstream.stop()));
  upstreams = [];
});

async function start(session = "", backends = 2): Promise<void> {
  upstreams = await Promise.all(
    Array.from({ length: backends }, () =>
      RawUpstream.start((peer) => peer.answersClose().accept()),
    ),
  );
  const urls = upstreams.map(({ url }) => `{ url: "${url}" }`).join(", ");
  gateway = await startGateway(`
routes: [{ name: all, pool: main }]
pools: { main: { backends: [${urls}] } }
retry: { session: { enabled: true, ${session} }, backoff: { initial: 100ms, max: 200ms } }
`);
}

/** The upstream peer that serves the session now. */
function serving(count = 1) {
  return eventually(() => {
    const peers = upstreams.flatMap(({ peers: all }) => all).filter(({ head }) => head !== "");
    const live = peers.find(({ ending }) => ending === null);
    if (peers.length < count || live === undefined) throw new Error("none yet");
    return live;
  });
}

it("keeps the client over a reset of its upstream and relays on", async () => {
  await start();
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const first = await serving();
  client.sendText("one");
  await first.log.received(1);
  first.sendText("hello from one");
  await client.log.received(1);
  first.reset();
  const second = await serving(2);
  client.sendText("two");
  expect((await second.log.received(1)).map(String)).toEqual(["two"]);
  second.sendText("hello from two");
  expect((await client.log.received(2)).map(String)).toEqual(["hello from one", "hello from two"]);
  expect(second.header("softclose-resume")).toBe("1");
  expect(second.header("softclose-session")).toBe(first.header("softclose-session"));
  client.sendClose(1000);
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ cause: "clientClosed", resumes: 1, dials: 2 });
  expect(gateway.gateway.status().absorbedDrops).toEqual({ closed: 0, resumed: 1 });
  expect(client.log.closes).toEqual([{ code: 1000, reason: "" }]);
});

it("keeps what the client sends meanwhile, in order, and answers its pings", async () => {
  await start("", 1);
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  (await serving()).reset();
  for (let i = 0; i < 5; i += 1) client.sendText(`message ${i}`);
  client.raw.send({ opcode: 9, payload: "are you there" });
  expect((await client.log.frame(0xa)).payload.toString()).toBe("are you there");
  const second = await serving(2);
  const messages = (await second.log.received(5)).map(String);
  expect(messages).toEqual(["message 0", "message 1", "message 2", "message 3", "message 4"]);
  client.sendClose(1000);
  await gateway.recorded();
});

it("gives up with 1013 and a time to come back when nobody answers any more", async () => {
  await start("attempts: 2, timeout: 2s", 1);
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await serving();
  await upstreams[0]?.stop();
  peer.reset();
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ cause: "retryExhausted", resumes: 0, dials: 3 });
  expect(client.log.closes).toMatchObject([{ code: 1013 }]);
  expect(client.log.closes[0]?.reason).toMatch(/; retry-after=\d+$/);
});
