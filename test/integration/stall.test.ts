/** A gateway that had no CPU for a while: nobody is judged for a silence that was the gateway's own. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { probe } from "../../src/upstream/probe.ts";
import type { ProbeResult } from "../../src/upstream/probe-attempt.ts";
import { BackendProcess } from "../support/backend-process.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { backendAt, configOf } from "../support/probed-backends.ts";
import { RawClient } from "../support/raw-client.ts";

const INTERVAL_MS = 100;
const TIMEOUT_MS = 600;
/** What a dial or a probe has, with room for the moment before the stall on a busy machine. */
const PATIENCE_MS = 1_500;
const LONGER_MS = 2_000;
/** For a connection that only waits to be read. */
const MOMENT_MS = 200;

let folder: string;
let backend: BackendProcess;
let gateway: TestGateway | null;

beforeEach(async () => {
  gateway = null;
  folder = mkdtempSync(join(tmpdir(), "softclose-stall-"));
  backend = await BackendProcess.start(join(folder, "journal"));
});

afterEach(async () => {
  try {
    await gateway?.stopClean();
  } finally {
    await backend.kill();
    rmSync(folder, { recursive: true });
  }
});

/** Takes this process's only thread, and with it the gateway's. */
function stall(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

/** Resolves after `ms`, when sockets have been read and timers come next. */
async function pause(ms: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
  await turn();
}

/** Resolves in this turn of the event loop, between its sockets and the next one's timers. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** A gateway that judges an upstream by its first dial. */
async function startDialling(): Promise<TestGateway> {
  gateway = await startGateway(`
routes: [{ name: all, pool: main }]
pools: { main: { backends: [{ url: "${backend.url}" }], connectTimeout: ${PATIENCE_MS}ms } }
retry: { connect: { attempts: 1, timeout: 60s } }
`);
  return gateway;
}

/** Resolves in the turn of the dial: neither is its connection known of yet, nor has the request gone out. */
async function dialled(started: TestGateway): Promise<void> {
  while (started.slots === 0) {
    // oxlint-disable-next-line no-await-in-loop -- turn by turn
    await turn();
  }
}

/** What a client that has got through to the backend is told at its end. */
async function closesOfServed(client: RawClient): Promise<RawClient["log"]["closes"]> {
  expect(await client.answered()).toBe(101);
  client.sendText("1");
  expect((await client.log.received(1)).map(String)).toEqual(["1"]);
  client.sendClose(1000);
  await client.ended();
  return client.log.closes;
}

it("reads an upstream's pong that came during a stall before it judges the upstream", async () => {
  const started = await startGateway(
    onePool(
      [backend.url],
      `heartbeat: { client: { interval: 0s }, upstream: { interval: ${INTERVAL_MS}ms, timeout: ${TIMEOUT_MS}ms } }\n`,
    ),
  );
  gateway = started;
  const client = new RawClient(started.port);
  expect(await client.answered()).toBe(101);
  // A ping goes out to a backend that cannot answer it at once.
  backend.freeze();
  await pause(3 * INTERVAL_MS);
  backend.thaw();
  stall(2 * TIMEOUT_MS);
  expect(await closesOfServed(client)).toMatchObject([{ code: 1000 }]);
});

it("reads an upstream's answer that came during a stall before it gives up the dial", async () => {
  const started = await startDialling();
  backend.freeze();
  const client = new RawClient(started.port);
  await eventually(() => expect(started.slots).toBe(1));
  // The request goes out to a backend that cannot answer it at once.
  await pause(MOMENT_MS);
  backend.thaw();
  stall(LONGER_MS);
  expect(await closesOfServed(client)).toMatchObject([{ code: 1000 }]);
});

it("gives an upstream its time whose connection came about during a stall", async () => {
  const started = await startDialling();
  const client = new RawClient(started.port);
  await dialled(started);
  stall(LONGER_MS);
  expect(await closesOfServed(client)).toMatchObject([{ code: 1000 }]);
});

it("still gives up the dial of an upstream that does not answer after a stall", async () => {
  const started = await startDialling();
  backend.freeze();
  const client = new RawClient(started.port);
  await dialled(started);
  stall(LONGER_MS);
  await eventually(() => expect(client.log.closes).toMatchObject([{ code: 1013 }]));
  client.sendClose(1013);
  await client.ended();
});

describe.each([
  ["http", { good: false, detail: "answered 426" }],
  ["websocket", { good: true, detail: "answered the ping" }],
] as const)("a probe by %s", (type, result) => {
  function probeOnce(): Promise<ProbeResult> {
    const config = configOf(type, { timeoutMs: PATIENCE_MS });
    return probe(backendAt(backend.port), config, new AbortController().signal);
  }

  it("reads a backend's answer that came during a stall before it judges the backend", async () => {
    backend.freeze();
    const probing = probeOnce();
    await pause(MOMENT_MS);
    backend.thaw();
    stall(LONGER_MS);
    expect(await probing).toEqual(result);
  });

  it("gives a backend its time to which it connected during a stall", async () => {
    const probing = probeOnce();
    stall(LONGER_MS);
    expect(await probing).toEqual(result);
  });
});
