/**
 * The whole gateway over sockets: a client and a backend that send any bytes. A client that was let in and
 * did not leave by itself gets whole frames and one legal Close; nothing is logged as an error; nothing is
 * left behind. An input is two bytes of options, what a client on each route sends, a mark, and what the
 * backend sends.
 */
import { deepEqual, equal, ok } from "node:assert/strict";
import { connect, createServer, type Server, type Socket } from "node:net";
import { loadConfig } from "../../../src/config/load.ts";
import { Gateway } from "../../../src/gateway.ts";
import { createLogger } from "../../../src/observe/log.ts";
import { isLegalOnTheWire } from "../../../src/wire/close-payload.ts";
import { eventually } from "../../support/eventually.ts";
import { buildFrame, closePayload, type FrameSpec, splitFrames } from "../../support/frames.ts";
import { upgradeRequest } from "../../support/raw-client.ts";
import { acceptFor } from "../../support/raw-upstream.ts";
import { cut } from "../../unit/wire/relay-harness.ts";
import { latin1, type Target } from "../target.ts";

const PATHS = ["/", "/retry", "/http", "/small"];
/** Between what the client sends and what the backend sends. */
const MARK = Buffer.from([0xf2, 0x22]);
/** How long a client waits before it leaves. */
const PATIENCE_MS = [1, 3, 10, 40];
const SETTLE_MS = 10_000;

const CONFIG = (upstreamPort: number): string => `
listeners: [{ name: public, bind: "127.0.0.1:0" }]
admin: { bind: "off" }
close: { timeout: 100ms }
retry: { connect: { attempts: 1, timeout: 2s }, backoff: { initial: 10ms, max: 50ms } }
retryAfter: { acceptRate: 100000 }
limits: { maxMessageSize: 100KiB, handshakeTimeout: 2s, slowConsumerTimeout: 1s }
routes:
  - name: retry
    match: { path: /retry }
    pool: main
    retry: { session: { enabled: true, on: [lost, 1012], attempts: 2, timeout: 200ms, buffer: 1KiB, resend: unconfirmed, replay: { first: 1, swallow: 1 } } }
  - { name: http, match: { path: /http }, pool: main, refuse: http }
  - { name: small, match: { path: /small }, pool: main, limits: { maxMessageSize: 100, messageRate: 1000, messageBurst: 3 } }
  - { name: rest, pool: main }
pools:
  main: { backends: [{ url: "ws://127.0.0.1:${upstreamPort}" }], ejection: { failures: 0 } }
`;

export async function gatewayTarget(): Promise<Target> {
  const upstream = await ScriptedUpstream.start();
  const loaded = loadConfig(CONFIG(upstream.port), { file: "fuzz", env: {} });
  if (!("config" in loaded)) throw new Error(JSON.stringify(loaded.errors));
  const errors: string[] = [];
  const stream = {
    write: (line: string): void => {
      if (line.includes('"level":"error"')) errors.push(line);
    },
  };
  const logger = createLogger({ level: "error", format: "json" }, stream);
  const gateway = new Gateway(loaded.config, { logger, version: "fuzz", processMetrics: false });
  await gateway.start();
  const address = gateway.status().listeners[0]?.address ?? "";
  const port = Number(address.slice(address.lastIndexOf(":") + 1));
  return {
    seeds: seeds(),
    tokens: tokens(),
    maxInputBytes: 4096,
    check: async (input) => {
      const [mode = 0, more = 0] = input;
      const mark = input.indexOf(MARK);
      const clientBytes = input.subarray(2, mark === -1 ? input.length : mark);
      const upstreamBytes = mark === -1 ? Buffer.alloc(0) : input.subarray(mark + MARK.length);
      upstream.script = { bytes: upstreamBytes, isRaw: (mode & 2) !== 0, end: (mode >> 2) & 3 };
      const clients = PATHS.map((path) => {
        const head = (mode & 1) === 0 ? latin1(upgradeRequest({ path, headers: HEADERS })) : null;
        return new RudeClient(port, head, clientBytes, more >> 2);
      });
      const patienceMs = PATIENCE_MS[more & 3] ?? 0;
      await Promise.all(clients.map((client) => client.left(patienceMs, (mode & 16) !== 0)));
      for (const client of clients) client.checkReceived();
      deepEqual(errors, []);
    },
    settle: async () => {
      await eventually(() => {
        equal(gateway.status().sessions, 0, "sessions are left");
        equal(gateway.placesTaken, 0, "places are left");
        for (const { backends } of gateway.status().pools) {
          for (const { connections } of backends) equal(connections, 0, "slots are left");
        }
      }, SETTLE_MS);
      deepEqual(errors, []);
    },
    close: async () => {
      await gateway.stop();
      await upstream.close();
    },
  };
}

