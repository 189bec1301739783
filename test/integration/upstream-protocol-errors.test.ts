/** An upstream that breaks the protocol is told so; the client gets one clean Close all the same. */
import { afterEach, describe, expect, it } from "vitest";
import { CLIENT_KINDS, oneClose } from "../support/clients.ts";
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

const MASK = hex("01 02 03 04");
const RSV_RULE = "RSV bit that was not negotiated";

const rows: readonly Row[] = [
  {
    title: "a masked frame",
    frames: [{ opcode: 1, mask: MASK, payload: "hi" }],
    rule: "frame from an upstream is masked",
  },
  {
    title: "RSV1 without permessage-deflate",
    frames: [{ opcode: 1, rsv1: true, payload: "hi" }],
    rule: RSV_RULE,
  },
  { title: "RSV2", frames: [{ opcode: 1, rsv2: true, payload: "hi" }], rule: RSV_RULE },
  { title: "RSV3", frames: [{ opcode: 2, rsv3: true, payload: "hi" }], rule: RSV_RULE },
  { title: "RSV1 on a ping", frames: [{ opcode: 9, rsv1: true }], rule: RSV_RULE },
  { title: "opcode 3", frames: [{ opcode: 3, payload: "hi" }], rule: "reserved opcode" },
  { title: "opcode 11", frames: [{ opcode: 11 }], rule: "reserved opcode" },
  {
    title: "a 126-byte ping",
    frames: [{ opcode: 9, payload: "p".repeat(126) }],
    rule: "control frame longer than 125 bytes",
  },
  {
    title: "a fragmented ping",
    frames: [{ opcode: 9, fin: false, payload: "p" }],
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
      { opcode: 1, payload: "hi" },
    ],
    rule: "new message inside an unfinished one",
  },
  {
    title: "a length that is not in its shortest form",
    frames: [{ opcode: 1, payload: "hi", lengthForm: 16 }],
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

describe.each(CLIENT_KINDS)("with %s", (_name, open) => {
  it.each(titled(rows))(
    "gives the upstream 1002 and the client 1014 for %s",
    async (_title, row) => {
      upstream = await RawUpstream.start();
      gateway = await startGateway(onePool([upstream.url]));
      const client = open(gateway.port);
      await client.opened();
      const peer = (await upstream.peer()).answersClose();
      peer.sendText("before");
      for (const frame of row.frames) peer.send(frame);
      peer.sendText("after");
      const reason = `upstream broke the protocol: ${row.rule}`;
      expect(await client.ended()).toEqual(oneClose(1014, reason));
      const [first, ...others] = client.log.frames;
      expect(String(first?.payload)).toBe("before");
      // At most the legal beginning of a message got through, and nothing behind the fault.
      expect(others.filter(({ opcode, fin }) => opcode !== 8 && fin)).toEqual([]);
      await peer.ended();
      expectWellFormed(peer);
      expect(peer.log.closes).toEqual([{ code: 1002, reason: row.rule }]);
      const record = await expectOutcome(gateway, {
        cause: "upstreamProtocolError",
        client: { sent: 1014, received: 1014 },
        upstream: { sent: 1002, received: null },
        detail: row.rule,
      });
      expect(record.messages.upstreamToClient).toBe(1);
    },
  );

  it.each(
    titled([
      {
        title: "in one frame",
        frames: [{ opcode: 2, payload: Buffer.alloc(2049) }],
      },
      {
        title: "in fragments",
        frames: [
          { opcode: 2, fin: false, payload: Buffer.alloc(2000) },
          { opcode: 0, payload: Buffer.alloc(49) },
        ],
      },
    ] satisfies { title: string; frames: FrameSpec[] }[]),
  )("gives both 1009 when the upstream's message is too big, %s", async (_title, { frames }) => {
    upstream = await RawUpstream.start();
    gateway = await startGateway(onePool([upstream.url], "limits: { maxMessageSize: 2KiB }\n"));
    const client = open(gateway.port);
    await client.opened();
    const peer = (await upstream.peer()).answersClose();
    peer.send({ opcode: 2, payload: Buffer.alloc(2048) });
    for (const frame of frames) peer.send(frame);
    const reason = "message is too big";
    expect(await client.ended()).toEqual(oneClose(1009, reason));
    expect(client.log.messages).toHaveLength(1);
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 1009, reason }]);
    await expectOutcome(gateway, {
      cause: "messageTooBig",
      client: { sent: 1009, received: 1009 },
      upstream: { sent: 1009, received: null },
    });
  });
});
