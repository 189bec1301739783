/** Requests as the edge reads them, made from header lines as Node would. */
import type { HandshakeRequest } from "../../../src/edge/handshake-check.ts";

/** Node joins most repeated headers and keeps the first of the others. */
export function requestOf(
  rawHeaders: readonly string[],
  rest: Partial<HandshakeRequest> = {},
): HandshakeRequest {
  const headers: Record<string, string> = {};
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? "").toLowerCase();
    const value = rawHeaders[i + 1] ?? "";
    const before = headers[name];
    if (before === undefined) headers[name] = value;
    else if (name !== "host") headers[name] = `${before}${name === "cookie" ? "; " : ", "}${value}`;
  }
  return {
    method: "GET",
    url: "/",
    httpVersion: "1.1",
    headers,
    rawHeaders: [...rawHeaders],
    ...rest,
  };
}

/** A correct handshake; a header given as "" is left out. */
export function handshakeOf(
  headers: Readonly<Record<string, string>> = {},
  rest: Partial<HandshakeRequest> = {},
): HandshakeRequest {
  const all = {
    Host: "chat.example",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    ...headers,
  };
  const lines = Object.entries(all).filter(([, value]) => value !== "");
  return requestOf(lines.flat(), rest);
}
