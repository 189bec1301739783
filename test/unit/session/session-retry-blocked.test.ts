/**
 * Session retry where the client takes nothing: what only a socket under full control shows. The lost
 * upstream is a fake, too; the next one is real, and so is the time.
 */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { loadConfig } from "../../../src/config/load.ts";
import type { Redial } from "../../../src/session/session-retry.ts";
import { Pool } from "../../../src/upstream/pool.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { eventually } from "../../support/eventually.ts";
import { closePayload, type FrameSpec } from "../../support/frames.ts";
import { RawUpstream } from "../../support/raw-upstream.ts";
import { FakeSocket, routeOf, SessionBench } from "./fake-socket.ts";

const MASK = Buffer.from([9, 8, 7, 6]);
const SIZE = 16 * 1024;
const COUNT = 1024;

let bench: SessionBench;
let next: RawUpstream;

beforeEach(async () => {
  bench = new SessionBench();
  next = await RawUpstream.start((peer) => peer.answersClose().accept());
});

afterEach(async () => {
  bench.wheel.stop();
  await next.stop();
});

function redial(): Redial {
  const result = loadConfig(
    `listeners: [{ name: l, bind: "127.0.0.1:0" }]
routes: [{ name: all, pool: main }]
pools: { main: { backends: [{ url: "${next.url}" }] } }
`,
    { file: "unit.yaml", env: {} },
  );
  const pool = "config" in result ? result.config.pools[0] : undefined;
  if (pool === undefined) throw new Error(JSON.stringify(result));
  const made = new Pool(pool, { now: () => performance.now() });
  return {
    pool: () => made,
    request: { target: "/", headerLines: "", subprotocols: [], offers: [] },
    key: null,
    dependencies: {
      observer: { dialEnded: () => undefined },
      readBuffers: new ReadBuffers(new SlabPool()),
      random: Math.random,
      now: () => performance.now(),
    },
  };
}

function open(session: string, more = ""): ReturnType<SessionBench["open"]> {
  const route = routeOf(
    `retry: { session: { enabled: true, ${session} }, backoff: { initial: 50ms, max: 50ms } }\n${more}`,
  );
  return bench.open(route, redial());
}

const numbered = (number: number): FrameSpec => {
  const payload = Buffer.alloc(SIZE);
  payload.writeUInt32BE(number);
  return { opcode: 2, payload };
};

const ping = (number: number): FrameSpec => {
  const payload = Buffer.alloc(125);
  payload.writeUInt32BE(number);
  return { opcode: 9, payload, mask: MASK };
};

const numbersOf = (client: FakeSocket): number[] =>
  client.log.messages.map((message) => message.readUInt32BE(0));

const upTo = (count: number): number[] => Array.from({ length: count }, (_, number) => number);

/** The last that the first upstream sends blocks the client, and its Close comes in the same read. */
function loseWhileBlocked(client: FakeSocket, upstream: FakeSocket, count: number): void {
  client.stuck = true;
  const last = { opcode: 8, payload: closePayload(1012) };
  upstream.sends(...upTo(count).map(numbered), last);
}

describe("A client that takes nothing", () => {
  it("when its upstream is lost and while the next one sends gets all of it, in order", async () => {
    const { session, client, upstream } = open("attempts: 5");
    loseWhileBlocked(client, upstream, 5);
    const peer = await next.peer();
    await eventually(() => expect(session.state).toBe("open"));
    for (let number = 5; number < COUNT; number += 1) peer.send(numbered(number));
    // The new upstream is not read as long as the client is behind.
    await eventually(() => expect(peer.socket.writableLength).toBeGreaterThan(0));
    expect(numbersOf(client)).toEqual(upTo(5));
    // What the client sends goes through all the same.
    client.sends({ opcode: 1, payload: "still here", mask: MASK });
    expect((await peer.log.received(1)).map(String)).toEqual(["still here"]);
    client.drain();
    await eventually(() => expect(numbersOf(client)).toEqual(upTo(COUNT)));
    expect(session.state).toBe("open");
    client.sends({ opcode: 8, payload: closePayload(1000), mask: MASK });
    await eventually(() => expect(client.ended).toBe(true));
    client.destroy();
    await eventually(() => expect(bench.records).toHaveLength(1));
    expect(bench.records[0]).toMatchObject({ cause: "clientClosed", resumes: 1 });
  });

  it("does not make an upstream mute whose answers are to be swallowed", async () => {
    const { session, client, upstream } = open(
      "attempts: 3, timeout: 400ms, replay: { first: 1, swallow: 1 }",
    );
    client.sends({ opcode: 1, payload: "login", mask: MASK });
    loseWhileBlocked(client, upstream, 5);
    const peer = await next.peer();
    expect((await peer.log.received(1)).map(String)).toEqual(["login"]);
    peer.sendText("welcome");
    client.sends({ opcode: 1, payload: "subscribe", mask: MASK });
    // Well behind retry.session.timeout: the answer has come, but the client was in the way.
    await new Promise((resolve) => setTimeout(resolve, 900));
    expect(next.peers).toHaveLength(1);
    expect(session.state).toBe("open");
    client.drain();
    expect((await peer.log.received(2)).map(String)).toEqual(["login", "subscribe"]);
    client.destroy();
    await eventually(() => expect(bench.records).toHaveLength(1));
  });

  it("has the last of its pings answered once it takes something again", async () => {
    const { session, client, upstream } = open("timeout: 20s");
    await next.stop();
    upstream.sends({ opcode: 8, payload: closePayload(1012) });
    client.stuck = true;
    for (let i = 0; i < 100; i += 1) client.sends(...upTo(100).map((n) => ping(100 * i + n)));
    expect(session.state).toBe("retrying");
    expect(client.writableLength).toBeLessThan(64 * 1024 + 130);
    // It is read on: its Close would end the wait.
    expect(client.paused).toBe(false);
    client.drain();
    const pongs = client.log.frames.filter(({ opcode }) => opcode === 10);
    expect(pongs.at(-1)?.payload.readUInt32BE(0)).toBe(9_999);
    client.destroy();
    await eventually(() => expect(bench.records).toHaveLength(1));
  });
});
