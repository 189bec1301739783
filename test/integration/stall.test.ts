/** A gateway that had no CPU for a while: nobody is judged for a silence that was the gateway's own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { BackendProcess } from "../support/backend-process.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";

const INTERVAL_MS = 100;
const TIMEOUT_MS = 600;

let folder: string;
let backend: BackendProcess;
let gateway: TestGateway;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "softclose-stall-"));
  backend = await BackendProcess.start(join(folder, "journal"));
});

afterEach(async () => {
  await gateway.stopClean();
  await backend.kill();
  rmSync(folder, { recursive: true });
});

/** Takes this process's only thread, and with it the gateway's. */
function stall(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

/** Resolves on a turn of the event loop after `ms`. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}

it("reads an upstream's pong that came during a stall before it judges the upstream", async () => {
  gateway = await startGateway(
    onePool(
      [backend.url],
      `heartbeat: { client: { interval: 0s }, upstream: { interval: ${INTERVAL_MS}ms, timeout: ${TIMEOUT_MS}ms } }\n`,
    ),
  );
  const client = new RawClient(gateway.port);
  expect(await client.answered()).toBe(101);
  // A ping goes out to a backend that cannot answer it at once.
  backend.freeze();
  await pause(3 * INTERVAL_MS);
  backend.thaw();
  stall(2 * TIMEOUT_MS);
  client.sendText("1");
  expect((await client.log.received(1)).map(String)).toEqual(["1"]);
  client.sendClose(1000);
  await client.ended();
  expect(client.log.closes).toMatchObject([{ code: 1000 }]);
});
