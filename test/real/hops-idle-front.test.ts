/** A hop between client and gateway that cuts what is idle for 2 s: only a heartbeat keeps it from that. */
import { describe, expect, it } from "vitest";
import { type LibraryClient, oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import type { TestGateway } from "../support/gateway.ts";
import { expectOutcome, titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import type { EchoServer } from "./support/echo-server.ts";
import { echoed, HopSetting, NO_HEARTBEAT, pingsSeen } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS, type HopKind } from "./support/hops.ts";

const IDLE_TIMEOUT = "2s";
/** Twice that, and more than the first tick of a heartbeat can come early. */
const IDLE_MS = 4_500;
const LIMIT_MS = 20_000;

interface Ends {
  readonly backend: EchoServer;
  readonly gateway: TestGateway;
  readonly client: LibraryClient;
}

async function openBehind(kind: HopKind, setting: HopSetting, yaml: string): Promise<Ends> {
  const backend = await setting.echo();
  const gateway = await setting.startGateway([backend.url], yaml);
  const hop = await setting.hop(kind, { to: gateway.port, idleTimeout: IDLE_TIMEOUT });
  return { backend, gateway, client: await setting.open(hop.port) };
}

/** Its only session has been alive all the time, and ends in order. */
async function expectUndisturbed({ backend, gateway, client }: Ends): Promise<void> {
  expect(gateway.records).toEqual([]);
  await echoed(client, "still here");
  expect(backend.connections).toBe(1);
  client.sendClose(1000, "done");
  expect(await client.ended()).toEqual(oneClose(1000, "done"));
  await expectOutcome(gateway, {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
  });
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(ALL_HOPS))(
  "%s with an idle limit of 2 s in front of the gateway",
  (_title, kind) => {
    it("cuts a session that nobody keeps awake, by itself: 1006, which the gateway records as clientLost", async (context) => {
      const setting = new HopSetting(context);
      const { backend, gateway, client } = await openBehind(kind, setting, NO_HEARTBEAT);
      expect(await client.ended()).toMatchObject({ closes: [], told: { code: 1006 } });
      await expectOutcome(gateway, {
        cause: "clientLost",
        client: { sent: null, received: null },
        upstream: { sent: 1001 },
      });
      await eventually(() => expect(backend.endings).toEqual([1001]));
    });

    it("keeps one that is pinged every second", async (context) => {
      const setting = new HopSetting(context);
      const ends = await openBehind(
        kind,
        setting,
        "heartbeat: { client: { interval: 1s }, upstream: { interval: 0s } }\n",
      );
      const since = performance.now();
      await eventually(() => {
        expect(ends.client.log.closes).toEqual([]);
        expect(pingsSeen(ends.client)).toBeGreaterThanOrEqual(5);
        expect(performance.now() - since).toBeGreaterThan(IDLE_MS);
      }, LIMIT_MS);
      await expectUndisturbed(ends);
    });

    it("keeps one that is sent a text every second", async (context) => {
      const setting = new HopSetting(context);
      const ends = await openBehind(
        kind,
        setting,
        'heartbeat: { client: { interval: 1s, payload: text, text: "tick" }, upstream: { interval: 0s } }\n',
      );
      const since = performance.now();
      await eventually(() => {
        const ticks = ends.client.log.messages.filter((message) => String(message) === "tick");
        expect(ticks.length).toBeGreaterThanOrEqual(5);
        expect(performance.now() - since).toBeGreaterThan(IDLE_MS);
      }, LIMIT_MS);
      expect(pingsSeen(ends.client)).toBe(0);
      await expectUndisturbed(ends);
    });
  },
);
