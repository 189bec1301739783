/** The gateway's own pings on both legs: invisible to the other side, and the end of a dead peer. */
import { afterEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

const PING = 0x9;
const PONG = 0xa;

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

type End = RawClient | UpstreamPeer;

interface Ends {
  readonly client: RawClient;
  readonly peer: UpstreamPeer;
}

async function open(yaml: string): Promise<Ends> {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], yaml));
  const client = new RawClient(gateway.port);
  expect(await client.answered()).toBe(101);
  return { client, peer: await upstream.peer() };
}

function heartbeat(client: string, peer: string): string {
  return `heartbeat: { client: { ${client} }, upstream: { ${peer} } }\n`;
}

function seen(end: End, opcode: number): Buffer[] {
  return end.log.frames.filter((frame) => frame.opcode === opcode).map(({ payload }) => payload);
}

/** Answers every ping from here on, as a library does. */
function answerPings(end: End): void {
  let answered = seen(end, PING).length;
  end.socket.on("data", () => {
    const pings = seen(end, PING);
    for (const payload of pings.slice(answered)) end.send({ opcode: PONG, payload });
    answered = pings.length;
  });
}

async function closeCleanly({ client, peer }: Ends): Promise<void> {
  client.sendClose(1000);
  await peer.log.frame(8);
  peer.sendClose(1000);
  peer.end();
  await client.ended();
  expect(client.log.closes).toMatchObject([{ code: 1000 }]);
}

/** More than all buffers between the ends hold. */
async function flood(from: End): Promise<void> {
  while (from.socket.writableLength < 2 ** 22) {
    for (let i = 0; i < 32; i += 1) from.send({ opcode: 2, payload: Buffer.alloc(60_000, 1) });
    await new Promise((resolve) => setImmediate(resolve));
  }
}

describe("a heartbeat", () => {
  it("pings both legs again and again, takes the pongs, and shows the other side nothing of it", async () => {
    const ends = await open(heartbeat("interval: 100ms", "interval: 150ms"));
    answerPings(ends.client);
    answerPings(ends.peer);
    await eventually(() => expect(seen(ends.client, PING).length).toBeGreaterThanOrEqual(4));
    await eventually(() => expect(seen(ends.peer, PING).length).toBeGreaterThanOrEqual(4));
    expect(seen(ends.client, PONG)).toEqual([]);
    expect(seen(ends.peer, PONG)).toEqual([]);
    expect(ends.client.log.messages).toEqual([]);
    expect(ends.peer.log.messages).toEqual([]);
    // Each ping has a payload of its own.
    const payloads = [...seen(ends.client, PING), ...seen(ends.peer, PING)];
    expect(new Set(payloads.map((payload) => payload.toString("hex"))).size).toBe(payloads.length);
    await closeCleanly(ends);
    for (const side of ["client", "upstream"]) {
      const series = `softclose_heartbeat_rtt_seconds_count{side="${side}"}`;
      expect(await gateway.metric(series)).toBeGreaterThanOrEqual(3);
    }
  });

  it("masks its pings to the upstream and no others", async () => {
    const ends = await open(heartbeat("interval: 100ms", "interval: 100ms"));
    const toPeer = await ends.peer.log.frame(PING);
    const toClient = await ends.client.log.frame(PING);
    expect(toPeer.mask).not.toBeNull();
    expect(toClient.mask).toBeNull();
    await closeCleanly(ends);
  });

  it("of 0s is off, leg by leg", async () => {
    const ends = await open(heartbeat("interval: 0s, timeout: 50ms", "interval: 100ms"));
    await eventually(() => expect(seen(ends.peer, PING).length).toBeGreaterThanOrEqual(4));
    expect(ends.client.log.frames).toEqual([]);
    await closeCleanly(ends);
  });
});

