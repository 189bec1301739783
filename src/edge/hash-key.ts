/**
 * What `balance: hash` looks at in a request. Values are compared as they came, without decoding: all
 * that matters is that the same client says the same thing again. Node's limit on the size of a head
 * bounds them.
 */
import type { HashKey } from "../config/config.ts";
import type { HandshakeRequest } from "./handshake-check.ts";

/** null: the client brought none, or an empty one, which would put all such clients in one place. */
export function hashKeyOf(
  key: HashKey,
  request: Pick<HandshakeRequest, "headers" | "rawHeaders">,
  /** Path and query, in origin form. */
  target: string,
  clientIp: string,
): string | null {
  const value = read(key, request, target, clientIp);
  return value === "" ? null : value;
}

function read(
  key: HashKey,
  request: Pick<HandshakeRequest, "headers" | "rawHeaders">,
  target: string,
  clientIp: string,
): string | null {
  switch (key.kind) {
    case "clientIp":
      return clientIp;
    case "header":
      return firstHeader(request.rawHeaders, key.name.toLowerCase());
    case "cookie":
      return valueIn(request.headers.cookie ?? "", ";", key.name);
    case "query":
      return valueIn(queryOf(target), "&", key.name);
  }
}

/** The raw list, as Node joins repeated headers, and as any name at all may be configured. */
function firstHeader(rawHeaders: readonly string[], name: string): string | null {
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() === name) return rawHeaders[i + 1] ?? null;
  }
  return null;
}

function queryOf(target: string): string {
  const [beforeFragment = ""] = target.split("#", 1);
  const start = beforeFragment.indexOf("?");
  return start === -1 ? "" : beforeFragment.slice(start + 1);
}

/**
 * The value of the first `name=value` of this name. RFC 6265 §5.4: browsers send the cookie of the
 * longest path first, so the first is the one that is meant. Names are case-sensitive; quotes belong
 * to the value.
 */
function valueIn(pairs: string, separator: ";" | "&", name: string): string | null {
  for (const pair of pairs.split(separator)) {
    const equals = pair.indexOf("=");
    if (equals !== -1 && pair.slice(0, equals).trim() === name)
      return pair.slice(equals + 1).trim();
  }
  return null;
}
