/**
 * Clients and backends that cost next to nothing, for thousands at once: no frame log, no waiting by
 * polling. A backend greets each session with a text frame, so that a client knows that it is in.
 */
import { createHash } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Close } from "../../src/close/causes.ts";
import { buildFrame, closePayload, type ReadFrame, splitFrames } from "./frames.ts";
import { upgradeRequest } from "./raw-client.ts";

const TEXT = 0x1;
const CLOSE = 0x8;
const MASK = Buffer.from([1, 2, 3, 4]);
const GREETING = buildFrame({ opcode: TEXT, payload: "welcome" });
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

export interface LightClientOptions {
  readonly path?: string;
  /** Default: true. False: the gateway's Close stays without an answer, and so does its FIN. */
  readonly answersClose?: boolean;
}

export class LightClient {
  readonly socket: Socket;
  /** Resolves to "open" with the greeting, to the Close that came instead, or to "lost". */
  readonly outcome: Promise<"open" | "lost" | Close>;
  /** Resolves when TCP has ended: to the Close that had come before; null: there was none. */
  readonly ended: Promise<Close | null>;
  /** The Close from the gateway, and when it came. */
  close: Close | null = null;
  closedAt = Number.NaN;
  closeFrames = 0;
  readonly #answersClose: boolean;
  #settle: (outcome: "open" | "lost" | Close) => void = () => undefined;
  #bytes: Buffer = Buffer.alloc(0);
  #open = false;

  constructor(port: number, { path = "/", answersClose = true }: LightClientOptions = {}) {
    this.#answersClose = answersClose;
    this.socket = connect({ host: "127.0.0.1", port, allowHalfOpen: !answersClose });
    this.outcome = new Promise((resolve) => {
      this.#settle = resolve;
    });
    this.socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.socket.on("error", () => undefined);
    this.ended = new Promise((resolve) => {
      this.socket.on("close", () => {
        this.#settle("lost");
        resolve(this.close);
      });
    });
    this.socket.write(upgradeRequest({ path }), "latin1");
  }

  /** Leaves with a Close, as a good client does. */
  leave(code = 1000): void {
    this.socket.write(buildFrame({ opcode: CLOSE, mask: MASK, payload: closePayload(code) }));
  }

  sendText(text: string): void {
    this.socket.write(buildFrame({ opcode: TEXT, mask: MASK, payload: text }));
  }

  #read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (!this.#open) {
      const end = this.#bytes.indexOf("\r\n\r\n");
      if (end === -1) return;
      this.#open = true;
      this.#bytes = this.#bytes.subarray(end + 4);
    }
    const { frames, rest } = splitFrames(this.#bytes);
    this.#bytes = rest;
    for (const frame of frames) this.#onFrame(frame);
  }

  #onFrame({ opcode, payload }: ReadFrame): void {
    if (opcode === TEXT) this.#settle("open");
    if (opcode !== CLOSE) return;
    this.closeFrames += 1;
    this.close ??= {
      code: payload.length === 0 ? 1005 : payload.readUInt16BE(0),
      reason: payload.subarray(2).toString("utf8"),
    };
    this.closedAt = performance.now();
    this.#settle(this.close);
    if (this.#answersClose) {
      this.socket.end(buildFrame({ opcode: CLOSE, mask: MASK, payload: payload.subarray(0, 2) }));
    }
  }
}

export interface LightUpstreamOptions {
  /** Called with each request; default: accept. */
  readonly onRequest?: (accept: () => void, socket: Socket, path: string) => void;
  /** Default: true. */
  readonly greets?: boolean;
  /** Called with each data frame; default: nothing. */
  readonly onMessage?: (socket: Socket, payload: Buffer) => void;
}

export class LightUpstream {
  readonly port: number;
  /**
   * Connections now, and the most there ever were at one time. One counts from its request on: what
   * was given up before the kernel handed it over is dead on arrival, and no load.
   */
  connections = 0;
  peak = 0;
  /** Connections ever made. */
  total = 0;
  /** Codes of the Closes that came, in order. */
  readonly closeCodes: number[] = [];
  readonly sockets = new Set<Socket>();
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(options: LightUpstreamOptions = {}): Promise<LightUpstream> {
    const server = createServer({ noDelay: true });
    await new Promise<void>((resolve) =>
      server.listen({ host: "127.0.0.1", port: 0, backlog: 4096 }, resolve),
    );
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const upstream = new LightUpstream(server, address.port);
    server.on("connection", (socket: Socket) => upstream.#connected(socket, options));
    return upstream;
  }

  /** Sends back what it gets. */
  static startEcho(): Promise<LightUpstream> {
    return LightUpstream.start({
      greets: false,
      onMessage: (socket, payload) => void socket.write(buildFrame({ opcode: TEXT, payload })),
    });
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #connected(socket: Socket, options: LightUpstreamOptions): void {
    const { onRequest, onMessage, greets = true } = options;
    this.sockets.add(socket);
    // Whoever has said FIN holds no connection any more, whether or not it has been answered.
    let counted = false;
    const gone = (): void => {
      if (counted) this.connections -= 1;
      counted = false;
    };
    let bytes: Buffer = Buffer.alloc(0);
    let head = "";
    socket.on("error", () => undefined);
    socket.on("end", gone);
    socket.on("close", () => {
      gone();
      this.sockets.delete(socket);
    });
    socket.on("data", (chunk: Buffer) => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk]);
      if (head === "") {
        const end = bytes.indexOf("\r\n\r\n");
        if (end === -1) return;
        head = bytes.subarray(0, end).toString("latin1");
        bytes = bytes.subarray(end + 4);
        counted = true;
        this.total += 1;
        this.connections += 1;
        this.peak = Math.max(this.peak, this.connections);
        const accept = (): void => void socket.write(switchingProtocols(head, greets));
        const path = head.split(" ")[1] ?? "/";
        if (onRequest === undefined) accept();
        else onRequest(accept, socket, path);
      }
      const { frames, rest } = splitFrames(bytes);
      bytes = rest;
      for (const { opcode, payload } of frames) {
        if (opcode < CLOSE) onMessage?.(socket, payload);
        if (opcode !== CLOSE) continue;
        this.closeCodes.push(payload.length === 0 ? 1005 : payload.readUInt16BE(0));
        socket.end(buildFrame({ opcode: CLOSE, payload: payload.subarray(0, 2) }));
      }
    });
  }
}

/** The 101, with the greeting behind it if there is one. */
function switchingProtocols(head: string, greets: boolean): Buffer {
  const key = /^sec-websocket-key: *(\S+)/im.exec(head)?.[1] ?? "";
  const accept = createHash("sha1").update(`${key}${GUID}`).digest("base64");
  const answer =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
    `Sec-WebSocket-Accept: ${accept}\r\n\r\n`;
  return Buffer.concat([Buffer.from(answer, "latin1"), greets ? GREETING : Buffer.alloc(0)]);
}
