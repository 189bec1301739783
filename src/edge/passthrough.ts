/**
 * Plain HTTP requests on a WebSocket port go to the same pool, through `http-proxy`. What is ours here:
 * which headers pass, what the client is told when the backend fails, and that neither side can hang
 * on the other's death.
 */
import { Agent, type IncomingMessage, type ServerResponse } from "node:http";
import { createProxyServer, type ProxyServer } from "http-proxy";
import type { Pool } from "../upstream/pool.ts";
import type { ForwardedReader } from "./forwarded.ts";
import { originForm } from "./handshake-check.ts";
import { passesToBackend } from "./request-headers.ts";
import type { Router } from "./router.ts";

export interface PassthroughServices {
  readonly router: Router;
  readonly pools: ReadonlyMap<string, Pool>;
}

/** Idle connections to backends that are kept for the next request. */
const MAX_IDLE_SOCKETS = 64;
/** A backend that sends nothing for this long has failed; as nginx's proxy_read_timeout. */
const SILENCE_TIMEOUT_MS = 60_000;

export class Passthrough {
  readonly #services: PassthroughServices;
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: MAX_IDLE_SOCKETS });
  readonly #proxy: ProxyServer;

  constructor(services: PassthroughServices) {
    this.#services = services;
    this.#proxy = createProxyServer({ agent: this.#agent, proxyTimeout: SILENCE_TIMEOUT_MS });
    // The client went away first: nobody is left to answer.
    this.#proxy.on("econnreset", (_error, _request, response) => destroy(response));
    this.#proxy.on("proxyRes", (incoming, _request, response) => {
      incoming.on("close", () => {
        // The backend died in mid-body. Ending the response here would call half a body a whole one.
        if (!incoming.complete) destroy(response);
      });
    });
  }

  handle(request: IncomingMessage, response: ServerResponse, reader: ForwardedReader): void {
    const target = originForm(request.url ?? "");
    if (target === null) {
      answer(request, response, 400, "malformed request target");
      return;
    }
    const route = this.#services.router.find(request.headers.host ?? "", target);
    if (route === null) {
      answer(request, response, 404, "no route for this host and path");
      return;
    }
    const backend = this.#services.pools.get(route.pool)?.pickForHttp() ?? null;
    if (backend === null) {
      answer(request, response, 503, "no backend is available");
      return;
    }
    request.url = target;
    rewriteHeaders(request, reader);
    const startedAt = performance.now();
    const host = backend.host.includes(":") ? `[${backend.host}]` : backend.host;
    this.#proxy.web(request, response, { target: `http://${host}:${backend.port}` }, () => {
      if (response.headersSent) destroy(response);
      else if (performance.now() - startedAt >= SILENCE_TIMEOUT_MS) {
        answer(request, response, 504, "the backend did not answer in time");
      } else answer(request, response, 502, "the backend failed");
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** `http-proxy` passes on `request.headers` as they stand. */
function rewriteHeaders(request: IncomingMessage, reader: ForwardedReader): void {
  const { headers } = request;
  const { connection, host } = headers;
  const forwarded = reader.read(headers, request.socket.remoteAddress);
  const chunked = headers["transfer-encoding"] !== undefined;
  for (const name of Object.keys(headers)) {
    if (!passesToBackend(name, connection, forwarded.trusted)) delete headers[name];
  }
  if (host !== undefined) headers.host = host;
  // Framing between here and the backend is Node's; this header is how it learns of a body.
  if (chunked) headers["transfer-encoding"] = "chunked";
  // Node has answered it: the client sends its body already.
  delete headers.expect;
  for (const [name, value] of Object.entries(forwarded.headers)) {
    headers[name.toLowerCase()] = value;
  }
}

function answer(
  request: IncomingMessage,
  response: ServerResponse,
  status: number,
  message: string,
): void {
  if (response.destroyed || response.headersSent) return;
  const json = (request.headers.accept ?? "").includes("json");
  const body = json ? `${JSON.stringify({ status, error: message })}\n` : `${message}\n`;
  response.writeHead(status, {
    "Content-Type": json ? "application/json" : "text/plain; charset=utf-8",
    "Content-Length": Buffer.byteLength(body),
    ...(status === 503 ? { "Retry-After": "1" } : {}),
    // What is left of a request body is not read.
    Connection: "close",
  });
  response.end(body);
}

/** A socket here is http-proxy's word for the response of an upgrade, which never comes this way. */
function destroy(response: { destroy(): unknown }): void {
  response.destroy();
}
