/**
 * Checks a client's opening handshake (RFC 6455 §4.2.1) and reads from it what the session needs. Pure:
 * a request in, a fault or a handshake out.
 */
import type { IncomingMessage } from "node:http";
import { subprotocol } from "ws";
import { type DeflateParameters, readOffers } from "../wire/deflate.ts";

/** The parts of a request that matter here. */
export type HandshakeRequest = Pick<
  IncomingMessage,
  "method" | "url" | "httpVersion" | "headers" | "rawHeaders"
>;

/** How a handshake that is none is answered; the connection is closed after it. */
export interface HandshakeFault {
  readonly status: 400 | 405 | 426;
  readonly message: string;
  readonly headers: Readonly<Record<string, string>>;
}

export interface ClientHandshake {
  /** Path and query, in origin form. */
  readonly target: string;
  readonly host: string;
  readonly key: string;
  readonly subprotocols: readonly string[];
  readonly offers: readonly DeflateParameters[];
}

/** 16 bytes in base64. */
const KEY = /^[+/0-9A-Za-z]{22}==$/;
const VERSION = "13";

export function checkHandshake(request: HandshakeRequest): ClientHandshake | HandshakeFault {
  const { headers } = request;
  if (request.method !== "GET") {
    return fault(405, "a WebSocket handshake is a GET request", { Allow: "GET" });
  }
  if (request.httpVersion !== "1.1") return fault(400, "a WebSocket handshake needs HTTP/1.1");
  if (headers.upgrade?.toLowerCase() !== "websocket") {
    return fault(400, "the only upgrade served here is websocket");
  }
  if (countOfHeader(request, "host") !== 1) return fault(400, "exactly one Host header is needed");
  if (Number(headers["content-length"] ?? 0) > 0 || headers["transfer-encoding"] !== undefined) {
    return fault(400, "a WebSocket handshake has no body");
  }
  if (headers["sec-websocket-version"] !== VERSION) {
    const message = "the only WebSocket version served here is 13";
    return fault(426, message, { Upgrade: "websocket", "Sec-WebSocket-Version": VERSION });
  }
  const key = headers["sec-websocket-key"];
  if (key === undefined || !KEY.test(key)) {
    return fault(400, "Sec-WebSocket-Key is missing or not 16 bytes in base64");
  }
  const target = originForm(request.url ?? "");
  if (target === null) return fault(400, "malformed request target");
  const subprotocols = readSubprotocols(headers["sec-websocket-protocol"]);
  if (subprotocols === null) return fault(400, "malformed Sec-WebSocket-Protocol");
  const offers = readOffers(headers["sec-websocket-extensions"]);
  if (offers === null) return fault(400, "malformed Sec-WebSocket-Extensions");
  return { target, host: headers.host ?? "", key, subprotocols, offers };
}

/** RFC 9112 §3.2: origin form as it is, absolute form without scheme and host; null: neither. */
export function originForm(url: string): string | null {
  if (url.startsWith("/")) return url;
  const absolute = /^(?:https?|wss?):\/\/[^/?#]+(?<path>[/?].*)?$/i.exec(url);
  if (absolute === null) return null;
  const path = absolute.groups?.["path"] ?? "/";
  return path.startsWith("/") ? path : `/${path}`;
}

/** How many header lines have this name (lower case); Node keeps the first of some and joins others. */
export function countOfHeader(request: Pick<IncomingMessage, "rawHeaders">, name: string): number {
  let count = 0;
  for (let i = 0; i < request.rawHeaders.length; i += 2) {
    if (request.rawHeaders[i]?.toLowerCase() === name) count += 1;
  }
  return count;
}

function fault(
  status: HandshakeFault["status"],
  message: string,
  headers: HandshakeFault["headers"] = {},
): HandshakeFault {
  return { status, message, headers };
}

function readSubprotocols(header: string | undefined): string[] | null {
  if (header === undefined) return [];
  try {
    return [...subprotocol.parse(header)];
  } catch {
    // The parser throws on a syntax error and on nothing else: that is its answer.
    return null;
  }
}
