/** Bytes that a peer sends before the other leg stands: relayed in order, none lost, none piled up. */
import { afterEach, expect, it } from "vitest";
import { oneClose, PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { buildFrame, closePayload, hex } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, expectWellFormed } from "../support/outcome.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

const MASK = hex("01 02 03 04");
const MIB = 1024 * 1024;

function text(payload: string): Buffer {
  return buildFrame({ opcode: 1, mask: MASK, payload });
}

it("relays what a client sends together with its request and before its 101", async () => {
  upstream = await RawUpstream.start((peer) => void peer.answersClose());
  gateway = await startGateway(onePool([upstream.url]));
  // Cut inside a frame, as TCP may.
  const second = text("second");
  const early = Buffer.concat([text("first"), second.subarray(0, 5)]);
  const client = new PoliteRawClient(gateway.port, "/", { early });
  const peer = await upstream.peer();
  client.raw.socket.write(second.subarray(5));
  client.sendText("third");
  expect(peer.log.frames).toEqual([]);
  peer.accept();
  await client.opened();
  client.sendText("fourth");
  const messages = await peer.log.received(4);
  expect(messages.map(String)).toEqual(["first", "second", "third", "fourth"]);
  client.sendClose(1000);
  expect(await client.ended()).toEqual(oneClose(1000));
  expectWellFormed(peer);
  await gateway.recorded();
});

it("relays what an upstream sends right behind its 101, its Close included", async () => {
  const behind = Buffer.concat([
    buildFrame({ opcode: 1, payload: "welcome" }),
    buildFrame({ opcode: 8, payload: closePayload(4000, "full") }),
  ]);
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept({}, behind));
  gateway = await startGateway(onePool([upstream.url]));
  const client = new PoliteRawClient(gateway.port);
  expect(await client.ended()).toEqual(oneClose(4000, "full"));
  expect(client.log.messages.map(String)).toEqual(["welcome"]);
  await expectOutcome(gateway, {
    cause: "upstreamClosed",
    client: { sent: 4000, received: 4000 },
    upstream: { sent: 4000, received: 4000 },
  });
});

it("relays megabytes that an upstream sends right behind its 101", async () => {
  const payload = Buffer.alloc(2 * MIB, "0123456789");
  const behind = buildFrame({ opcode: 2, payload });
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept({}, behind));
  gateway = await startGateway(onePool([upstream.url]));
  const client = new PoliteRawClient(gateway.port);
  const [message] = await client.log.received(1);
  expect(message?.equals(payload)).toBe(true);
  client.sendClose(1000);
  expect(await client.ended()).toEqual(oneClose(1000));
  await gateway.recorded();
});

it("closes both when what stands behind the 101 breaks the protocol", async () => {
  const behind = buildFrame({ opcode: 1, rsv2: true, payload: "no" });
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept({}, behind));
  gateway = await startGateway(onePool([upstream.url]));
  const client = new PoliteRawClient(gateway.port);
  const rule = "RSV bit that was not negotiated";
  expect(await client.ended()).toEqual(oneClose(1014, `upstream broke the protocol: ${rule}`));
  await expectOutcome(gateway, {
    cause: "upstreamProtocolError",
    client: { sent: 1014, received: 1014 },
    upstream: { sent: 1002, received: null },
  });
});

it("relays a Close that the client sent before its 101", async () => {
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  gateway = await startGateway(onePool([upstream.url]));
  const early = buildFrame({ opcode: 8, mask: MASK, payload: closePayload(3000) });
  const client = new PoliteRawClient(gateway.port, "/", { early });
  expect(await client.ended()).toEqual(oneClose(3000));
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 3000, received: 3000 },
    upstream: { sent: 3000, received: 3000 },
  });
});

const CHUNK = Buffer.alloc(60_000, "early ");
const COUNT = 400;

function flood(client: PoliteRawClient): void {
  const frame = buildFrame({ opcode: 2, mask: MASK, payload: CHUNK });
  for (let i = 0; i < COUNT; i += 1) client.raw.socket.write(frame);
}

/** Waits until the gateway takes no more. */
async function stuck({ raw }: PoliteRawClient): Promise<void> {
  let waiting = -1;
  await eventually(() => {
    const before = waiting;
    waiting = raw.socket.writableLength;
    expect(waiting).toBeGreaterThan(0);
    expect(waiting).toBe(before);
  });
}

it("neither keeps nor loses early bytes beyond 64 KiB: the client has to wait with them", async () => {
  upstream = await RawUpstream.start((peer) => void peer.answersClose());
  gateway = await startGateway(onePool([upstream.url]));
  const client = new PoliteRawClient(gateway.port);
  const peer = await upstream.peer();
  flood(client);
  await stuck(client);
  peer.accept();
  const messages = await peer.log.received(COUNT);
  expect(messages.every((message) => message.equals(CHUNK))).toBe(true);
  client.sendClose(1000);
  expect(await client.ended()).toEqual(oneClose(1000));
  expectWellFormed(peer);
  await gateway.recorded();
});

it.each([
  ["close", 101, [{ code: 1008, reason: "upstream answered 403" }]],
  ["http", 403, []],
] as const)(
  "lets a client that floods it read its refusal, with refuse: %s",
  async (refuse, status, closes) => {
    upstream = await RawUpstream.start(() => undefined);
    gateway = await startGateway(onePool([upstream.url], `refuse: ${refuse}\n`));
    const client = new PoliteRawClient(gateway.port);
    const peer = await upstream.peer();
    flood(client);
    await stuck(client);
    peer.write("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    expect(await client.raw.answered()).toBe(status);
    const ending = await client.ended();
    expect(ending).toMatchObject({ closes, tornBytes: 0, tcp: "fin" });
    await expectOutcome(gateway, { cause: "upstreamRejected", refused: true, client: {} });
  },
);
