/**
 * Back-pressure end to end: a session holds its held frame and the sockets' buffers, however much
 * goes through it and however slow the taker is. The gateway is a process of its own, so that its
 * memory can be told from the peers'.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { onePool } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { FlowCheck, type FlowOptions, sendFlow, sendSmallFlow } from "../support/message-flow.ts";
import { upgradeRequest } from "../support/raw-client.ts";
import { acceptFor } from "../support/raw-upstream.ts";

const MIB = 2 ** 20;
const MAX_GROWTH_BYTES = 20 * MIB;
/** Accepted sockets allocate for every read, and V8 lets 32 MiB of that gather before it collects. */
const MAX_GROWTH_WITH_GARBAGE_BYTES = 80 * MIB;
/** A slow taker rests for this long after each so many bytes. */
const REST_MS = 4;
const REST_EVERY_BYTES = 8 * MIB;

let gateway: GatewayProcess;
let server: Server;
let upstreams: Socket[];
let sockets: Socket[];
/** Resident memory of the process before its first traffic. */
let freshBytes: number;

beforeAll(async () => {
  upstreams = [];
  sockets = [];
  server = createServer((socket) => {
    socket.once("data", (request: Buffer) => {
      socket.pause();
      const key = /^sec-websocket-key: *(\S+)/im.exec(request.toString("latin1"))?.[1] ?? "";
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
          `Sec-WebSocket-Accept: ${acceptFor(key)}\r\n\r\n`,
      );
      sockets.push(socket);
      upstreams.push(socket);
    });
    socket.on("error", () => undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : 0;
  gateway = await GatewayProcess.start(
    onePool([`ws://127.0.0.1:${port}`], "limits: { maxMessageSize: 1GiB }\n"),
  );
  freshBytes = gateway.residentBytes();
}, 60_000);

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await eventually(async () => {
    const [taken] = await gateway.slots();
    if (taken !== 0) throw new Error(`${taken} slots are taken`);
  });
});

afterAll(async () => {
  await gateway.stop();
  await new Promise((resolve) => server.close(resolve));
});

interface Ends {
  readonly client: Socket;
  readonly upstream: Socket;
}

/** A session whose two ends are bare sockets, both paused behind the handshake. */
async function openSession(): Promise<Ends> {
  const before = upstreams.length;
  const client = connect({ host: "127.0.0.1", port: gateway.port });
  sockets.push(client);
  client.on("error", () => undefined);
  client.write(upgradeRequest({}), "latin1");
  await new Promise<void>((resolve) => {
    client.once("data", () => {
      client.pause();
      resolve();
    });
  });
  const upstream = await eventually(() => {
    const socket = upstreams[before];
    if (socket === undefined) throw new Error("no upstream yet");
    return socket;
  });
  return { client, upstream };
}

/** Takes everything and checks it, with rests; resolves when all messages have come. */
function take(socket: Socket, options: FlowOptions): Promise<FlowCheck> {
  const check = new FlowCheck(options);
  let nextRest = REST_EVERY_BYTES;
  return new Promise((resolve, reject) => {
    socket.on("data", (chunk: Buffer) => {
      try {
        check.add(chunk);
      } catch (error) {
        reject(error instanceof Error ? error : new Error(String(error)));
        socket.destroy();
        return;
      }
      if (check.messages === options.messages) resolve(check);
      if (check.payloadBytes < nextRest) return;
      nextRest += REST_EVERY_BYTES;
      socket.pause();
      setTimeout(() => socket.resume(), REST_MS);
    });
    socket.once("close", () => reject(new Error(`closed after ${check.messages} messages`)));
    socket.resume();
  });
}

/** Until nothing moves any more: the sender has run into the taker that takes nothing. */
async function stalled(sender: Socket): Promise<void> {
  let before = -1;
  let same = 0;
  await eventually(() => {
    same = sender.bytesWritten - sender.writableLength === before ? same + 1 : 0;
    before = sender.bytesWritten - sender.writableLength;
    if (same < 20) throw new Error("still moving");
  });
}

/** The most memory the gateway has had since, sampled all the time. */
function watchMemory(): () => number {
  let peak = gateway.residentBytes();
  const sampling = setInterval(() => {
    peak = Math.max(peak, gateway.residentBytes());
  }, 10);
  return () => {
    clearInterval(sampling);
    return Math.max(peak, gateway.residentBytes());
  };
}

type Send = (socket: Socket, options: FlowOptions) => Promise<void>;

/**
 * Sends one way; the taker takes nothing until the sender is stuck, and is slow from then on. Resolves
 * to the most memory that the gateway has had meanwhile.
 */
async function flow(from: Socket, to: Socket, options: FlowOptions, send: Send): Promise<number> {
  const peak = watchMemory();
  const sent = send(from, options);
  await stalled(from);
  const check = await take(to, options);
  await sent;
  if (check.messages !== options.messages) throw new Error(`${check.messages} messages`);
  return peak();
}

it("grows by less than 20 MiB, fresh as it is, while 1 GiB goes from a fast upstream to a slow client", async () => {
  const { client, upstream } = await openSession();
  const options = { messages: 16_384, payloadBytes: 65_536, masked: false };
  const peak = await flow(upstream, client, options, sendFlow);
  expect(peak - freshBytes).toBeLessThan(MAX_GROWTH_BYTES);
}, 60_000);

it("holds no more than its buffers while 1 GiB goes from a fast client to a slow upstream", async () => {
  const { client, upstream } = await openSession();
  const options = { messages: 16_384, payloadBytes: 65_536, masked: true };
  const peak = await flow(client, upstream, options, sendFlow);
  expect(peak - freshBytes).toBeLessThan(MAX_GROWTH_WITH_GARBAGE_BYTES);
}, 60_000);

it("re-fragments frames of 64 MiB without holding them, either way", async () => {
  const { client, upstream } = await openSession();
  const options = { messages: 3, payloadBytes: 64 * MIB };
  const down = await flow(upstream, client, { ...options, masked: false }, sendFlow);
  const up = await flow(client, upstream, { ...options, masked: true }, sendFlow);
  expect(Math.max(down, up) - freshBytes).toBeLessThan(MAX_GROWTH_WITH_GARBAGE_BYTES);
}, 60_000);

it("relays a flood of small messages to slow takers, both ways at once", async () => {
  const { client, upstream } = await openSession();
  const options = { messages: 400_000, payloadBytes: 100 };
  const peaks = await Promise.all([
    flow(upstream, client, { ...options, masked: false }, sendSmallFlow),
    flow(client, upstream, { ...options, masked: true }, sendSmallFlow),
  ]);
  expect(Math.max(...peaks) - freshBytes).toBeLessThan(MAX_GROWTH_WITH_GARBAGE_BYTES);
}, 60_000);
