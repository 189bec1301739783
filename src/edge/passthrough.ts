/**
 * Plain HTTP requests on a WebSocket port go to the same pool, through `http-proxy`. What is ours here:
 * which headers pass and how a body is framed, both ways; what the client is told when the backend
 * fails; and that neither side can hang on the other's death, or end the process by what it sends.
 */
import {
  Agent,
  type ClientRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import { createProxyServer, type ProxyServer } from "http-proxy";
import type { Pool } from "../upstream/pool.ts";
import type { ForwardedReader } from "./forwarded.ts";
import { countOfHeader, originForm } from "./handshake-check.ts";
import { passesToBackend, passesToClient } from "./request-headers.ts";
import type { Router } from "./router.ts";

export interface PassthroughServices {
  readonly routing: () => { readonly router: Router };
  readonly pools: { get(name: string): Pool | undefined };
  /** A backend that sends nothing for this long has failed. Default: 60 s. */
  readonly silenceTimeoutMs?: number;
}

/** Idle connections to backends that are kept for the next request. */
const MAX_IDLE_SOCKETS = 64;
/** Safe methods: those that ask for nothing but an answer. */
const REPEATABLE: ReadonlySet<string> = new Set(["GET", "HEAD", "OPTIONS"]);
/** As nginx's proxy_read_timeout. */
const SILENCE_TIMEOUT_MS = 60_000;

/** What is known of a request while the backend works on it. */
interface Exchange {
  readonly headers: IncomingHttpHeaders;
  outcome: "waiting" | "silent";
  /** `used`: it has served another request before, and the backend may have ended it since. */
  connection: "none" | "fresh" | "used";
}

interface Destination {
  readonly target: string;
  readonly exchange: Exchange;
  readonly agent?: false;
}

export class Passthrough {
  readonly #services: PassthroughServices;
  readonly #agent = new Agent({ keepAlive: true, maxFreeSockets: MAX_IDLE_SOCKETS });
  readonly #proxy: ProxyServer;
  readonly #exchanges = new WeakMap<IncomingMessage, Exchange>();

  constructor(services: PassthroughServices) {
    this.#services = services;
    this.#proxy = createProxyServer({
      agent: this.#agent,
      proxyTimeout: services.silenceTimeoutMs ?? SILENCE_TIMEOUT_MS,
      // Its own relay of answers passes hop-by-hop headers on and throws at some that Node may not send.
      selfHandleResponse: true,
      // The target as it came: `http-proxy` would resolve it as a URL, and throws where it is none.
      toProxy: true,
    });
    // The client went away first: nobody is left to answer.
    this.#proxy.on("econnreset", (_error, _request, response) => destroy(response));
    // Its last word before the request goes out; it has put its own ideas of framing in by now.
    this.#proxy.on("start", (request) => {
      request.headers = this.#exchanges.get(request)?.headers ?? {};
    });
    this.#proxy.on("proxyReq", (outgoing, request, response) =>
      this.#watch(outgoing, request, response),
    );
    this.#proxy.on("proxyRes", relayAnswer);
  }

  handle(request: IncomingMessage, response: ServerResponse, reader: ForwardedReader): void {
    const target = originForm(request.url ?? "");
    if (target === null) {
      answer(request, response, 400, "malformed request target");
      return;
    }
    // RFC 9112 §3.2. That there is one at all is Node's to check.
    if (countOfHeader(request, "host") > 1) {
      answer(request, response, 400, "more than one Host header");
      return;
    }
    const coding = request.headers["transfer-encoding"];
    if (coding !== undefined && coding.toLowerCase() !== "chunked") {
      answer(request, response, 501, "the only transfer coding served here is chunked");
      return;
    }
    const route = this.#services.routing().router.find(request.headers.host ?? "", target);
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
    const headers = backendHeaders(request, reader);
    const exchange: Exchange = { headers, outcome: "waiting", connection: "none" };
    this.#exchanges.set(request, exchange);
    const host = backend.host.includes(":") ? `[${backend.host}]` : backend.host;
    this.#send(request, response, { target: `http://${host}:${backend.port}`, exchange });
  }

  close(): void {
    this.#agent.destroy();
  }

  /** `agent`: false for a connection of its own. */
  #send(request: IncomingMessage, response: ServerResponse, to: Destination): void {
    const { target, exchange, agent = this.#agent } = to;
    this.#proxy.web(request, response, { target, agent }, (error: NodeJS.ErrnoException) => {
      // Of a client that has left, `http-proxy` passes on some errors, too.
      if (response.headersSent || response.destroyed) destroy(response);
      else if (exchange.outcome === "silent") {
        answer(request, response, 504, "the backend did not answer in time");
      } else if (exchange.connection === "used" && endedIdle(error) && isRepeatable(request)) {
        this.#send(request, response, { target, exchange, agent: false });
      } else answer(request, response, 502, "the backend failed");
    });
  }

  #watch(outgoing: ClientRequest, request: IncomingMessage, response: ServerResponse): void {
    const exchange = this.#exchanges.get(request);
    if (exchange !== undefined) exchange.connection = outgoing.reusedSocket ? "used" : "fresh";
    outgoing.once("timeout", () => {
      if (exchange !== undefined) exchange.outcome = "silent";
    });
    // Nothing was asked to be upgraded. Without a listener Node drops the answer without a word.
    outgoing.once("upgrade", (_incoming, socket) => {
      socket.destroy();
      answer(request, response, 502, "the backend failed");
    });
  }
}

