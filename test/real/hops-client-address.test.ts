/** Who a client is, behind a hop: what a trusted one says, and nothing that the client says itself. */
import { describe, expect, it } from "vitest";
import { oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import type { TestGateway } from "../support/gateway.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { HopSetting } from "./support/hop-setting.ts";
import { HOP_PROGRAMS, type Hop, type HopKind, HTTP_HOPS } from "./support/hops.ts";

/** Hops are at 127.0.0.1; the loopback network has many more addresses. */
const ONE = { localAddress: "127.0.0.2" };
const OTHER = { localAddress: "127.0.0.3" };

async function start(
  kind: HopKind,
  setting: HopSetting,
  { trusted, limit = 0 }: { readonly trusted: string; readonly limit?: number },
): Promise<{ readonly gateway: TestGateway; readonly hop: Hop }> {
  const backend = await setting.echo();
  const gateway = await setting.startGateway(
    [backend.url],
    `listeners: [{ name: test, bind: "127.0.0.1:0", trustedProxies: [${trusted}] }]
limits: { maxConnectionsPerClient: ${limit} }
retryAfter: { min: 7s, max: 7s }
`,
  );
  return { gateway, hop: await setting.hop(kind, { to: gateway.port }) };
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(HTTP_HOPS))(
  "%s in front of the gateway",
  (_title, kind) => {
    it("that is trusted says who the client is", async (context) => {
      const setting = new HopSetting(context);
      const { gateway, hop } = await start(kind, setting, { trusted: "127.0.0.1/32" });
      for (const options of [ONE, OTHER]) {
        const client = await setting.open(hop.port, options);
        client.sendClose(1000);
        await client.ended();
      }
      const records = await gateway.recorded(2);
      expect(records.map(({ clientIp }) => clientIp)).toEqual(["127.0.0.2", "127.0.0.3"]);
    });

    it("does not vouch for what a client says of itself", async (context) => {
      const setting = new HopSetting(context);
      const { gateway, hop } = await start(kind, setting, { trusted: "127.0.0.1/32" });
      const headers = { "X-Forwarded-For": "203.0.113.7, 127.0.0.1", "X-Real-IP": "203.0.113.7" };
      await setting.open(hop.port, { ...ONE, headers });
      expect(gateway.gateway.sessions(1)).toMatchObject([{ clientIp: "127.0.0.2" }]);
    });

    it("that is not trusted is itself the client", async (context) => {
      const setting = new HopSetting(context);
      const { gateway, hop } = await start(kind, setting, { trusted: "10.0.0.0/8" });
      await setting.open(hop.port, ONE);
      expect(gateway.gateway.sessions(1)).toMatchObject([{ clientIp: "127.0.0.1" }]);
    });

    it("that is trusted lets each address have its own number of sessions", async (context) => {
      const setting = new HopSetting(context);
      const { gateway, hop } = await start(kind, setting, { trusted: "127.0.0.1/32", limit: 2 });
      const first = await setting.open(hop.port, ONE);
      await setting.open(hop.port, ONE);
      const third = setting.knock(hop.port, ONE);
      expect(await third.ended()).toEqual(oneClose(1013, "at capacity; retry-after=7"));
      // Another claim does not make it another client.
      const headers = { "X-Forwarded-For": "203.0.113.7" };
      const claiming = setting.knock(hop.port, { ...ONE, headers });
      expect(await claiming.ended()).toEqual(oneClose(1013, "at capacity; retry-after=7"));
      await setting.open(hop.port, OTHER);
      const refused = await gateway.recorded(2);
      expect(refused.map(({ cause, clientIp }) => [cause, clientIp])).toEqual([
        ["capacity", "127.0.0.2"],
        ["capacity", "127.0.0.2"],
      ]);
      // The place is free again for whom it was.
      first.sendClose(1000);
      await first.ended();
      await eventually(() => expect(gateway.slots).toBe(2));
      await setting.open(hop.port, ONE);
    });

    it("that is not trusted has one number of sessions for all", async (context) => {
      const setting = new HopSetting(context);
      const { hop } = await start(kind, setting, { trusted: "", limit: 1 });
      await setting.open(hop.port, ONE);
      const other = setting.knock(hop.port, OTHER);
      expect(await other.ended()).toEqual(oneClose(1013, "at capacity; retry-after=7"));
    });
  },
);
