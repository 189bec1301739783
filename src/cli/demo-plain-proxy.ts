/**
 * What the demo compares the gateway with: a proxy that tunnels bytes, as nginx, HAProxy and their
 * kind do after the 101. It takes turns, tries the next backend when a dial fails, answers 502 or 503
 * where it has none, and cannot say anything once a tunnel stands.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { listenNear } from "./demo-listen.ts";

export interface PlainProxyOptions {
  readonly host: string;
  readonly port: number;
  readonly backends: readonly { readonly host: string; readonly port: number }[];
  /** Tunnels at once; 0: no limit. */
  readonly maxConnections: number;
}

export interface PlainProxy {
  readonly port: number;
  close(): Promise<void>;
}

export async function startPlainProxy(options: PlainProxyOptions): Promise<PlainProxy> {
  const clients = new Set<Socket>();
  let turn = 0;
  const server = createServer((client) => {
    clients.add(client);
    client.on("error", () => client.destroy());
    client.once("close", () => clients.delete(client));
    if (options.maxConnections > 0 && clients.size > options.maxConnections) {
      answer(client, "503 Service Unavailable");
    } else {
      tunnel(client, options, turn++, options.backends.length);
    }
  });
  const port = await listenNear(server, options.host, options.port);
  return { port, close: () => close(server, clients) };
}

function tunnel(client: Socket, options: PlainProxyOptions, turn: number, left: number): void {
  const backend = options.backends[turn % options.backends.length];
  if (backend === undefined || left === 0) {
    answer(client, "502 Bad Gateway");
    return;
  }
  const upstream = connect(backend.port, backend.host);
  let connected = false;
  upstream.once("connect", () => {
    connected = true;
    client.pipe(upstream).pipe(client);
  });
  upstream.on("error", () => {
    if (connected) client.destroy();
    else if (!client.destroyed) tunnel(client, options, turn + 1, left - 1);
  });
  upstream.once("close", () => {
    if (connected) client.destroy();
  });
  client.once("close", () => upstream.destroy());
}

/** After the request has arrived, so that the answer is not lost to a reset. */
function answer(client: Socket, status: string): void {
  client.once("data", () => {
    client.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
  });
}

function close(server: Server, clients: ReadonlySet<Socket>): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    for (const client of clients) client.destroy();
  });
}
