/** A listener: one bound address, its HTTP server, and where upgrades and plain requests go from it. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Bind, ListenerConfig } from "../config/config.ts";
import { HIGH_WATER_MARK_BYTES } from "../upstream/upstream-socket.ts";
import { ForwardedReader } from "./forwarded.ts";
import { textAnswer, writeAnswer } from "./http-answer.ts";
import type { Passthrough } from "./passthrough.ts";
import { Upgrade, type UpgradeServices } from "./upgrade.ts";

/** Longer than the 60 s of common load balancers, which would reuse a connection that we just closed. */
const KEEP_ALIVE_MS = 75_000;
/** A whole request with its body, and the head's own limit, are checked this often. */
const CHECK_MS = 1_000;
/** Node's default: a body that takes longer is cut. */
const REQUEST_TIMEOUT_MS = 300_000;

export class Listener {
  #config: ListenerConfig;
  readonly #server: Server;
  #reader: ForwardedReader;
  /** How many plain requests of a connection are not answered yet. */
  readonly #unanswered = new WeakMap<Socket, number>();
  #unansweredInAll = 0;
  #headTimeoutMs: number;
  #onAnswered: (() => void)[] = [];

  constructor(
    config: ListenerConfig,
    handshakeTimeoutMs: number,
    upgrades: UpgradeServices,
    passthrough: Passthrough,
  ) {
    this.#config = config;
    this.#headTimeoutMs = handshakeTimeoutMs;
    this.#reader = new ForwardedReader(config.trustedProxies);
    const options = {
      headersTimeout: handshakeTimeoutMs,
      requestTimeout: Math.max(REQUEST_TIMEOUT_MS, handshakeTimeoutMs),
      connectionsCheckingInterval: Math.min(CHECK_MS, Math.max(50, handshakeTimeoutMs / 4)),
      keepAliveTimeout: KEEP_ALIVE_MS,
      noDelay: true,
      highWaterMark: HIGH_WATER_MARK_BYTES,
    };
    this.#server = createServer(options, (request: IncomingMessage, response: ServerResponse) => {
      this.#count(request.socket, response);
      if (request.headers.upgrade?.toLowerCase() === "websocket") {
        // Without Connection: Upgrade it is no upgrade for the parser, and no request for a backend.
        response.writeHead(400, { "Content-Type": "text/plain", Connection: "close" });
        response.end("a WebSocket handshake needs Connection: Upgrade\n");
        return;
      }
      passthrough.handle(request, response, this.#reader);
    });
    this.#server.on("upgrade", (request: IncomingMessage, socket: Socket, head: Buffer) => {
      if ((this.#unanswered.get(socket) ?? 0) > 0) {
        // Pipelined: the earlier answers would be written into the frames of the session.
        socket.destroy();
        return;
      }
      new Upgrade(upgrades, request, socket).start(head, this.#config, this.#reader);
    });
    // CONNECT asks for a tunnel to anywhere, which this is not.
    this.#server.on("connect", (_request: IncomingMessage, socket: Socket) => {
      socket.on("error", () => undefined);
      writeAnswer(socket, textAnswer(405, "CONNECT is not served here", { Allow: "GET" }));
    });
  }

  get config(): ListenerConfig {
    return this.#config;
  }

  /** A reload; the address stays as it is. */
  reconfigure(config: ListenerConfig): void {
    this.#config = config;
    this.#reader = new ForwardedReader(config.trustedProxies);
  }

  /** The top-level `limits.handshakeTimeout`. */
  set handshakeTimeoutMs(timeoutMs: number) {
    this.#headTimeoutMs = timeoutMs;
    this.#server.headersTimeout = timeoutMs;
    this.#server.requestTimeout = Math.max(REQUEST_TIMEOUT_MS, timeoutMs);
  }

  /** Rejects with Node's own error (EADDRINUSE, EACCES, …). Resolves to the bound address. */
  listen(): Promise<Bind> {
    const { host, port } = this.config.bind;
    return new Promise((resolve, reject) => {
      this.#server.once("error", reject);
      // The kernel cuts this to net.core.somaxconn; a herd after a deploy fills the default of 511.
      this.#server.listen({ host, port, backlog: 4096 }, () => {
        this.#server.removeListener("error", reject);
        // From here on an error is about one connection that could not be accepted (EMFILE).
        this.#server.on("error", () => undefined);
        const address = this.#server.address();
        const bound = typeof address === "object" && address !== null ? address.port : port;
        resolve({ host, port: bound });
      });
    });
  }

  /**
   * Accepts no more; requests that are being answered go on, and so do sessions. `onEmpty` is called
   * when the last of its connections has ended.
   */
  stopAccepting(onEmpty: () => void = () => undefined): void {
    if (!this.#server.listening) return;
    // Node no longer looks for requests that never become whole once it does not listen.
    const timer = setTimeout(() => this.#afterAnswers(() => this.closeAll()), this.#headTimeoutMs);
    timer.unref();
    this.#server.close(() => {
      clearTimeout(timer);
      onEmpty();
    });
    this.#server.closeIdleConnections();
  }

  /** Resolves when no plain request waits for its answer, at the latest after `timeoutMs`. */
  answered(timeoutMs: number): Promise<void> {
    if (this.#unansweredInAll === 0 || timeoutMs <= 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#afterAnswers(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #afterAnswers(act: () => void): void {
    if (this.#unansweredInAll === 0) act();
    else this.#onAnswered.push(act);
  }

  /** Ends every plain HTTP connection; sessions are not among them. */
  closeAll(): void {
    this.#server.closeAllConnections();
  }

  #count(socket: Socket, response: ServerResponse): void {
    this.#unanswered.set(socket, (this.#unanswered.get(socket) ?? 0) + 1);
    this.#unansweredInAll += 1;
    // Draining: the client's next request belongs to another gateway.
    if (!this.#server.listening) response.shouldKeepAlive = false;
    response.once("close", () => {
      this.#unanswered.set(socket, (this.#unanswered.get(socket) ?? 1) - 1);
      this.#unansweredInAll -= 1;
      if (this.#unansweredInAll > 0) return;
      for (const act of this.#onAnswered.splice(0)) act();
    });
  }
}