const HEADERS = {
  "Sec-WebSocket-Protocol": "v1",
  "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
};

/** Sends what it is told and takes what comes, until the gateway ends or its patience does. */
class RudeClient {
  readonly #socket: Socket;
  readonly #received: Buffer[] = [];
  #ended: "by the gateway" | "by the client" | null = null;
  readonly #over: Promise<void>;

  constructor(port: number, head: Buffer | null, bytes: Buffer, chunk: number) {
    this.#socket = connect({ host: "127.0.0.1", port, noDelay: true });
    this.#socket.on("data", (data: Buffer) => this.#received.push(data));
    this.#socket.on("error", () => {
      // A reset: what has been received stands, and is judged.
      this.#ended ??= "by the gateway";
    });
    this.#socket.on("end", () => {
      this.#ended ??= "by the gateway";
    });
    this.#over = new Promise((resolve) => this.#socket.once("close", () => resolve()));
    if (head !== null) this.#socket.write(head);
    for (const piece of cut(bytes, [chunk * 8 + 1, bytes.length])) this.#socket.write(piece);
  }

  async left(patienceMs: number, resets: boolean): Promise<void> {
    const timer = setTimeout(() => {
      this.#ended ??= "by the client";
      if (resets) this.#socket.resetAndDestroy();
      else this.#socket.destroy();
    }, patienceMs);
    await this.#over;
    clearTimeout(timer);
  }

  /** What a client that was let in has received. */
  checkReceived(): void {
    const bytes = Buffer.concat(this.#received);
    if (!bytes.subarray(0, 13).equals(latin1("HTTP/1.1 101 "))) return;
    const end = bytes.indexOf("\r\n\r\n");
    if (end === -1) {
      equal(this.#ended, "by the client", "half a head");
      return;
    }
    const { frames, rest } = splitFrames(bytes.subarray(end + 4));
    for (const [index, { opcode, mask, payload, fin }] of frames.entries()) {
      equal(mask, null);
      if (opcode < 8) continue;
      ok(fin && payload.length <= 125, "an illegal control frame");
      if (opcode !== 8) continue;
      equal(index, frames.length - 1, "frames behind a Close");
      ok(payload.length === 0 || isLegalOnTheWire(payload.readUInt16BE(0)), "an illegal Close");
    }
    if (this.#ended === "by the client") return;
    equal(rest.length, 0, "a torn frame");
    equal(frames.at(-1)?.opcode, 8, "ended without a Close");
  }
}

interface Script {
  readonly bytes: Buffer;
  /** The bytes are the answer itself; otherwise they follow a correct 101. */
  readonly isRaw: boolean;
  /** 0: TCP ends, 1: it is reset, else it stays. */
  readonly end: number;
}

class ScriptedUpstream {
  script: Script = { bytes: Buffer.alloc(0), isRaw: false, end: 0 };
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly port: number;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
    server.on("connection", (socket) => this.#serve(socket));
  }

  static async start(): Promise<ScriptedUpstream> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return new ScriptedUpstream(server, address.port);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.#sockets.delete(socket));
    let head = "";
    const read = (chunk: Buffer): void => {
      head += chunk.toString("latin1");
      if (!head.includes("\r\n\r\n")) return;
      socket.off("data", read);
      socket.resume();
      this.#answer(socket, /\r\nSec-WebSocket-Key: (\S+)/i.exec(head)?.[1] ?? "");
    };
    socket.on("data", read);
  }

  #answer(socket: Socket, key: string): void {
    const { bytes, isRaw, end } = this.script;
    const accept = acceptFor(key);
    if (!isRaw) socket.write(latin1(GOOD.replace("@ACCEPT@", accept)));
    const answer = latin1(bytes.toString("latin1").replaceAll("@ACCEPT@", accept));
    if (end === 0) socket.end(answer);
    else if (end === 1) socket.write(answer, () => socket.resetAndDestroy());
    else socket.write(answer);
  }
}

