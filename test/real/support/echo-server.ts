/** A backend on `ws` that echoes and keeps count of what reaches it. */
import { type ServerOptions, WebSocketServer } from "ws";

type DeflateOptions = NonNullable<ServerOptions["perMessageDeflate"]>;

/** The last two are what the library sets by itself; its types ask for them. */
const COMPRESS_EVERYTHING: DeflateOptions = { threshold: 0, isServer: true, maxPayload: 0 };

export class EchoServer {
  readonly port: number;
  connections = 0;
  /** Text messages in the order in which they came, from all connections. */
  readonly texts: string[] = [];
  pings = 0;
  /** What it was told of the ends of its connections; 1006 where no Close came. */
  readonly endings: number[] = [];
  readonly #server: WebSocketServer;

  private constructor(server: WebSocketServer, port: number) {
    this.#server = server;
    this.port = port;
    server.on("connection", (socket) => {
      this.connections += 1;
      socket.on("error", () => undefined);
      socket.on("message", (data, binary) => {
        if (!binary && Buffer.isBuffer(data)) this.texts.push(data.toString());
        socket.send(data, { binary });
      });
      socket.on("ping", () => {
        this.pings += 1;
      });
      socket.on("close", (code) => this.endings.push(code));
    });
  }

  /** Agrees to permessage-deflate where it is offered, and compresses everything then. */
  static async start(): Promise<EchoServer> {
    const server = new WebSocketServer({
      host: "127.0.0.1",
      port: 0,
      perMessageDeflate: COMPRESS_EVERYTHING,
      // A relayed long frame comes in many fragments.
      maxFragments: 0,
      maxBufferedChunks: 0,
    });
    await new Promise((resolve, reject) => {
      server.once("listening", resolve);
      server.once("error", reject);
    });
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return new EchoServer(server, address.port);
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** Ends all that is open, as a server that has had enough. */
  closeAll(code: number, reason: string): void {
    for (const socket of this.#server.clients) socket.close(code, reason);
  }

  async stop(): Promise<void> {
    for (const socket of this.#server.clients) socket.terminate();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
