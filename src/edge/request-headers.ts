/** Which of a client's headers go on to the backend, and which of the backend's to the client. */
import { hasToken } from "../wire/response-head.ts";
import type { Forwarded } from "./forwarded.ts";
import type { HandshakeRequest } from "./handshake-check.ts";

/** RFC 9110 §7.6.1, and Proxy-Authorization, which is meant for us (§11.7.2). */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Headers by which a hop speaks for the client; believed from trusted proxies only. */
function isClaim(name: string): boolean {
  return name.startsWith("x-forwarded-") || name === "forwarded" || name === "x-real-ip";
}

/** Ours to set. */
const SET_BY_US: ReadonlySet<string> = new Set([
  "host",
  "x-forwarded-for",
  "x-forwarded-proto",
  "x-forwarded-host",
]);

/** Whether a request header of this name (lower case) passes on to a backend. */
export function passesToBackend(
  name: string,
  connection: string | undefined,
  trusted: boolean,
): boolean {
  // CGI and its heirs read X_Forwarded_For as X-Forwarded-For.
  const read = name.replaceAll("_", "-");
  if (HOP_BY_HOP.has(name) || SET_BY_US.has(read) || read.startsWith("softclose-")) return false;
  if (isClaim(read) && !trusted) return false;
  return connection === undefined || !hasToken(connection, name);
}

/** Whether a header of a backend's answer of this name (lower case) passes on to the client. */
export function passesToClient(name: string, connection: string | undefined): boolean {
  if (HOP_BY_HOP.has(name)) return false;
  // Without its length a body would be framed anew, and a HEAD would tell of none.
  return name === "content-length" || connection === undefined || !hasToken(connection, name);
}

/** The header lines of an upgrade request, each with its CRLF, without those of the handshake. */
export function upgradeHeaderLines(
  request: HandshakeRequest,
  forwarded: Forwarded,
  sessionId: string,
): string {
  const { rawHeaders, headers } = request;
  let lines = `Host: ${headers.host ?? ""}\r\n`;
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? "";
    const lower = name.toLowerCase();
    if (lower.startsWith("sec-websocket-") || lower === "content-length") continue;
    if (!passesToBackend(lower, headers.connection, forwarded.trusted)) continue;
    lines += `${name}: ${rawHeaders[i + 1] ?? ""}\r\n`;
  }
  for (const [name, value] of Object.entries(forwarded.headers)) lines += `${name}: ${value}\r\n`;
  return `${lines}Softclose-Session: ${sessionId}\r\n`;
}

/** The backend's headers that a client may see beside the ones of the handshake, as header lines. */
export function responseHeaderLines(headers: readonly (readonly [string, string])[]): string {
  const connection = headers
    .filter(([name]) => name.toLowerCase() === "connection")
    .map(([, value]) => value)
    .join(", ");
  let lines = "";
  for (const [name, value] of headers) {
    const lower = name.toLowerCase();
    if (lower.startsWith("sec-websocket-") || lower === "content-length") continue;
    if (!passesToClient(lower, connection)) continue;
    lines += `${name}: ${value}\r\n`;
  }
  return lines;
}