const GOOD =
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: @ACCEPT@\r\n" +
  "Sec-WebSocket-Protocol: v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";

const KEY = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const FRAMES: readonly FrameSpec[] = [
  { opcode: 1, payload: "hello" },
  { opcode: 2, fin: false, payload: "a" },
  { opcode: 0, payload: "b" },
  { opcode: 9, payload: "ping" },
  { opcode: 10, payload: "pong" },
  { opcode: 2, payload: "x".repeat(300) },
  { opcode: 1, rsv1: true, payload: "deflated" },
  { opcode: 8, payload: closePayload(1000, "bye") },
  { opcode: 8, payload: closePayload(1012) },
  { opcode: 8, payload: closePayload(1006) },
  { opcode: 8 },
  { opcode: 2, announcedLength: 70_000 },
  { opcode: 3 },
];

function inputOf(mode: number, ours: Buffer, theirs: Buffer): Buffer {
  return Buffer.concat([Buffer.from([mode, 254]), ours, MARK, theirs]);
}

function seeds(): Buffer[] {
  const client = Buffer.concat(
    FRAMES.slice(0, 5).map((frame) => buildFrame({ mask: KEY, ...frame })),
  );
  const upstream = Buffer.concat(FRAMES.slice(0, 7).map((frame) => buildFrame(frame)));
  const ends = FRAMES.slice(7).map((frame) => buildFrame(frame));
  const request = latin1(upgradeRequest({ path: "/http" }));
  const plain = latin1("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
  const refusal = latin1("HTTP/1.1 503 Busy\r\nContent-Length: 2\r\n\r\nno");
  return [
    ...[0, 4, 8, 16, 20, 24].map((mode) => inputOf(mode, client, upstream)),
    ...ends.map((end, index) =>
      inputOf(8 + 16 * (index & 1), client, Buffer.concat([upstream, end])),
    ),
    inputOf(
      8,
      Buffer.concat([client, buildFrame({ mask: KEY, opcode: 8, payload: closePayload(4000) })]),
      upstream,
    ),
    inputOf(3, request, refusal),
    inputOf(2, client, refusal),
    inputOf(1, request, upstream),
    inputOf(3, plain, latin1("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes")),
    inputOf(1, latin1("GET / HTTP/1.1\r\n\r\n"), upstream),
  ];
}

function tokens(): Buffer[] {
  const texts = [
    "\r\n",
    "\r\n\r\n",
    "HTTP/1.1 101 x\r\n",
    "HTTP/1.1 200 OK\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
  ];
  const more = [
    "Upgrade: websocket\r\n",
    "Connection: Upgrade\r\n",
    "Sec-WebSocket-Accept: @ACCEPT@\r\n",
    "Expect: 100-continue\r\n",
    "GET ",
  ];
  return [
    MARK,
    ...FRAMES.flatMap((frame) => [buildFrame({ mask: KEY, ...frame }), buildFrame(frame)]),
    ...[...texts, ...more].map(latin1),
    latin1(upgradeRequest({ path: "/http" })),
    latin1("CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"),
  ];
}
