/** A backend that speaks plain HTTP, and a client for it, both on Node's own `http`. */
import {
  type Agent,
  createServer,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import type { Socket } from "node:net";

export type HttpHandler = (request: IncomingMessage, response: ServerResponse) => void;

export class HttpBackend {
  /** Requests so far, oldest first. */
  readonly requests: IncomingMessage[] = [];
  readonly sockets = new Set<Socket>();
  readonly port: number;
  readonly #server: Server;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(handler: HttpHandler): Promise<HttpBackend> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const backend = new HttpBackend(server, address.port);
    server.on("connection", (socket: Socket) => {
      backend.sockets.add(socket);
      socket.on("close", () => backend.sockets.delete(socket));
    });
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      backend.requests.push(request);
      handler(request, response);
    });
    return backend;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly body: string;
  /** Whether the body was as long as the answer said. */
  readonly complete: boolean;
}

export interface HttpAsk {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string | Buffer;
  readonly agent?: Agent;
  /** Where it comes from; default: 127.0.0.1. */
  readonly localAddress?: string;
}

/** One request; resolves also when the answer breaks off in its body. */
export function ask(port: number, options: HttpAsk = {}): Promise<HttpAnswer> {
  const { method = "GET", path = "/", headers = {}, body, agent, localAddress } = options;
  return new Promise((resolve, reject) => {
    const request = httpRequest({
      host: "127.0.0.1",
      port,
      method,
      path,
      headers,
      agent: agent ?? false,
      localAddress,
    });
    request.on("error", reject);
    request.on("response", (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", () => undefined);
      response.on("close", () => {
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          rawHeaders: response.rawHeaders,
          body: Buffer.concat(chunks).toString(),
          complete: response.complete,
        });
      });
    });
    request.end(body);
  });
}

/** Reads a request's whole body. */
export async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}
