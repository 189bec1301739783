/** A hop that hangs, its connections open: only the heartbeat, or a deadline, can tell. */
import { describe, expect, it } from "vitest";
import { oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { expectOutcome, titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { echoed, HopSetting, NO_HEARTBEAT, RESUMED } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS } from "./support/hops.ts";

const OFF = "{ interval: 0s }";
const ATTENTIVE = "{ interval: 500ms, timeout: 2s }";
const LIMIT_MS = 20_000;

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(ALL_HOPS))(
  "%s that hangs",
  (_title, kind) => {
    it("behind the gateway is 1014, by the heartbeat", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port });
      const gateway = await setting.startGateway(
        [hop.url],
        `heartbeat: { client: ${OFF}, upstream: ${ATTENTIVE} }\nclose: { timeout: 500ms }\n`,
      );
      const client = await setting.open(gateway.port);
      hop.freeze();
      expect(await client.ended()).toEqual(oneClose(1014, "upstream sent no pong in time"));
      await expectOutcome(gateway, {
        cause: "upstreamUnresponsive",
        client: { sent: 1014, received: 1014 },
        upstream: { sent: 1001, received: null },
      });
    });

    it("behind the gateway is left for another, with session retry", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port });
      const other = await setting.hop(kind, { to: backend.port });
      const gateway = await setting.startGateway(
        [hop.url, other.url],
        `heartbeat: { client: ${OFF}, upstream: ${ATTENTIVE} }
retry: { session: { enabled: true, resend: unconfirmed } }
`,
      );
      const client = await setting.open(gateway.port);
      hop.freeze();
      client.sendText("into the void");
      await eventually(async () => {
        expect(client.log.closes).toEqual([]);
        expect(await gateway.metric(RESUMED)).toBe(1);
      }, LIMIT_MS);
      await echoed(client, "still here");
      // What was not confirmed before the hop froze may come twice.
      const messages = new Set(client.log.messages.map(String));
      expect([...messages]).toEqual(["hello", "into the void", "still here"]);
      client.sendClose(1000);
      expect(await client.ended()).toEqual(oneClose(1000));
      expect((await gateway.recorded())[0]).toMatchObject({ backend: other.url, resumes: 1 });
    });

    it("behind the gateway before a handshake is passed over", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const hop = await setting.hop(kind, { to: backend.port });
      const gateway = await setting.startGateway([hop.url, backend.url], NO_HEARTBEAT, {
        pool: "connectTimeout: 1s",
      });
      hop.freeze();
      const client = await setting.open(gateway.port);
      client.sendClose(1000);
      expect(await client.ended()).toEqual(oneClose(1000));
      expect((await gateway.recorded())[0]).toMatchObject({ backend: backend.url, dials: 2 });
    });

    it("in front of the gateway is clientUnresponsive, and nothing is kept of its sessions", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway(
        [backend.url],
        `heartbeat: { client: ${ATTENTIVE}, upstream: ${OFF} }\nclose: { timeout: 500ms }\n`,
      );
      const hop = await setting.hop(kind, { to: gateway.port });
      await setting.open(hop.port);
      hop.freeze();
      await expectOutcome(gateway, {
        cause: "clientUnresponsive",
        client: { sent: 1001, received: null },
        upstream: { sent: 1001, received: 1001 },
      });
      await eventually(() => {
        expect(gateway.gateway.status().sessions).toBe(0);
        expect(gateway.gateway.placesTaken).toBe(0);
        expect(backend.endings).toEqual([1001]);
      });
    });
  },
);
