/**
 * An echo server that can be killed, frozen and revived: what the demo's gateway and its plain proxy
 * stand in front of. Killed: every socket is reset and the port closed. Frozen: it accepts and stays silent.
 */
import { createServer as createHttpServer } from "node:http";
import { createServer, type Server, type Socket } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import { listenNear } from "./demo-listen.ts";

export type BackendState = "running" | "frozen" | "dead";

const MAX_MESSAGE_BYTES = 64 * 1024;

export class DemoBackend {
  readonly name: string;
  readonly host: string;
  #port: number;
  #state: BackendState = "dead";
  #server: Server | null = null;
  readonly #sockets = new Set<Socket>();
  readonly #clients = new Set<WebSocket>();

  constructor(name: string, host: string, port: number) {
    this.name = name;
    this.host = host;
    this.#port = port;
  }

  get port(): number {
    return this.#port;
  }

  get state(): BackendState {
    return this.#state;
  }

  get clients(): number {
    return this.#clients.size;
  }

  /** On the first call takes the next free port, later always the same one. */
  async start(): Promise<void> {
    const first = this.#server === null;
    const accept = this.#echoServer();
    const server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on("error", () => socket.destroy());
      socket.once("close", () => this.#sockets.delete(socket));
      // Left alone, the socket is what a hung process shows: connected, and no answer.
      if (this.#state !== "frozen") accept(socket);
    });
    this.#port = await listenNear(server, this.host, this.#port, first ? undefined : 1);
    this.#server = server;
    this.#state = "running";
  }

  /** As `kill -9` and a closed port: RST on every socket, and new dials are refused. */
  async kill(): Promise<void> {
    if (this.#state === "dead") return;
    this.#state = "dead";
    const closed = new Promise<void>((resolve) => {
      this.#server?.close(() => resolve());
    });
    for (const socket of this.#sockets) socket.resetAndDestroy();
    await closed;
  }

  /** As a process that hangs: the kernel still accepts connections, nobody reads them. */
  freeze(): void {
    if (this.#state !== "running") return;
    this.#state = "frozen";
    for (const client of this.#clients) client.pause();
  }

  /** A fresh start, from either state. Rejects if another program has taken the port meanwhile. */
  async revive(): Promise<void> {
    if (this.#state === "frozen") await this.kill();
    if (this.#state === "dead") await this.start();
  }

  /** What takes over an accepted socket. */
  #echoServer(): (socket: Socket) => void {
    const http = createHttpServer((_request, response) => {
      response.end(`backend ${this.name}\n`);
    });
    const endpoint = new WebSocketServer({ server: http, maxPayload: MAX_MESSAGE_BYTES });
    endpoint.on("connection", (client) => {
      this.#clients.add(client);
      client.once("close", () => this.#clients.delete(client));
      // A peer that breaks the protocol is closed by `ws` itself.
      client.on("error", () => undefined);
      client.on("message", (data, isBinary) => {
        client.send(isBinary ? data : `backend ${this.name}: ${textOf(data)}`);
      });
      client.send(`backend ${this.name}: hello`);
    });
    return (socket) => void http.emit("connection", socket);
  }
}

function textOf(data: Buffer | ArrayBuffer | Buffer[]): string {
  if (Array.isArray(data)) return Buffer.concat(data).toString("utf8");
  return (data instanceof ArrayBuffer ? Buffer.from(data) : data).toString("utf8");
}
