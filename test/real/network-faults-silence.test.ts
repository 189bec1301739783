/**
 * A link that goes down tells nobody: no FIN, no reset. Only the heartbeat can see it, and what it sees
 * must become the end that the tables promise, or a resume. The gateway's kernel goes on trying to deliver
 * the last Close to the silent side for a while; when the link is back that is read, unless the silent side
 * has something on its way, which is answered with a reset.
 */
import { describe, expect, it } from "vitest";
import { eventually, LONG_MS } from "../support/eventually.ts";
import {
  cleanEnd,
  FAR,
  FAST_HEARTBEATS,
  FileNetwork,
  heartbeats,
  lasts,
  NEAR,
  SESSION_RETRY,
} from "./support/fault-setting.ts";
import { MECHANISM } from "./support/network.ts";

const network = new FileNetwork();

describe.concurrent(`The upstream's link (${MECHANISM}) goes down without a FIN`, () => {
  it("and the client gets 1014, and the upstream is let go of", async (context) => {
    const setting = await network.start(context, { more: FAST_HEARTBEATS });
    const client = await setting.openEchoing();
    await setting.path.upstream.down();
    expect(await client.finished()).toEqual(cleanEnd(1014, "upstream sent no pong in time"));
    await setting.expectAccount({
      cause: "upstreamUnresponsive",
      client: { sent: 1014, received: 1014 },
      upstream: { sent: 1001, received: null },
    });
    expect(await setting.absorbed("closed")).toBe(1);
    await setting.path.upstream.up();
    const peer = await setting.peer();
    await eventually(() => peer.ended(), LONG_MS);
    expect(peer.log.torn).toHaveLength(0);
    expect([[], [{ code: 1001, reason: "no pong in time" }]]).toContainEqual(peer.log.closes);
  });

  it("and with session retry the session resumes at the second backend", async (context) => {
    const setting = await network.start(context, {
      backends: [FAR, NEAR],
      more: FAST_HEARTBEATS + SESSION_RETRY,
    });
    const client = await setting.openEchoing();
    await setting.path.upstream.down();
    const next = await setting.peer(1);
    expect(next.header("softclose-resume")).toBe("1");
    client.sendText("still there?");
    expect(await client.messagesReceived(2)).toEqual(["hello", "still there?"]);
    client.sendClose(1000, "done");
    expect(await client.finished()).toEqual(cleanEnd(1000, "done"));
    await setting.expectAccount({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
      dials: 2,
      resumes: 1,
    });
    expect(await setting.absorbed("resumed")).toBe(1);
    expect(await setting.absorbed("closed")).toBe(0);
  });

  it("and with session retry it resumes at the only backend once the link is back", async (context) => {
    const setting = await network.start(context, {
      pool: "connectTimeout: 500ms",
      more: FAST_HEARTBEATS + SESSION_RETRY,
    });
    const client = await setting.openEchoing();
    await setting.path.upstream.down();
    await eventually(async () => {
      expect(await setting.dials(0, "timeout")).toBeGreaterThanOrEqual(1);
    }, LONG_MS);
    client.sendText("said meanwhile");
    await setting.path.upstream.up();
    expect(await client.messagesReceived(2)).toEqual(["hello", "said meanwhile"]);
    client.sendClose(1000, "done");
    expect(await client.finished()).toEqual(cleanEnd(1000, "done"));
    const dials = 1 + (await setting.dials(0, "timeout")) + 1;
    await setting.expectAccount({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
      dials,
      resumes: 1,
    });
    expect(await setting.absorbed("resumed")).toBe(1);
  });

  it("and with session retry the client gets 1013 when it stays down", async (context) => {
    const setting = await network.start(context, {
      pool: "connectTimeout: 500ms",
      more: `${FAST_HEARTBEATS}retry: { session: { enabled: true, timeout: 2s } }\n`,
    });
    const client = await setting.openEchoing();
    await setting.path.upstream.down();
    const ending = await client.finished();
    const reason = ending.told.reason;
    expect(reason).toMatch(/^upstream did not come back; retry-after=\d+$/);
    expect(ending).toEqual(cleanEnd(1013, reason));
    const { dials } = await eventually(() => {
      const [record] = setting.gateway.records;
      if (record === undefined) throw new Error("no record");
      return record;
    });
    expect(dials).toBeGreaterThanOrEqual(2);
    await setting.expectAccount({
      cause: "retryExhausted",
      client: { sent: 1013, received: 1013 },
      upstream: { sent: 1001, received: null },
      dials: Number(dials),
    });
    expect(
      await setting.gateway.metric('softclose_resumes_total{route="all",outcome="exhausted"}'),
    ).toBe(1);
  });
});

describe.concurrent(`The client's link (${MECHANISM}) goes down without a FIN`, () => {
  it("and the upstream gets 1001, and the client is let go of", async (context) => {
    const setting = await network.start(context, { more: FAST_HEARTBEATS });
    const client = await setting.openEchoing();
    await setting.path.client.down();
    const peer = await setting.peer();
    await eventually(() => peer.log.frame(8), LONG_MS);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: "client sent no pong in time" }]);
    await setting.expectAccount({
      cause: "clientUnresponsive",
      client: { sent: 1001, received: null },
      upstream: { sent: 1001, received: 1001 },
    });
    expect(await setting.absorbed("closed")).toBe(0);
    await setting.path.client.up();
    const { closes, tornBytes } = await client.finished();
    expect(tornBytes).toBe(0);
    expect([[], [{ code: 1001, reason: "no pong in time" }]]).toContainEqual(closes);
  });

  it("and session retry changes nothing about that", async (context) => {
    const setting = await network.start(context, { more: FAST_HEARTBEATS + SESSION_RETRY });
    await setting.openEchoing();
    await setting.path.client.down();
    await setting.expectAccount({
      cause: "clientUnresponsive",
      client: { sent: 1001, received: null },
      upstream: { sent: 1001, received: 1001 },
    });
    expect(await setting.absorbed("resumed")).toBe(0);
  });
});

describe.concurrent(`A link (${MECHANISM}) that is down for shorter than the heartbeat waits`, () => {
  const patient = heartbeats("interval: 500ms, timeout: 8s");
  const rows = [
    ["the client's link", "client", ""],
    ["the upstream's link", "upstream", ""],
    ["the upstream's link, with session retry", "upstream", SESSION_RETRY],
  ] as const;

  it.for(rows)("costs time only: %s", async ([, side, more], context) => {
    const setting = await network.start(context, { closeTimeout: "10s", more: patient + more });
    const client = await setting.openEchoing();
    await setting.path[side].down();
    client.sendText("said while it is down");
    const peer = await setting.peer();
    peer.sendText("heard while it is down");
    await lasts(1_500);
    // Whatever had been sent before it was down, nothing has come through since.
    const passed = side === "client" ? [client.log, peer.log] : [peer.log, client.log];
    expect(passed[0]?.messages).toHaveLength(1);
    await setting.path[side].up();
    expect((await client.messagesReceived(3)).toSorted()).toEqual([
      "heard while it is down",
      "hello",
      "said while it is down",
    ]);
    expect(setting.gateway.records).toEqual([]);
    client.sendClose(1000, "done");
    expect(await client.finished()).toEqual(cleanEnd(1000, "done"));
    await setting.expectAccount({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
    expect(await setting.absorbed("resumed")).toBe(0);
  });
});
