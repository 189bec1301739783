/** A bug of ours must not become 1006 for every client. */
import { expect, it } from "vitest";
import { run } from "../../src/cli/run.ts";
import type { GatewayConfig } from "../../src/config/config.ts";
import { Gateway } from "../../src/gateway.ts";
import type { Logger } from "../../src/observe/log.ts";
import { PoliteRawClient } from "../support/clients.ts";
import { onePool, startGateway } from "../support/gateway.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

it("tells both legs of every session 1011 when the gateway has to give itself up", async () => {
  const upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  const gateway = await startGateway(onePool([upstream.url]));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await upstream.peer();
  await gateway.gateway.abandon();
  expect((await client.ended()).closes.map(({ code }) => code)).toEqual([1011]);
  await peer.ended();
  expect(peer.log.closes.map(({ code }) => code)).toEqual([1011]);
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ cause: "internalError", client: { sent: 1011, received: 1011 } });
  await upstream.stop();
});

it("gives itself up at the first fault that nobody caught, and exits with 1", async () => {
  const told: string[] = [];
  class Watched extends Gateway {
    override async abandon(): Promise<void> {
      told.push("abandon");
      await super.abandon();
    }
  }
  const createGateway = (config: GatewayConfig, logger: Logger): Gateway => {
    logger.level = "silent";
    return new Watched(config, { logger, version: "test", processMetrics: false });
  };
  const code = await run({
    createGateway,
    flags: { listen: "127.0.0.1:0", upstream: ["ws://127.0.0.1:1"], admin: "off" },
    env: {},
    io: { out: () => undefined, err: (line) => void told.push(line) },
    stopSignal: new Promise(() => undefined),
    fault: Promise.resolve(new Error("a bug")),
    onHangup: () => undefined,
  });
  expect(code).toBe(1);
  expect(told).toEqual(["abandon"]);
});
