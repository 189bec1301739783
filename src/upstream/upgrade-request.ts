/**
 * The upgrade request that a backend gets, and the check of its answer (RFC 6455 §4.1, §4.2.2). The
 * request is kept as text, so that it can be sent again to another backend with a fresh key.
 */
import { hash, randomUUID } from "node:crypto";
import { type DeflateParameters, formatDeflate, readAnswer } from "../wire/deflate.ts";
import { hasToken, headerValue, type ResponseHead } from "../wire/response-head.ts";

export interface UpgradeRequest {
  /** Path and query, as the client sent them. */
  readonly target: string;
  /** Header lines, each with its CRLF, without those of the handshake itself. */
  readonly headerLines: string;
  readonly subprotocols: readonly string[];
  readonly offers: readonly DeflateParameters[];
}

/** What a verified 101 agreed to. */
export interface Agreement {
  /** Empty: none. */
  readonly subprotocol: string;
  readonly deflate: DeflateParameters | null;
}

/** RFC 6455 §1.3. */
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/** 16 bytes, 122 bits of them random: Node draws UUIDs from a reserve, a system call for 128 of them. */
export function newKey(): string {
  return Buffer.from(randomUUID().replaceAll("-", ""), "hex").toString("base64");
}

/** `Sec-WebSocket-Accept` for a key. */
export function acceptFor(key: string): string {
  return hash("sha1", key + GUID, "base64");
}

export function serializeRequest(request: UpgradeRequest, key: string): string {
  let head = `GET ${request.target} HTTP/1.1\r\n${request.headerLines}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n`;
  if (request.subprotocols.length > 0) {
    head += `Sec-WebSocket-Protocol: ${request.subprotocols.join(", ")}\r\n`;
  }
  if (request.offers.length > 0) {
    head += `Sec-WebSocket-Extensions: ${formatDeflate(request.offers)}\r\n`;
  }
  return `${head}\r\n`;
}

/** Checks a 101; a string says why it is a false one. */
export function verifyAnswer(
  head: ResponseHead,
  request: UpgradeRequest,
  key: string,
): Agreement | string {
  if (headerValue(head, "upgrade")?.toLowerCase() !== "websocket") {
    return "101 without Upgrade: websocket";
  }
  if (!hasToken(headerValue(head, "connection"), "upgrade")) {
    return "101 without Connection: Upgrade";
  }
  if (headerValue(head, "sec-websocket-accept") !== acceptFor(key)) {
    return "101 with a wrong Sec-WebSocket-Accept";
  }
  const subprotocol = headerValue(head, "sec-websocket-protocol") ?? "";
  if (subprotocol !== "" && !request.subprotocols.includes(subprotocol)) {
    return "101 with a subprotocol that was not offered";
  }
  const deflate = readAnswer(headerValue(head, "sec-websocket-extensions"), request.offers);
  if (typeof deflate === "string") return `101 with ${deflate}`;
  return { subprotocol, deflate };
}
