/** The closing handshake between two legs: who gets what, in which order, and who ends TCP when. */
import { afterEach, describe, expect, it } from "vitest";
import { CLIENT_KINDS, oneClose, PoliteRawClient } from "../support/clients.ts";
import { buildFrame, closePayload, hex } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, expectWellFormed, titled } from "../support/outcome.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

/** Whoever waits for this deadline fails the test by its own time limit. */
const LONG = "close: { timeout: 60s }\n";
const SHORT = "close: { timeout: 200ms }\n";
const MASK = hex("01 02 03 04");

describe.each(CLIENT_KINDS)("when %s closes first", (_name, open) => {
  it("gets what the upstream still has to say, and then its echo", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], LONG));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.sendClose(3001, "done");
    await peer.log.frame(8);
    const big = Buffer.alloc(300_000, "x");
    peer.sendText("one");
    peer.send({ opcode: 2, payload: big });
    peer.send({ opcode: 9, payload: "ping" });
    peer.sendText("three");
    // Its own words do not matter any more: the client gets an echo.
    peer.sendClose(4000, "whatever");
    expect(await client.ended()).toEqual(oneClose(3001, "done"));
    expect(client.log.messages.map((message) => message.length)).toEqual([3, big.length, 5]);
    expect(client.log.frames.at(-1)?.opcode).toBe(8);
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 3001, reason: "done" }]);
    peer.end();
    const record = await expectOutcome(gateway, {
      cause: "clientClosed",
      client: { sent: 3001, received: 3001 },
      upstream: { sent: 3001, received: 4000 },
    });
    expect(record.messages.upstreamToClient).toBe(3);
  });

  it("gets its echo after close.timeout from an upstream that never answers", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], SHORT));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.sendClose(1000, "bye");
    await peer.log.frame(8);
    peer.sendText("still here");
    expect(await client.ended()).toEqual(oneClose(1000, "bye"));
    expect(client.log.messages.map(String)).toEqual(["still here"]);
    await peer.ended();
    expectWellFormed(peer);
    await expectOutcome(gateway, {
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: null },
    });
  });

  it.each(
    titled([
      { title: "ends TCP instead", does: (peer: UpstreamPeer) => peer.end() },
      { title: "resets TCP instead", does: (peer: UpstreamPeer) => peer.reset() },
      {
        title: "breaks the protocol instead",
        does: (peer: UpstreamPeer) => peer.send({ opcode: 3 }),
      },
    ]),
  )("gets its echo at once from an upstream that %s", async (_title, { does }) => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], LONG));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.sendClose(1000, "bye");
    await peer.log.frame(8);
    does(peer);
    expect(await client.ended()).toEqual(oneClose(1000, "bye"));
    await peer.ended();
    expectWellFormed(peer);
    await expectOutcome(gateway, {
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: null },
    });
  });
});

it("forwards nothing that a client sends behind its Close", async () => {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], LONG));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await upstream.peer();
  client.raw.socket.cork();
  client.sendText("before");
  client.sendClose(1000);
  client.sendText("after");
  client.raw.socket.uncork();
  await peer.log.frame(8);
  client.raw.send({ opcode: 3, payload: "nonsense" });
  client.sendClose(1001);
  peer.answersClose();
  expect(await client.ended()).toEqual(oneClose(1000));
  await peer.ended();
  expect(peer.log.frames.map(({ opcode, payload }) => [opcode, String(payload)])).toEqual([
    [1, "before"],
    [8, String(closePayload(1000))],
  ]);
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
  });
});

it("forwards nothing that an upstream sends behind its Close", async () => {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], LONG));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = (await upstream.peer()).answersClose();
  peer.socket.write(
    Buffer.concat([
      buildFrame({ opcode: 1, payload: "before" }),
      buildFrame({ opcode: 8, payload: closePayload(1001) }),
      buildFrame({ opcode: 1, payload: "after" }),
    ]),
  );
  expect(await client.ended()).toEqual(oneClose(1001));
  expect(client.log.messages.map(String)).toEqual(["before"]);
  await gateway.recorded();
});

it("echoes to a client that ends its half of TCP right behind its Close", async () => {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], LONG));
  const client = new RawClient(gateway.port, { allowHalfOpen: true });
  await client.answered();
  const peer = await upstream.peer();
  client.socket.end(buildFrame({ opcode: 8, mask: MASK, payload: closePayload(1000, "bye") }));
  await client.log.frame(8);
  expect(client.log.closes).toEqual([{ code: 1000, reason: "bye" }]);
  await client.ended();
  expect(client.log.torn).toHaveLength(0);
  peer.end();
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: null },
  });
});

it("does not wait for a client that resets right behind its Close", async () => {
  upstream = await RawUpstream.start();
  gateway = await startGateway(onePool([upstream.url], LONG));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = (await upstream.peer()).answersClose();
  client.sendClose(1000);
  await peer.log.frame(8);
  client.raw.reset();
  await expectOutcome(gateway, { cause: "clientClosed", client: {}, upstream: { sent: 1000 } });
  expectWellFormed(peer);
  expect(peer.log.closes).toEqual([{ code: 1000, reason: "" }]);
});

