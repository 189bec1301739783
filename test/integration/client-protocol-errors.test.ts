/** A client that breaks the protocol or a limit: it is told which, the upstream gets 1001. */
import { afterEach, expect, it } from "vitest";
import { LibraryClient, oneClose, PoliteRawClient } from "../support/clients.ts";
import { type FrameSpec, hex } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, expectWellFormed, titled } from "../support/outcome.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

interface Row {
  readonly title: string;
  readonly frames: readonly FrameSpec[];
  readonly rule: string;
}

const RSV_RULE = "RSV bit that was not negotiated";
/** A gateway that waits for a Close that it cannot read any more would take this long. */
const LONG_TIMEOUT = "close: { timeout: 60s }\n";

const rows: readonly Row[] = [
  {
    title: "an unmasked frame",
    frames: [{ opcode: 1, mask: null, payload: "hi" }],
    rule: "frame from a client is not masked",
  },
  {
    title: "an unmasked Close",
    frames: [{ opcode: 8, mask: null }],
    rule: "frame from a client is not masked",
  },
  {
    title: "RSV1 without permessage-deflate",
    frames: [{ opcode: 1, rsv1: true, payload: "hi" }],
    rule: RSV_RULE,
  },
  { title: "RSV2", frames: [{ opcode: 1, rsv2: true, payload: "hi" }], rule: RSV_RULE },
  { title: "RSV3 on a Close", frames: [{ opcode: 8, rsv3: true }], rule: RSV_RULE },
  { title: "opcode 3", frames: [{ opcode: 3, payload: "hi" }], rule: "reserved opcode" },
  { title: "opcode 15", frames: [{ opcode: 15 }], rule: "reserved opcode" },
  {
    title: "a 126-byte ping",
    frames: [{ opcode: 9, payload: "p".repeat(126) }],
    rule: "control frame longer than 125 bytes",
  },
  {
    title: "a fragmented Close",
    frames: [{ opcode: 8, fin: false, payload: hex("03 e8") }],
    rule: "control frame without FIN",
  },
  {
    title: "a continuation without a start",
    frames: [{ opcode: 0, payload: "hi" }],
    rule: "continuation frame without a start",
  },
  {
    title: "a new message inside an unfinished one",
    frames: [
      { opcode: 1, fin: false, payload: "begun" },
      { opcode: 2, payload: "hi" },
    ],
    rule: "new message inside an unfinished one",
  },
  {
    title: "a length that is not in its shortest form",
    frames: [{ opcode: 1, payload: "hi", lengthForm: 64 }],
    rule: "payload length not in its shortest form",
  },
  {
    title: "a length with the top bit set",
    frames: [{ opcode: 1, lengthForm: 64, announcedLength: 2n ** 63n }],
    rule: "payload length with the top bit set",
  },
  {
    title: "a Close of 1 byte",
    frames: [{ opcode: 8, payload: Buffer.from([3]) }],
    rule: "Close payload of 1 byte",
  },
  {
    title: "a Close whose reason is not UTF-8",
    frames: [{ opcode: 8, payload: hex("03 e8 c3 28") }],
    rule: "Close reason is not UTF-8",
  },
];

it.each(titled(rows))("closes the client with 1002 for %s", async (_title, { frames, rule }) => {
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  gateway = await startGateway(onePool([upstream.url], LONG_TIMEOUT));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await upstream.peer();
  client.sendText("before");
  for (const frame of frames) client.raw.send(frame);
  client.sendText("after");
  expect(await client.ended()).toEqual(oneClose(1002, rule));
  await peer.ended();
  expectWellFormed(peer);
  expect(peer.log.messages.map(String)).toEqual(["before"]);
  expect(peer.log.closes).toEqual([{ code: 1001, reason: `client broke the protocol: ${rule}` }]);
  const record = await expectOutcome(gateway, {
    cause: "clientProtocolError",
    client: { sent: 1002, received: null },
    upstream: { sent: 1001, received: 1001 },
    detail: rule,
  });
  expect(record.messages.clientToUpstream).toBe(1);
});

const TOO_BIG = "message is too big";

it.each(
  titled([
    {
      title: "a ws client's message that is too big",
      limits: "{ maxMessageSize: 2KiB }",
      open: (port: number) => new LibraryClient(port),
      send: (client: LibraryClient | PoliteRawClient) => client.sendText("x".repeat(2049)),
      close: { code: 1009, reason: TOO_BIG },
      cause: "messageTooBig" as const,
      toUpstream: "client sent a message that is too big",
    },
    {
      title: "a raw client's message that is too big in its fragments",
      limits: "{ maxMessageSize: 2KiB }",
      open: (port: number) => new PoliteRawClient(port),
      send: (client: LibraryClient | PoliteRawClient) => {
        if (!(client instanceof PoliteRawClient)) return;
        client.raw.send({ opcode: 2, fin: false, payload: Buffer.alloc(2000) });
        client.raw.send({ opcode: 0, payload: Buffer.alloc(49) });
      },
      close: { code: 1009, reason: TOO_BIG },
      cause: "messageTooBig" as const,
      toUpstream: "client sent a message that is too big",
    },
    {
      title: "a raw client that announces a petabyte",
      limits: "{ maxMessageSize: 16MiB }",
      open: (port: number) => new PoliteRawClient(port),
      send: (client: LibraryClient | PoliteRawClient) => {
        if (!(client instanceof PoliteRawClient)) return;
        client.raw.send({ opcode: 2, lengthForm: 64, announcedLength: 2n ** 50n });
      },
      close: { code: 1009, reason: TOO_BIG },
      cause: "messageTooBig" as const,
      toUpstream: "client sent a message that is too big",
    },
    {
      title: "a ws client's third message of two a second",
      limits: "{ messageRate: 2, messageBurst: 2 }",
      open: (port: number) => new LibraryClient(port),
      send: (client: LibraryClient | PoliteRawClient) => {
        for (let i = 0; i < 3; i += 1) client.sendText("hi");
      },
      close: { code: 1008, reason: "too many messages" },
      cause: "rateLimited" as const,
      toUpstream: "client sent too many messages",
    },
  ]),
)("closes the client for %s", async (_title, { limits, open, send, close, cause, toUpstream }) => {
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  gateway = await startGateway(onePool([upstream.url], `${LONG_TIMEOUT}limits: ${limits}\n`));
  const client = open(gateway.port);
  await client.opened();
  const peer = await upstream.peer();
  send(client);
  expect(await client.ended()).toEqual(oneClose(close.code, close.reason));
  await peer.ended();
  expectWellFormed(peer);
  expect(peer.log.closes).toEqual([{ code: 1001, reason: toUpstream }]);
  await expectOutcome(gateway, {
    cause,
    client: { sent: close.code, received: null },
    upstream: { sent: 1001, received: 1001 },
  });
});

it("lets a client that goes on sending after its fault read its Close", async () => {
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  gateway = await startGateway(onePool([upstream.url], "limits: { maxMessageSize: 1MiB }\n"));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  client.raw.send({ opcode: 2, payload: Buffer.alloc(8 * 1024 * 1024) });
  expect(await client.ended()).toEqual(oneClose(1009, TOO_BIG));
  await expectOutcome(gateway, {
    cause: "messageTooBig",
    client: { sent: 1009, received: null },
    upstream: { sent: 1001, received: 1001 },
  });
});
