import { EventEmitter, once } from "node:events";
import { expect, it } from "vitest";
import { type RunnableGateway, run } from "../../../src/cli/run.ts";

it("keeps a hangup that comes while the gateway starts until it has started", async () => {
  const told: string[] = [];
  const signals = new EventEmitter();
  const stopped = once(signals, "stop");
  const gateway: RunnableGateway = {
    start: async () => {
      await once(signals, "bound");
      told.push("ready");
    },
    reload: async () => told.push("reload"),
    drain: async () => 0,
    abandon: async () => undefined,
  };
  const running = run({
    createGateway: () => gateway,
    flags: { listen: "127.0.0.1:0", upstream: ["ws://127.0.0.1:1"], admin: "off" },
    env: {},
    io: { out: () => undefined, err: () => undefined },
    stopSignal: stopped.then(() => "SIGTERM"),
    fault: new Promise(() => undefined),
    onHangup: (reload) => void signals.on("hangup", reload),
  });
  signals.emit("hangup");
  await Promise.resolve();
  expect(told).toEqual([]);
  signals.emit("bound");
  signals.emit("stop");
  expect(await running).toBe(0);
  expect(told).toEqual(["ready", "reload"]);
});
