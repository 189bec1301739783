/**
 * A hop that is reloaded or restarted, with sessions through it. Behind the gateway the clients get 1014
 * or stay, and never see 1006; in front of it they see 1006, and the gateway keeps nothing of them.
 */
import { describe, expect, it } from "vitest";
import { type LibraryClient, oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { echoed, HopSetting, NO_HEARTBEAT, patientRetry, RESUMED } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS, type Hop } from "./support/hops.ts";

const SESSIONS = 8;
const MIB = 2 ** 20;
const BINARY = 0x2;
const LIMIT_MS = 20_000;

interface Row {
  readonly title: string;
  readonly kind: (typeof ALL_HOPS)[number];
  readonly act: (hop: Hop) => Promise<void>;
}

const rows: readonly Row[] = ALL_HOPS.flatMap((kind) => [
  {
    title: `${kind.title} that is reloaded, and whose old workers linger for 1 s`,
    kind,
    act: (hop) => Promise.resolve(hop.reload()),
  },
  { title: `${kind.title} that is restarted`, kind, act: (hop) => hop.restart() },
  { title: `${kind.title} that is killed`, kind, act: (hop) => hop.crash() },
]);

function openAll(setting: HopSetting, port: number): Promise<LibraryClient[]> {
  return Promise.all(Array.from({ length: SESSIONS }, () => setting.open(port)));
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(rows))(
  "%s, behind the gateway",
  (_title, { kind, act }) => {
    it("is 1014 to every client", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port, main: kind.lingersBriefly });
      const gateway = await setting.startGateway([hop.url], NO_HEARTBEAT);
      const clients = await openAll(setting, gateway.port);
      await act(hop);
      const expected = oneClose(1014, "upstream connection lost");
      for (const client of clients) expect(await client.ended()).toEqual(expected);
      const records = await gateway.recorded(SESSIONS);
      expect(new Set(records.map(({ cause }) => cause))).toEqual(new Set(["upstreamLost"]));
      // It works again for those who come back.
      await setting.open(gateway.port);
    });

    it("is not noticed by any client, with session retry", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port, main: kind.lingersBriefly });
      const gateway = await setting.startGateway([hop.url], `${NO_HEARTBEAT}${patientRetry()}`);
      const clients = await openAll(setting, gateway.port);
      await act(hop);
      await eventually(async () => {
        expect(await gateway.metric(RESUMED)).toBe(SESSIONS);
      }, LIMIT_MS);
      for (const client of clients) await echoed(client, "still here");
      expect(backend.connections).toBe(2 * SESSIONS);
      for (const client of clients) client.sendClose(1000);
      for (const client of clients) expect(await client.ended()).toEqual(oneClose(1000));
      const records = await gateway.recorded(SESSIONS);
      expect(records.map(({ cause, resumes }) => [cause, resumes])).toEqual(
        records.map(() => ["clientClosed", 1]),
      );
    });
  },
);

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(ALL_HOPS))(
  "%s behind the gateway that is killed again and again with messages in it",
  (_title, kind) => {
    it("loses none of its messages, with resend: unconfirmed", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port });
      const gateway = await setting.startGateway(
        [hop.url],
        `${NO_HEARTBEAT}${patientRetry("resend: unconfirmed")}`,
      );
      const client = await setting.open(gateway.port);
      let sent = 0;
      const say = (): void => {
        for (let i = 0; i < 50; i += 1) client.sendText(String(sent++));
      };
      for (const resumes of [1, 2, 3]) {
        say();
        await eventually(() => expect(backend.texts.at(-1)).toBe(String(sent - 1)));
        hop.freeze();
        say();
        await eventually(() => {
          const [session] = gateway.gateway.sessions(1);
          expect(session?.messages.clientToUpstream).toBe(1 + sent);
        });
        // What it has taken and not passed on is lost with it.
        const restarted = hop.crash();
        say();
        await restarted;
        await eventually(async () => {
          expect(client.log.closes).toEqual([]);
          expect(await gateway.metric(RESUMED)).toBe(resumes);
        }, LIMIT_MS);
      }
      await echoed(client, "that is all");
      const numbers = Array.from({ length: sent }, (_, number) => String(number));
      // At least once, and by their first arrival in order.
      expect([...new Set(backend.texts)]).toEqual(["hello", ...numbers, "that is all"]);
      client.sendClose(1000);
      expect(await client.ended()).toEqual(oneClose(1000));
    });
  },
);

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(ALL_HOPS))(
  "%s behind the gateway that dies with a large message under way",
  (_title, kind) => {
    it("is 1014 behind whole frames, never inside one", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port });
      const gateway = await setting.startGateway([hop.url], NO_HEARTBEAT);
      const client = await setting.open(gateway.port, { maxFragments: 0, maxBufferedChunks: 0 });
      // More than all buffers on the way hold: the hop has a part of it when it dies.
      client.socket.pause();
      client.socket.send(Buffer.alloc(15 * MIB, 1));
      await eventually(() => {
        const [session] = gateway.gateway.sessions(1);
        expect(session?.bytes.upstreamToClient).toBeGreaterThan(64 * 1024);
      }, LIMIT_MS);
      await hop.restart();
      client.socket.resume();
      expect(await client.ended()).toEqual(oneClose(1014, "upstream connection lost"));
      // A part of the message and no more: the greeting's echo is the only whole one.
      expect(client.log.messages).toHaveLength(1);
      expect(client.log.frames.filter(({ opcode }) => opcode === BINARY)).toHaveLength(1);
    });
  },
);

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(rows))(
  "%s, in front of the gateway",
  (_title, { kind, act }) => {
    it("is clientLost to the gateway, which keeps nothing of it", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway([backend.url], NO_HEARTBEAT);
      const hop = await setting.hop(kind, { to: gateway.port, main: kind.lingersBriefly });
      const clients = await openAll(setting, hop.port);
      expect(gateway.slots).toBe(SESSIONS);
      await act(hop);
      for (const client of clients) {
        expect(await client.ended()).toMatchObject({ closes: [], told: { code: 1006 } });
      }
      const records = await gateway.recorded(SESSIONS);
      expect(records).toHaveLength(SESSIONS);
      expect(records.map(({ cause, client }) => [cause, client])).toEqual(
        records.map(() => ["clientLost", { sent: null, received: null }]),
      );
      await eventually(() => {
        expect(gateway.gateway.status().sessions).toBe(0);
        expect(gateway.gateway.placesTaken).toBe(0);
        expect(gateway.slots).toBe(0);
        expect(backend.endings).toEqual(clients.map(() => 1001));
      });
      await setting.open(hop.port);
    });
  },
);
