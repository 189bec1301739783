/** Refusals and drains by Close pass a hop in front of the gateway with code and reason as they are. */
import { describe, expect, it } from "vitest";
import { type LibraryClient, oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { HopSetting } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS } from "./support/hops.ts";

/** Whether its application is told that the end was clean; to be called before the end. */
function cleanliness({ socket }: LibraryClient): Promise<boolean> {
  return new Promise((resolve) => {
    socket.addEventListener("close", ({ wasClean }) => resolve(wasClean));
  });
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(ALL_HOPS))(
  "%s in front of the gateway",
  (_title, kind) => {
    it("lets 1013 at capacity through", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway(
        [backend.url],
        "limits: { maxConnections: 1 }\nretryAfter: { min: 7s, max: 7s }\n",
      );
      const hop = await setting.hop(kind, { to: gateway.port });
      const first = await setting.open(hop.port);
      const second = setting.knock(hop.port);
      const clean = cleanliness(second);
      expect(await second.ended()).toEqual(oneClose(1013, "at capacity; retry-after=7"));
      expect(await clean).toBe(true);
      const [record] = await gateway.recorded();
      expect(record).toMatchObject({
        cause: "capacity",
        refused: true,
        client: { sent: 1013, received: 1013 },
      });
      first.sendClose(1000);
      expect(await first.ended()).toEqual(oneClose(1000));
    });

    it("lets 1012 of a drain through, to each client", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway(
        [backend.url],
        "drain: { timeout: 1s }\nretryAfter: { min: 7s, max: 7s }\n",
      );
      const hop = await setting.hop(kind, { to: gateway.port });
      const clients = await Promise.all(Array.from({ length: 5 }, () => setting.open(hop.port)));
      const clean = Promise.all(clients.map((client) => cleanliness(client)));
      expect(await gateway.gateway.drain()).toBe(0);
      for (const client of clients) {
        expect(await client.ended()).toEqual(
          oneClose(1012, "gateway is shutting down; retry-after=7"),
        );
      }
      expect(await clean).toEqual(clients.map(() => true));
      await eventually(() => expect(backend.endings).toEqual(clients.map(() => 1001)));
      expect(gateway.records.map(({ cause, client }) => [cause, client])).toEqual(
        clients.map(() => ["draining", { sent: 1012, received: 1012 }]),
      );
    });

    it("lets a Close of either end through", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway([backend.url]);
      const hop = await setting.hop(kind, { to: gateway.port });
      const leaving = await setting.open(hop.port);
      leaving.sendClose(4001, "own reason");
      expect(await leaving.ended()).toEqual(oneClose(4001, "own reason"));
      const left = await setting.open(hop.port);
      backend.closeAll(4002, "too late");
      expect(await left.ended()).toEqual(oneClose(4002, "too late"));
      await eventually(() => expect(backend.endings).toEqual([4001, 4002]));
    });
  },
);
