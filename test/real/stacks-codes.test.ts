/**
 * Which close codes the client stacks can take, and what those do with 1012 to 1014 that cannot; with
 * `legacyCodes` all of them are told something that they understand.
 */
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Close } from "../../src/close/causes.ts";
import { Meeting, OFFERED, StackPlaces } from "../support/meeting.ts";
import { lacks } from "../support/programs.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";
import type { Stack } from "../support/stack.ts";
import { CLIENTS, type StackFacts, toldOf } from "./stack-table.ts";

const CODES = [1001, 1008, 1011, 1012, 1013, 1014, 3000, 4000];
const LEGACY = [
  [1012, 1001],
  [1013, 1001],
  [1014, 1011],
] as const;
/** Not ASCII: it has more bytes than characters. */
const REASON = "grüße";

const places = new StackPlaces();
let meeting: Meeting;
let upstream: RawUpstream;
let client: Stack;

afterAll(() => places.stop());

async function prepare(more = ""): Promise<void> {
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  meeting = await Meeting.before(client, upstream.port, more);
}

async function open(more = ""): Promise<UpstreamPeer> {
  await prepare(more);
  meeting.dial();
  await client.next("open");
  return await upstream.peer();
}

/** All of how it ended for the client: what it was sent, and what its stack made of it. */
interface Ending {
  readonly told: { readonly code: number | null; readonly reason: string };
  /** The stack says so. */
  readonly unclean: boolean;
  readonly sent: readonly Close[];
  readonly tornBytes: number;
}

async function ending(): Promise<Ending> {
  const { code, reason, clean } = await client.next("close");
  const { closes, torn } = meeting.clientLeg.fromServer.log;
  return {
    told: { code, reason },
    unclean: clean === false,
    sent: closes,
    tornBytes: torn.length,
  };
}

function understood(close: Close): Ending {
  return { told: close, unclean: false, sent: [close], tornBytes: 0 };
}

/** With what the table says where the stack is at odds with this Close. */
function taken(facts: StackFacts, close: Close): Ending {
  const told = toldOf(facts, close);
  return { ...understood(close), told, unclean: told.code === 1006 };
}

describe.each(CLIENTS.map((facts) => [facts.name, facts] as const))("%s", (_name, facts) => {
  describe.skipIf(lacks(...facts.needs))("as a client", () => {
    beforeEach(async () => {
      client = await places.take("client", facts);
    });
    afterEach(async () => {
      await meeting.stop();
      await upstream.stop();
    });

    it.each(CODES)("takes the upstream's %i as the table says", async (code) => {
      const peer = await open();
      peer.sendClose(code, REASON);
      expect(await ending()).toEqual(taken(facts, { code, reason: REASON }));
      const [record] = await meeting.gateway.recorded();
      expect(record).toMatchObject({ cause: "upstreamClosed", client: { sent: code } });
    });

    it.each(LEGACY)("understands what legacyCodes makes of %i: %i", async (code, legacy) => {
      const peer = await open("close: { legacyCodes: true }");
      peer.sendClose(code, REASON);
      expect(await ending()).toEqual(understood({ code: legacy, reason: REASON }));
    });

    it("takes an upstream that resets for 1014, as the table says", async () => {
      const peer = await open();
      peer.reset();
      const close = { code: 1014, reason: "upstream connection lost" };
      expect(await ending()).toEqual(taken(facts, close));
    });

    it("understands 1011 for an upstream that resets, with legacyCodes", async () => {
      const peer = await open("close: { legacyCodes: true }");
      peer.reset();
      const close = { code: 1011, reason: "upstream connection lost" };
      expect(await ending()).toEqual(understood(close));
    });

    it.each([
      ["that has offered no subprotocols", []],
      ["that has offered subprotocols", OFFERED],
    ])("is turned away with 1013, as one %s", async (_title, subprotocols) => {
      const occupant = await occupied("limits: { maxConnections: 1 }");
      meeting.dial({ subprotocols });
      expect(await client.next("open")).toEqual({ subprotocol: subprotocols[0] ?? null });
      const ended = await ending();
      const reason = ended.sent[0]?.reason ?? "";
      expect(reason).toMatch(/^at capacity; retry-after=\d+$/);
      expect(ended).toEqual(taken(facts, { code: 1013, reason }));
      await leave(occupant);
    });

    it("understands that it is turned away, with legacyCodes", async () => {
      const occupant = await occupied(
        "limits: { maxConnections: 1 }\nclose: { legacyCodes: true }",
      );
      meeting.dial();
      await client.next("open");
      const ended = await ending();
      const reason = ended.sent[0]?.reason ?? "";
      expect(reason).toMatch(/^at capacity; retry-after=\d+$/);
      expect(ended).toEqual(understood({ code: 1001, reason }));
      await leave(occupant);
    });

    it("takes an empty Close as the table says", async () => {
      const peer = await open();
      peer.send({ opcode: 8 });
      expect(await ending()).toEqual({
        ...understood({ code: 1005, reason: "" }),
        told: facts.emptyClose,
      });
    });

    it("understands an empty Close that is translated to 1000", async () => {
      const peer = await open("close: { translate: { 1005: 1000 } }");
      peer.send({ opcode: 8 });
      const close = { code: 1000, reason: "" };
      // Some say a reason of their own where there is none.
      expect(await ending()).toMatchObject({ ...understood(close), told: { code: 1000 } });
    });
  });
});

/** The only place is taken. */
async function occupied(more: string): Promise<RawClient> {
  await prepare(more);
  const occupant = new RawClient(meeting.gateway.port);
  expect(await occupant.answered()).toBe(101);
  return occupant;
}

async function leave(occupant: RawClient): Promise<void> {
  occupant.sendClose(1000);
  expect(await occupant.ended()).toBe("fin");
}
