/**
 * A small guarded HTTP server over a table of resources: for the admin listener and the demo's page.
 * Guards against browsers of other origins, slow clients, large heads and bodies that nobody reads.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Bind } from "../config/config.ts";
import { bearerAllowed, hostAllowed, originAllowed } from "./guard.ts";

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
}

export interface Resource {
  readonly allow: readonly string[];
  /** True: asks for the token, and for the same origin where a browser names one. */
  readonly mutates: boolean;
  /** What the body may be at most; 0: nothing of it is read. */
  readonly maxBodyBytes: number;
  answer(body: string): Answer | Promise<Answer>;
}

export interface HttpServerOptions {
  readonly bind: Bind;
  /** Empty: mutations need no token. */
  readonly token: () => string;
  readonly find: (path: string, query: URLSearchParams) => Resource | null;
  /** A bug behind one answer (the client gets 500); never an operator's or a client's mistake. */
  readonly onError: (error: unknown) => void;
}

export interface HttpServer {
  /** The address in use; its port is the real one where the config said 0. */
  readonly bind: Bind;
  /** Ends at once, also idle keep-alive connections. */
  close(): Promise<void>;
}

/** Nobody needs more; an operator's browser, a few probes and scrapers. */
const MAX_CONNECTIONS = 256;
const MAX_HEAD_BYTES = 8 * 1024;
const HEAD_TIMEOUT_MS = 5_000;
const REQUEST_TIMEOUT_MS = 10_000;
/** Node looks for overdue requests only this often; its default of 30 s would void the two above. */
const TIMEOUT_CHECK_MS = 1_000;

const SECURITY_HEADERS = {
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cross-Origin-Resource-Policy": "same-origin",
};

/** Rejects with Node's own error (EADDRINUSE, EACCES, ENOTFOUND, …) if it cannot listen. */
export async function startHttpServer(options: HttpServerOptions): Promise<HttpServer> {
  const handle = (
    request: IncomingMessage,
    response: ServerResponse,
    inviteBody: () => void,
  ): void => {
    void answer(request, options, inviteBody)
      .catch((error: unknown) => {
        options.onError(error);
        return problem(500, "internal error");
      })
      .then((result) => write(request, response, result))
      .catch(options.onError);
  };
  const server = createServer(
    {
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: HEAD_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
    },
    (request: IncomingMessage, response: ServerResponse) => handle(request, response, NOBODY),
  );
  // Without this, Node would invite a body that nobody reads.
  server.on("checkContinue", (request: IncomingMessage, response: ServerResponse) =>
    handle(request, response, () => response.writeContinue()),
  );
  server.maxConnections = MAX_CONNECTIONS;
  await listen(server, options.bind);
  server.on("error", options.onError);
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : options.bind.port;
  return { bind: { host: options.bind.host, port }, close: () => close(server) };
}

/** What GET and HEAD may ask for. */
export function readable(get: Resource["answer"]): Resource {
  return { allow: ["GET", "HEAD"], mutates: false, maxBodyBytes: 0, answer: get };
}

export function mutation(method: "POST" | "DELETE", change: Resource["answer"]): Resource {
  return { allow: [method], mutates: true, maxBodyBytes: 0, answer: change };
}

/** A POST with a body of at most so many bytes. */
export function submission(maxBodyBytes: number, change: Resource["answer"]): Resource {
  return { allow: ["POST"], mutates: true, maxBodyBytes, answer: change };
}

export function text(status: number, body: string): Answer {
  return { status, headers: { "Content-Type": "text/plain; charset=utf-8" }, body };
}

export function json(status: number, value: unknown): Answer {
  return {
    status,
    headers: { "Content-Type": "application/json; charset=utf-8" },
    body: `${JSON.stringify(value)}\n`,
  };
}

export function problem(
  status: number,
  error: string,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  const answered = json(status, { error });
  return { ...answered, headers: { ...answered.headers, ...headers } };
}

async function answer(
  request: IncomingMessage,
  { bind, token, find }: HttpServerOptions,
  inviteBody: () => void,
): Promise<Answer> {
  const { host, origin, authorization } = request.headers;
  if (!hostAllowed(host, bind.host)) {
    return problem(421, "Host not allowed: use an IP address, localhost or the host of the bind");
  }
  const url = parseTarget(request.url);
  if (url === null) return problem(400, "malformed request target");
  const resource = find(url.pathname, url.searchParams);
  if (resource === null) return problem(404, "not found");
  if (!resource.allow.includes(request.method ?? "")) {
    const allow = resource.allow.join(", ");
    return problem(405, `method not allowed, use ${allow}`, { Allow: allow });
  }
  if (resource.mutates) {
    if (!originAllowed(origin, host)) return problem(403, "cross-origin request refused");
    if (!bearerAllowed(authorization, token())) {
      return problem(401, "token required", { "WWW-Authenticate": 'Bearer realm="softclose"' });
    }
  }
  const { maxBodyBytes } = resource;
  if (maxBodyBytes === 0) return await resource.answer("");
  const tooLarge = problem(413, `body larger than ${maxBodyBytes} bytes`);
  if (request.headers.expect !== undefined) {
    if (Number(request.headers["content-length"] ?? 0) > maxBodyBytes) return tooLarge;
    inviteBody();
  }
  const body = await readBody(request, maxBodyBytes);
  switch (body.state) {
    case "whole":
      return await resource.answer(body.text);
    case "tooLarge":
      return tooLarge;
    case "cut":
      // Nobody is there to read this.
      return problem(400, "the body was cut off");
  }
}

type Body =
  | { readonly state: "whole"; readonly text: string }
  | { readonly state: "tooLarge" | "cut" };

/**
 * What is too large is read to its end and dropped: an answer before it could be overtaken by a reset.
 * Node's requestTimeout bounds the wait.
 */
function readBody(request: IncomingMessage, maxBytes: number): Promise<Body> {
  return new Promise((resolve) => {
    let chunks: Buffer[] = [];
    let bytes = 0;
    request.on("data", (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= maxBytes) chunks.push(chunk);
      else chunks = [];
    });
    request.on("end", () => {
      if (bytes > maxBytes) resolve({ state: "tooLarge" });
      else resolve({ state: "whole", text: Buffer.concat(chunks).toString("utf8") });
    });
    request.on("error", () => resolve({ state: "cut" }));
    request.on("close", () => resolve({ state: "cut" }));
  });
}

const NOBODY = (): void => undefined;

function write(request: IncomingMessage, response: ServerResponse, result: Answer): void {
  // The client may have left while the answer was made.
  if (response.destroyed) return;
  const hasBody =
    request.headers["transfer-encoding"] !== undefined ||
    Number(request.headers["content-length"] ?? 0) > 0;
  if (hasBody && !request.readableEnded) {
    // Unread, it must not be taken for the next request.
    response.shouldKeepAlive = false;
    response.once("finish", () => request.socket.destroySoon());
  }
  const length = result.status === 204 ? {} : { "Content-Length": Buffer.byteLength(result.body) };
  response.writeHead(result.status, { ...SECURITY_HEADERS, ...result.headers, ...length });
  response.end(request.method === "HEAD" ? undefined : result.body);
}

/** Origin form only (RFC 9112 §3.2.1): an absolute target would name a second host. */
function parseTarget(target: string | undefined): URL | null {
  if (target === undefined || !target.startsWith("/") || target.startsWith("//")) return null;
  const base = "http://admin.invalid";
  return URL.canParse(target, base) ? new URL(target, base) : null;
}

function listen(server: Server, bind: Bind): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: bind.host, port: bind.port }, () => {
      server.removeListener("error", reject);
      resolve();
    });
  });
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