describe("pings and pongs of the ends", () => {
  it("go end to end, with exactly one pong for each ping", async () => {
    const ends = await open(heartbeat("interval: 100ms", "interval: 100ms"));
    answerPings(ends.client);
    answerPings(ends.peer);
    ends.client.send({ opcode: PING, payload: "from the client" });
    ends.peer.send({ opcode: PING, payload: "from the upstream" });
    ends.client.send({ opcode: PING });
    await eventually(() => expect(seen(ends.client, PONG)).toHaveLength(2));
    await eventually(() => expect(seen(ends.peer, PONG)).toHaveLength(1));
    // A round of heartbeats later nothing has been added.
    const pings = seen(ends.peer, PING).length;
    await eventually(() => expect(seen(ends.peer, PING).length).toBeGreaterThan(pings + 2));
    expect(seen(ends.client, PONG).map(String)).toEqual(["from the client", ""]);
    expect(seen(ends.peer, PONG).map(String)).toEqual(["from the upstream"]);
    await closeCleanly(ends);
  });

  it("that answer nothing pass as well", async () => {
    const ends = await open("");
    ends.client.send({ opcode: PONG, payload: "unasked" });
    ends.peer.send({ opcode: PONG, payload: Buffer.alloc(12, 1) });
    await eventually(() => expect(seen(ends.peer, PONG).map(String)).toEqual(["unasked"]));
    await eventually(() => expect(seen(ends.client, PONG)).toEqual([Buffer.alloc(12, 1)]));
    await closeCleanly(ends);
  });

  it("work for a library that was told nothing of the gateway", async () => {
    upstream = await RawUpstream.start((peer) => {
      answerPings(peer);
      peer.accept();
    });
    gateway = await startGateway(
      onePool([upstream.url], heartbeat("interval: 50ms, timeout: 1s", "interval: 50ms")),
    );
    const client = new WebSocket(gateway.url());
    await new Promise((resolve) => client.once("open", resolve));
    const pongs: string[] = [];
    client.on("pong", (data) => pongs.push(data.toString()));
    client.ping("hello");
    await eventually(() => expect(pongs).toEqual(["hello"]));
    const series = 'softclose_heartbeat_rtt_seconds_count{side="client"}';
    await eventually(async () => expect(await gateway.metric(series)).toBeGreaterThan(3));
    expect(pongs).toEqual(["hello"]);
    client.terminate();
    const peer = await upstream.peer();
    await peer.log.frame(8);
    peer.end();
    await gateway.recorded();
  });
});

describe("no life for the timeout", () => {
  it("on the client's leg ends the session with 1001 on both, and the client is destroyed", async () => {
    const { client, peer } = await open(
      heartbeat("interval: 100ms, timeout: 300ms", "interval: 0s"),
    );
    await client.ended();
    expect(client.log.closes).toEqual([{ code: 1001, reason: "no pong in time" }]);
    await eventually(() =>
      expect(peer.log.closes).toEqual([{ code: 1001, reason: "client sent no pong in time" }]),
    );
    peer.sendClose(1001);
    peer.end();
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({
      cause: "clientUnresponsive",
      client: { sent: 1001, received: null },
      upstream: { sent: 1001, received: 1001 },
    });
    // Only silence counts: at least one ping has been left without an answer for that long.
    expect(record?.durationMs).toBeGreaterThanOrEqual(350);
  });

  it("on the upstream's leg ends it with 1014 for the client, and the upstream is destroyed", async () => {
    const { client, peer } = await open(
      heartbeat("interval: 0s", "interval: 100ms, timeout: 300ms"),
    );
    await eventually(() =>
      expect(client.log.closes).toEqual([{ code: 1014, reason: "upstream sent no pong in time" }]),
    );
    await peer.ended();
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "no pong in time" }]);
    client.sendClose(1014);
    await client.ended();
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "upstreamUnresponsive" });
    const drops = 'softclose_absorbed_drops_total{route="all",outcome="closed"}';
    expect(await gateway.metric(drops)).toBe(1);
  });

  it("does not come about while any byte comes, even of a frame that is never finished", async () => {
    const ends = await open(
      heartbeat("interval: 100ms, timeout: 300ms", "interval: 100ms, timeout: 300ms"),
    );
    // The header of a frame of 60,000 bytes, and then its payload in drops.
    ends.client.socket.write(Buffer.from([0x82, 0xfe, 0xea, 0x60, 0, 0, 0, 0]));
    ends.peer.socket.write(Buffer.from([0x82, 0x7e, 0xea, 0x60]));
    const dripping = setInterval(() => {
      ends.client.socket.write(Buffer.from([1]));
      ends.peer.socket.write(Buffer.from([1]));
    }, 20);
    await eventually(() => {
      expect(gateway.gateway.sessions(1)[0]?.ageMs).toBeGreaterThan(1_000);
    });
    expect(gateway.records).toEqual([]);
    clearInterval(dripping);
    await ends.client.ended();
    await eventually(() => expect(ends.peer.log.closes).toHaveLength(1));
    ends.peer.socket.destroy();
    ends.client.socket.destroy();
    await gateway.recorded();
  });
});