/** What Node says of a connection that was ended, by a FIN or a reset, before anything came back. */
function endedIdle({ code }: NodeJS.ErrnoException): boolean {
  return code === "ECONNRESET" || code === "EPIPE";
}

/**
 * RFC 9110 §9.2.2: nobody may repeat what might do something twice. A body that the first connection has
 * taken cannot be had again.
 */
function isRepeatable({ method = "", headers }: IncomingMessage): boolean {
  const hasBody =
    headers["transfer-encoding"] !== undefined || (headers["content-length"] ?? "0") !== "0";
  return REPEATABLE.has(method) && !hasBody;
}

/** The request's headers for the backend: one hop ends here, and another one begins. */
function backendHeaders(request: IncomingMessage, reader: ForwardedReader): IncomingHttpHeaders {
  const { headers, method } = request;
  const { connection, host } = headers;
  const forwarded = reader.read(headers, request.socket.remoteAddress);
  const result: IncomingHttpHeaders = {};
  for (const [name, value] of Object.entries(headers)) {
    if (passesToBackend(name, connection, forwarded.trusted)) result[name] = value;
  }
  if (host !== undefined) result.host = host;
  // Whatever Connection names: a body without its framing would be read as the next request.
  delete result["content-length"];
  const length = headers["content-length"];
  if (headers["transfer-encoding"] !== undefined) result["transfer-encoding"] = "chunked";
  else if (length !== undefined) result["content-length"] = length;
  else if (method !== "GET" && method !== "HEAD") result["content-length"] = "0";
  // Node has answered it: the client sends its body already.
  delete result.expect;
  for (const [name, value] of Object.entries(forwarded.headers)) {
    result[name.toLowerCase()] = value;
  }
  return result;
}

/** What Node takes as a reason phrase. */
const REASON = /^[\t\x20-\x7e\x80-\xff]*$/;

function relayAnswer(
  incoming: IncomingMessage,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { statusCode: status = 0, statusMessage = "", rawHeaders } = incoming;
  if (status < 200) {
    // Informational answers never come this way: this is a 101 without an upgrade, or no status at all.
    incoming.destroy();
    answer(request, response, 502, "the backend failed");
    return;
  }
  const connection = incoming.headers.connection;
  const headers: string[] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? "";
    if (passesToClient(name.toLowerCase(), connection)) headers.push(name, rawHeaders[i + 1] ?? "");
  }
  if (REASON.test(statusMessage)) response.writeHead(status, statusMessage, headers);
  else response.writeHead(status, headers);
  incoming.on("close", () => {
    // The backend died in mid-body. Ending the response here would call half a body a whole one.
    if (!incoming.complete) destroy(response);
  });
  incoming.pipe(response);
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