describe("the end of TCP", () => {
  it("comes to the client as soon as both Closes are exchanged, whatever the upstream does", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], LONG));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    peer.sendClose(1000);
    expect(await client.ended()).toEqual(oneClose(1000));
    // The upstream is the server of its leg: it ends TCP, and the gateway waits for it.
    expect(peer.log.closes).toEqual([{ code: 1000, reason: "" }]);
    expect(peer.ending).toBeNull();
    expect(gateway.records).toEqual([]);
    expect(gateway.slots).toBe(1);
    peer.end();
    await expectOutcome(gateway, {
      cause: "upstreamClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
  });

  it("does not come to the client before it has answered its Close", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], LONG));
    const client = new RawClient(gateway.port);
    await client.answered();
    const peer = await upstream.peer();
    peer.sendClose(1000);
    await client.log.frame(8);
    await peer.log.frame(8);
    peer.end();
    await peer.ended();
    expect(client.ending).toBeNull();
    client.sendClose(1000);
    expect(await client.ended()).toBe("fin");
    expect(client.log.frames).toHaveLength(1);
    await expectOutcome(gateway, {
      cause: "upstreamClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
  });

  it("comes after close.timeout to a client that does not answer its Close", async () => {
    upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
    gateway = await startGateway(onePool([upstream.url], SHORT));
    const client = new RawClient(gateway.port);
    await client.answered();
    (await upstream.peer()).sendClose(1012);
    await client.ended();
    expect(client.log.closes).toEqual([{ code: 1012, reason: "" }]);
    expect(client.log.torn).toHaveLength(0);
    await expectOutcome(gateway, {
      cause: "upstreamClosed",
      client: { sent: 1012, received: null },
      upstream: { sent: 1012, received: 1012 },
    });
  });

  it("is forced after close.timeout on a client that never ends its own half", async () => {
    upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
    gateway = await startGateway(onePool([upstream.url], SHORT));
    const client = new RawClient(gateway.port, { allowHalfOpen: true });
    await client.answered();
    client.sendClose(1000);
    expect(await client.ended()).toBe("fin");
    await expectOutcome(gateway, {
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
    client.socket.destroy();
  });

  it("is forced after close.timeout on an upstream that closes and never ends TCP", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], SHORT));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    peer.sendClose(1000);
    expect(await client.ended()).toEqual(oneClose(1000));
    await peer.ended();
    await expectOutcome(gateway, {
      cause: "upstreamClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
  });
});

describe("two Closes that cross", () => {
  it.each([
    ["the client's read first", true],
    ["the upstream's read first", false],
  ] as const)("leave each leg with exactly one, %s", async (_title, clientFirst) => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], LONG));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    // Both are on the wire before the gateway, in this same process, can read either.
    if (clientFirst) client.sendClose(3001, "from the client");
    peer.sendClose(4001, "from the upstream");
    if (!clientFirst) client.sendClose(3001, "from the client");
    const ending = await client.ended();
    peer.end();
    const [record] = await gateway.recorded();
    const clientWon = record?.cause === "clientClosed";
    const told = clientWon
      ? { code: 3001, reason: "from the client" }
      : { code: 4001, reason: "from the upstream" };
    expect(ending).toEqual(oneClose(told.code, told.reason));
    expect(peer.log.closes).toEqual([told]);
    expectWellFormed(peer);
    await expectOutcome(gateway, {
      cause: clientWon ? "clientClosed" : "upstreamClosed",
      client: { sent: told.code, received: 3001 },
      upstream: { sent: told.code, received: 4001 },
    });
  });

  it("leave no trace of a loss when both ends of TCP come at once", async () => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], LONG));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    client.raw.socket.end();
    peer.end();
    const [record] = await gateway.recorded();
    expect(["clientLost", "upstreamLost"]).toContain(record?.cause);
    expect(gateway.records).toHaveLength(1);
  });
});

describe("an end that the gateway decides", () => {
  it.each(
    [
      {
        title: "by an administrator",
        more: "",
        act: () => {
          const [session] = gateway.gateway.sessions(1);
          gateway.gateway.closeSession(session?.session ?? "");
        },
        cause: "adminClosed" as const,
        code: 1012,
        reason: "closed by an administrator",
      },
      {
        title: "for idleness",
        more: "limits: { idleTimeout: 100ms }\n",
        act: () => undefined,
        cause: "idle" as const,
        code: 1001,
        reason: "idle for too long",
      },
      {
        title: "for age",
        more: "limits: { maxConnectionAge: 100ms }\n",
        act: () => undefined,
        cause: "maxAge" as const,
        code: 1012,
        reason: "maximum connection age reached",
      },
    ].map((row) => [row.title, row] as const),
  )("tells both legs, %s", async (_title, row) => {
    upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
    gateway = await startGateway(onePool([upstream.url], `${LONG}${row.more}`));
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    row.act();
    expect(await client.ended()).toEqual(oneClose(row.code, row.reason));
    const peer = await upstream.peer();
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 1001, reason: row.reason }]);
    await expectOutcome(gateway, {
      cause: row.cause,
      client: { sent: row.code, received: row.code },
      upstream: { sent: 1001, received: 1001 },
    });
  });
});
