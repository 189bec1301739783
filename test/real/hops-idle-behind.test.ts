/** A hop between gateway and backend that cuts what is idle for 2 s: the client never sees 1006. */
import { describe, expect, it } from "vitest";
import { oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { expectOutcome, titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { echoed, HopSetting, NO_HEARTBEAT, RESUMED } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS, type HopKind } from "./support/hops.ts";
import {
  type Ends,
  expectUndisturbed,
  IDLE_LIMIT_MS,
  IDLE_MS,
  IDLE_TIMEOUT,
} from "./support/idle-hop.ts";

async function openThrough(kind: HopKind, setting: HopSetting, yaml: string): Promise<Ends> {
  const backend = await setting.echo();
  const hop = await setting.hop(kind, { to: backend.port, idleTimeout: IDLE_TIMEOUT });
  const gateway = await setting.startGateway([hop.url], yaml);
  return { backend, gateway, client: await setting.open(gateway.port) };
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(ALL_HOPS))(
  "%s with an idle limit of 2 s behind the gateway",
  (_title, kind) => {
    it("that cuts a session is 1014 to the client", async (context) => {
      const setting = new HopSetting(context);
      const { backend, gateway, client } = await openThrough(kind, setting, NO_HEARTBEAT);
      expect(await client.ended()).toEqual(oneClose(1014, "upstream connection lost"));
      await expectOutcome(gateway, {
        cause: "upstreamLost",
        client: { sent: 1014, received: 1014 },
      });
      // It is the hop that tells nobody anything.
      await eventually(() => expect(backend.endings).toEqual([1006]));
    });

    it("is kept from it by a ping every second", async (context) => {
      const setting = new HopSetting(context);
      const ends = await openThrough(
        kind,
        setting,
        "heartbeat: { client: { interval: 0s }, upstream: { interval: 1s } }\n",
      );
      const { backend, client } = ends;
      const since = performance.now();
      await eventually(() => {
        expect(client.log.closes).toEqual([]);
        expect(backend.pings).toBeGreaterThanOrEqual(5);
        expect(performance.now() - since).toBeGreaterThan(IDLE_MS);
      }, IDLE_LIMIT_MS);
      expect(client.log.frames).toHaveLength(1);
      await expectUndisturbed(ends);
    });

    it("that cuts a session again and again is not noticed by the client, with session retry", async (context) => {
      const setting = new HopSetting(context);
      const { backend, gateway, client } = await openThrough(
        kind,
        setting,
        `${NO_HEARTBEAT}retry: { session: { enabled: true } }\n`,
      );
      for (const resumes of [1, 2]) {
        await eventually(async () => {
          expect(client.log.closes).toEqual([]);
          expect(await gateway.metric(RESUMED)).toBe(resumes);
        });
        await echoed(client, `behind cut ${resumes}`);
      }
      client.sendClose(1000);
      expect(await client.ended()).toEqual(oneClose(1000));
      const [record] = await gateway.recorded();
      expect(record).toMatchObject({ cause: "clientClosed", resumes: 2, dials: 3 });
      await eventually(() => expect(backend.endings).toEqual([1006, 1006, 1000]));
    });
  },
);
