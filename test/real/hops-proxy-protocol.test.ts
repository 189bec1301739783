/**
 * HAProxy that says who the client is by the PROXY protocol, v1 and v2.
 *
 * `proxyProtocol: true` is not supported yet, and the configuration refuses it: these tests are complete
 * and marked with `fails`. Once it is supported they pass, which vitest reports as a failure of the mark:
 * then take the mark off. `fails` does not ask for the reason: one test more says that it is the refusal, and
 * goes with the marks.
 */
import { describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { oneClose } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { completeConfig, onePool } from "../support/gateway.ts";
import { ask, bodyOf } from "../support/http-backend.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { HopSetting } from "./support/hop-setting.ts";
import { HAPROXY, HAPROXY_TCP, HOP_PROGRAMS } from "./support/hops.ts";

/** HAProxy itself is at 127.0.0.1. */
const ONE = { localAddress: "127.0.0.2" };
const OTHER = { localAddress: "127.0.0.3" };

const LISTENER = 'listeners: [{ name: test, bind: "127.0.0.1:0", proxyProtocol: true }]\n';

/** In mode http as well, where HAProxy uses its connections to the gateway for one client each. */
const rows = [HAPROXY_TCP, HAPROXY].flatMap((kind) =>
  ["send-proxy", "send-proxy-v2"].map((server) => ({
    title: `${kind.title}, ${server}`,
    kind,
    server,
  })),
);

it("is what the configuration refuses today (until proxyProtocol is supported)", () => {
  const yaml = completeConfig(`${LISTENER}${onePool(["ws://127.0.0.1:1"])}`);
  expect(loadConfig(yaml, { file: "proxy.yaml", env: {} })).toMatchObject({
    errors: [{ path: "listeners[0].proxyProtocol", message: "is not supported yet" }],
  });
});

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(rows))(
  "%s",
  (_title, { kind, server }) => {
    it.fails("tells the gateway who each client is (once proxyProtocol is supported)", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway([backend.url], LISTENER);
      const hop = await setting.hop(kind, { to: gateway.port, server });
      for (const options of [ONE, OTHER]) {
        const client = await setting.open(hop.port, options);
        client.sendClose(1000, "done");
        expect(await client.ended()).toEqual(oneClose(1000, "done"));
      }
      const records = await gateway.recorded(2);
      expect(records.map(({ clientIp }) => clientIp)).toEqual(["127.0.0.2", "127.0.0.3"]);
    });

    it.fails("has sessions counted by client address (once proxyProtocol is supported)", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway(
        [backend.url],
        `${LISTENER}limits: { maxConnectionsPerClient: 1 }\nretryAfter: { min: 7s, max: 7s }\n`,
      );
      const hop = await setting.hop(kind, { to: gateway.port, server });
      const client = await setting.open(hop.port, ONE);
      const second = setting.knock(hop.port, ONE);
      expect(await second.ended()).toEqual(oneClose(1013, "at capacity; retry-after=7"));
      await setting.open(hop.port, OTHER);
      client.sendClose(1000);
      await client.ended();
      await eventually(() => expect(gateway.slots).toBe(1));
      await setting.open(hop.port, ONE);
    });

    it.fails("has plain requests forwarded with the client's address (once proxyProtocol is supported)", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.http((request, response) => {
        void bodyOf(request).then((body) =>
          response.end(`${String(request.headers["x-forwarded-for"])} ${body}`),
        );
      });
      const gateway = await setting.startGateway([backend.url], LISTENER);
      const hop = await setting.hop(kind, { to: gateway.port, server });
      for (const { localAddress } of [ONE, OTHER]) {
        const answer = await ask(hop.port, { method: "POST", body: "hello", localAddress });
        expect(answer).toMatchObject({ status: 200, body: `${localAddress} hello` });
      }
    });
  },
);
