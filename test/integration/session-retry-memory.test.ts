/**
 * What the gateway keeps of clients that go on sending while they have no upstream: `buffer` for each
 * session, and then nothing more is read from them. It is a process of its own, so that its memory can
 * be told from the peers'. `KILLS=full` makes the gap 10 s long.
 */
import { afterEach, describe, expect, it } from "vitest";
import { WebSocketServer } from "ws";
import { eventually } from "../support/eventually.ts";
import { onePool } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { PERIOD, sendFlow } from "../support/message-flow.ts";
import { RawClient } from "../support/raw-client.ts";

const MIB = 2 ** 20;
const GAP_MS = process.env["KILLS"] === "full" ? 10_000 : 3_000;
const SESSIONS = 16;
const PAYLOAD_BYTES = 16 * 1024;
/** 100 MiB from the first client, 4 MiB from each of the others. */
const MESSAGES = Array.from({ length: SESSIONS }, (_, index) => (index === 0 ? 6_400 : 256));
/** One read may go beyond the buffer, and a frame that is not whole yet is held beside it. */
const BESIDE_BUFFER_BYTES = 2 * 64 * 1024;
/**
 * What has been read may be there twice until V8 collects: as it was read, and as it is kept where a frame
 * was put together from two reads. And V8's own heap grows with any work at first.
 */
const MAX_COPIES = 2;
const FIXED_BYTES = 8 * MIB;
const PATTERN = Buffer.from(
  Array.from({ length: PAYLOAD_BYTES + PERIOD }, (_, offset) => offset % PERIOD),
);

let server: WebSocketServer | null = null;
let gateway: GatewayProcess;
let clients: RawClient[] = [];
/** Messages that arrived, by path. */
let arrived: Map<string, number>;
let faults: string[];

afterEach(async () => {
  for (const { socket } of clients) socket.destroy();
  await gateway.stop();
  await stopServer();
});

async function startServer(port: number): Promise<number> {
  const started = new WebSocketServer({ host: "127.0.0.1", port });
  server = started;
  started.on("connection", (socket, { url = "" }) => {
    socket.on("error", () => undefined);
    socket.on("message", (data) => {
      const number = arrived.get(url) ?? 0;
      arrived.set(url, number + 1);
      const shift = number % PERIOD;
      const expected = PATTERN.subarray(shift, shift + PAYLOAD_BYTES);
      if (!Buffer.isBuffer(data) || !data.equals(expected)) faults.push(`${url} ${number}`);
    });
  });
  await new Promise((resolve) => started.once("listening", resolve));
  const address = started.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function stopServer(): Promise<void> {
  const stopped = server;
  server = null;
  if (stopped === null) return;
  for (const socket of stopped.clients) socket.terminate();
  await new Promise((resolve) => stopped.close(resolve));
}

async function start(session: string): Promise<number> {
  arrived = new Map();
  faults = [];
  const port = await startServer(0);
  gateway = await GatewayProcess.start(
    onePool(
      [`ws://127.0.0.1:${port}`],
      `retry:
  session: { enabled: true, attempts: 1000, timeout: 60s, ${session} }
  backoff: { initial: 200ms, max: 200ms, jitter: 0 }
`,
    ),
  );
  clients = MESSAGES.map((_, index) => new RawClient(gateway.port, { path: `/${index}` }));
  for (const client of clients) expect(await client.answered()).toBe(101);
  return port;
}

/** The clients' bytes that the gateway has taken, once it takes no more. */
async function takenWhenPaused(): Promise<number> {
  let last = Number.NaN;
  let since = performance.now();
  return await eventually(async () => {
    const all = await gateway.sessions();
    const taken = all.reduce((sum, { bytes }) => sum + bytes.clientToUpstream, 0);
    if (taken !== last) since = performance.now();
    last = taken;
    expect(taken).toBeGreaterThan(0);
    expect(performance.now() - since).toBeGreaterThan(500);
    return taken;
  }, 20_000);
}

describe("Clients that send 100 MiB and more while they have no upstream", () => {
  it.each([
    ["64KiB", 64 * 1024, "none"],
    ["1MiB", MIB, "none"],
    ["64KiB", 64 * 1024, "unconfirmed"],
    ["1MiB", MIB, "unconfirmed"],
  ])(
    "cost no more than a buffer each, and all of it arrives: %s (%i), resend %s",
    async (buffer, bufferBytes, resend) => {
      const port = await start(`buffer: ${buffer}, resend: ${resend}`);
      await stopServer();
      await eventually(async () => {
        const states = (await gateway.sessions()).map(({ state }) => state);
        expect(states).toEqual(clients.map(() => "retrying"));
      });
      const before = gateway.residentBytes();
      const sending = clients.map(({ socket }, index) =>
        sendFlow(socket, {
          messages: MESSAGES[index] ?? 0,
          payloadBytes: PAYLOAD_BYTES,
          masked: true,
        }),
      );
      const taken = await takenWhenPaused();
      expect(taken).toBeGreaterThanOrEqual(SESSIONS * bufferBytes);
      const perSession = bufferBytes + BESIDE_BUFFER_BYTES;
      expect(taken).toBeLessThan(SESSIONS * perSession);
      const samples: number[] = [];
      const sampling = setInterval(() => samples.push(gateway.residentBytes() - before), 50);
      await new Promise((resolve) => setTimeout(resolve, GAP_MS));
      clearInterval(sampling);
      expect(samples.length).toBeGreaterThan(10);
      expect(Math.max(...samples)).toBeLessThan(MAX_COPIES * SESSIONS * perSession + FIXED_BYTES);
      expect(arrived.size).toBe(0);
      await startServer(port);
      await Promise.all(sending);
      await eventually(() => {
        expect(clients.map((_, index) => arrived.get(`/${index}`))).toEqual(MESSAGES);
      }, 20_000);
      expect(faults).toEqual([]);
      for (const client of clients) client.sendClose(1000);
      await eventually(() => expect(gateway.records).toHaveLength(SESSIONS));
      for (const record of gateway.records) {
        expect(record).toMatchObject({ cause: "clientClosed", resumes: 1 });
      }
    },
    60_000,
  );
});
