/**
 * Who may talk to an HTTP server that has no users of its own: the Host check against DNS rebinding,
 * the same-origin check for mutations, and the bearer token. Pure functions over header values.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isIP, isIPv6 } from "node:net";

/**
 * DNS rebinding: a web page of evil.example whose name suddenly resolves to 127.0.0.1 could read and
 * drive this server from the operator's browser, and then Host still says evil.example. An IP literal,
 * `localhost` or the name we were told to bind cannot be such a name. No Host at all (HTTP/1.0) is not
 * a browser.
 */
export function hostAllowed(host: string | undefined, bindHost: string): boolean {
  if (host === undefined) return true;
  const name = hostname(host);
  if (name === null) return false;
  return isIP(name) !== 0 || name === "localhost" || name === bindHost.toLowerCase();
}

/** Browsers send Origin with every cross-origin request that is not a plain GET. */
export function originAllowed(origin: string | undefined, host: string | undefined): boolean {
  if (origin === undefined) return true;
  if (host === undefined || !URL.canParse(origin)) return false;
  return new URL(origin).host === host.toLowerCase();
}

/** An empty token asks for nothing. Compared by digest: equal length, and no early exit to time. */
export function bearerAllowed(authorization: string | undefined, token: string): boolean {
  if (token === "") return true;
  const given = /^Bearer +(\S+) *$/i.exec(authorization ?? "")?.[1] ?? "";
  return timingSafeEqual(sha256(given), sha256(token));
}

/** The host part of a Host header, lower case and without brackets; null if it is not one. */
function hostname(host: string): string | null {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::\d{1,5})?$/.exec(host.toLowerCase());
  if (match === null) return null;
  const [, bracketed, plain] = match;
  if (bracketed !== undefined) return isIPv6(bracketed) ? bracketed : null;
  return plain ?? null;
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
