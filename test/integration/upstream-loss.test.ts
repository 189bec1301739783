/** The promise itself: however the upstream goes away, the client gets one clean Close. */
import { afterEach, describe, expect, it } from "vitest";
import { CLIENT_KINDS, oneClose } from "../support/clients.ts";
import { closePayload } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, expectWellFormed, readSeries, titled } from "../support/outcome.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

const LOST = oneClose(1014, "upstream connection lost");
const LOST_OUTCOME = {
  cause: "upstreamLost",
  client: { sent: 1014, received: 1014 },
} as const;
const HEARTBEAT =
  "heartbeat: { client: { interval: 0s }, upstream: { interval: 100ms, timeout: 100ms } }\n";
/** Longer than a stall of a busy machine, shorter than the test. */
const PATIENT_HEARTBEAT = HEARTBEAT.replace("timeout: 100ms", "timeout: 300ms");

interface Row {
  readonly title: string;
  readonly does: (peer: UpstreamPeer) => void;
  readonly detail: string;
}

const rows: readonly Row[] = [
  {
    title: "ends TCP without a Close",
    does: (peer) => peer.end(),
    detail: "connection ended without a Close",
  },
  { title: "resets TCP", does: (peer) => peer.reset(), detail: "ECONNRESET" },
];

describe.each(CLIENT_KINDS)("with %s", (_name, open) => {
  it.each(titled(rows))("closes the client with 1014 when the upstream %s", async (_title, row) => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url]));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    row.does(peer);
    expect(await client.ended()).toEqual(LOST);
    await expectOutcome(gateway, { ...LOST_OUTCOME, detail: row.detail });
    expect(gateway.gateway.status().absorbedDrops).toEqual({ closed: 1, resumed: 0 });
    expect(peer.log.closes).toEqual([]);
  });

  it("closes the client with 1014 when the upstream ends right behind its 101", async () => {
    upstream = await RawUpstream.start((peer) => {
      peer.accept();
      peer.end();
    });
    gateway = await startGateway(onePool([upstream.url]));
    expect(await open(gateway.port).ended()).toEqual(LOST);
    await expectOutcome(gateway, { ...LOST_OUTCOME, detail: "connection ended without a Close" });
  });

  it("delivers what the upstream sent before it ended, then the Close", async () => {
    upstream = await RawUpstream.start((peer) => {
      peer.accept();
      for (let i = 0; i < 100; i += 1) peer.sendText(`message ${i}`);
      peer.end();
    });
    gateway = await startGateway(onePool([upstream.url]));
    const client = open(gateway.port);
    expect(await client.ended()).toEqual(LOST);
    expect(client.log.messages.map(String)).toEqual(
      Array.from({ length: 100 }, (_, i) => `message ${i}`),
    );
    const record = await expectOutcome(gateway, LOST_OUTCOME);
    expect(record.messages).toEqual({ clientToUpstream: 0, upstreamToClient: 100 });
  });

  it("closes the client with 1014 when the upstream stops answering pings", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], HEARTBEAT));
    const client = open(gateway.port);
    expect(await client.ended()).toEqual(oneClose(1014, "upstream sent no pong in time"));
    const peer = await upstream.peer();
    // Destroyed at once, although it never answers.
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "no pong in time" }]);
    expect(peer.log.frames.map(({ opcode }) => opcode)).toContain(9);
    await expectOutcome(gateway, {
      cause: "upstreamUnresponsive",
      client: { sent: 1014, received: 1014 },
      upstream: { sent: 1001, received: null },
    });
  });
});

it("keeps a session whose upstream answers pings, and keeps those pongs from the client", async () => {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], PATIENT_HEARTBEAT));
  const [, open] = CLIENT_KINDS[1] ?? CLIENT_KINDS[0]!;
  const client = open(gateway.port);
  await client.opened();
  const peer = (await upstream.peer()).answersClose();
  let answered = 0;
  await new Promise<void>((resolve) => {
    peer.socket.on("data", () => {
      const pings = peer.log.frames.filter(({ opcode }) => opcode === 9);
      for (; answered < pings.length; answered += 1) {
        peer.send({ opcode: 10, payload: pings[answered]?.payload ?? "" });
      }
      if (answered >= 6) resolve();
    });
  });
  client.sendClose(1000);
  expect((await client.ended()).closes).toEqual([{ code: 1000, reason: "" }]);
  expect(client.log.frames).toHaveLength(1);
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
  });
  const series = await readSeries(gateway);
  expect(series("softclose_heartbeat_rtt_seconds_count")['side="upstream"']).toBeGreaterThan(0);
});

it("does not take a reset behind the upstream's Close for a loss", async () => {
  upstream = await RawUpstream.start((peer) => {
    peer.accept();
    peer.socket.write(Buffer.concat([Buffer.from([0x88, 2]), closePayload(4001)]), () =>
      peer.reset(),
    );
  });
  gateway = await startGateway(onePool([upstream.url]));
  const [, open] = CLIENT_KINDS[0]!;
  expect(await open(gateway.port).ended()).toEqual(oneClose(4001));
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ cause: "upstreamClosed", client: { sent: 4001, received: 4001 } });
});