describe("flow control", () => {
  it("that stops reading an upstream suspends the judgement on it", async () => {
    const ends = await open(
      `${heartbeat("interval: 0s", "interval: 50ms, timeout: 150ms")}limits: { slowConsumerTimeout: 1s }\n`,
    );
    ends.client.socket.pause();
    await flood(ends.peer);
    // The upstream answers no ping: it is not read, so it could not be heard.
    await eventually(() => expect(ends.peer.log.closes).toHaveLength(1));
    expect(ends.peer.log.closes).toMatchObject([{ reason: "client takes data too slowly" }]);
    ends.client.socket.destroy();
    ends.peer.socket.destroy();
    expect(await gateway.recorded()).toMatchObject([{ cause: "slowConsumer" }]);
  });

  it("that stops reading a client suspends the judgement on it, and the upstream is judged", async () => {
    const ends = await open(
      heartbeat("interval: 50ms, timeout: 150ms", "interval: 300ms, timeout: 800ms"),
    );
    ends.peer.socket.pause();
    await flood(ends.client);
    await eventually(() => expect(ends.client.log.closes).toHaveLength(1));
    expect(ends.client.log.closes).toMatchObject([
      { code: 1014, reason: "upstream sent no pong in time" },
    ]);
    ends.client.socket.destroy();
    ends.peer.socket.destroy();
    expect(await gateway.recorded()).toMatchObject([{ cause: "upstreamUnresponsive" }]);
  });
});

describe("payload: text", () => {
  const yaml = heartbeat(
    'interval: 100ms, timeout: 100ms, payload: text, text: "tick"',
    "interval: 0s",
  );

  it("sends that message, expects no answer, and shows the upstream nothing of it", async () => {
    const ends = await open(yaml);
    await eventually(() => expect(ends.client.log.messages.length).toBeGreaterThanOrEqual(4));
    expect(new Set(ends.client.log.messages.map(String))).toEqual(new Set(["tick"]));
    expect(seen(ends.client, PING)).toEqual([]);
    expect(ends.peer.log.frames).toEqual([]);
    await closeCleanly(ends);
  });

  it("goes between messages only, never into a fragmented one", async () => {
    const ends = await open(yaml);
    await eventually(() => expect(ends.client.log.messages.length).toBeGreaterThanOrEqual(1));
    ends.peer.send({ opcode: 1, fin: false, payload: "begun " });
    await eventually(() => expect(ends.client.log.frames.at(-1)?.fin).toBe(false));
    const before = ends.client.log.frames.length;
    await eventually(() => expect(gateway.gateway.sessions(1)[0]?.idleMs).toBeGreaterThan(350));
    expect(ends.client.log.frames).toHaveLength(before);
    ends.peer.send({ opcode: 0, payload: "and ended" });
    await eventually(() =>
      expect(ends.client.log.messages.slice(-2).map(String)).toEqual(["begun and ended", "tick"]),
    );
    await closeCleanly(ends);
  });
});
