/** A hop between client and gateway that cuts what is idle for 2 s: only a heartbeat keeps it from that. */
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { expectOutcome, titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { HopSetting, NO_HEARTBEAT, pingsSeen } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS, type HopKind } from "./support/hops.ts";
import {
  type Ends,
  expectUndisturbed,
  IDLE_LIMIT_MS,
  IDLE_MS,
  IDLE_TIMEOUT,
} from "./support/idle-hop.ts";

async function openBehind(kind: HopKind, setting: HopSetting, yaml: string): Promise<Ends> {
  const backend = await setting.echo();
  const gateway = await setting.startGateway([backend.url], yaml);
  const hop = await setting.hop(kind, { to: gateway.port, idleTimeout: IDLE_TIMEOUT });
  return { backend, gateway, client: await setting.open(hop.port) };
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
      }, IDLE_LIMIT_MS);
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
      }, IDLE_LIMIT_MS);
      expect(pingsSeen(ends.client)).toBe(0);
      await expectUndisturbed(ends);
    });
  },
);
