/** Which route a request takes: the first whose host and path match. */
import type { RouteConfig } from "../config/config.ts";

export class Router {
  readonly #entries: readonly { readonly route: RouteConfig; readonly prefix: string | null }[];

  constructor(routes: readonly RouteConfig[]) {
    this.#entries = routes.map((route) => {
      const { path } = route.match;
      return { route, prefix: path === null ? null : (plainPath(path) ?? path) };
    });
  }

  /** The route of this name. */
  named(name: string): RouteConfig | undefined {
    return this.#entries.find(({ route }) => route.name === name)?.route;
  }

  /** `host` as in the Host header; `target` in origin form. */
  find(host: string, target: string): RouteConfig | null {
    const name = hostName(host);
    const path = plainPath(target.split(/[?#]/, 1)[0] ?? "/");
    if (path === null) return null;
    const entry = this.#entries.find(
      ({ route, prefix }) => hostMatches(route.match.host, name) && pathMatches(prefix, path),
    );
    return entry?.route ?? null;
  }
}

/** Lower case, without port and without the dot of a fully qualified name. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, "").replace(/\.$/, "");
}

/**
 * The path as a backend is likely to read it, so that no other way of writing `/admin` gets round its
 * route: `/ws/../admin`, `//admin`, `/%61dmin`. What is sent on is what the client sent. Null: what `..`
 * leads to depends on the reader, as in `/admin//..`, where URLs keep the empty segment and file systems do
 * not.
 */
function plainPath(path: string): string | null {
  if (!/[.%\\]|\/\//.test(path)) return path;
  /** With empty segments, and without. */
  const asUrl: string[] = [];
  const asFile: string[] = [];
  const plain = path.replace(/%[\da-f]{2}/gi, plainOctet);
  for (const segment of plain.split(/[/\\]/).slice(1)) {
    if (segment === "..") {
      asUrl.pop();
      asFile.pop();
    } else if (segment !== ".") {
      asUrl.push(segment);
      if (segment !== "") asFile.push(segment);
    }
  }
  const read = asFile.join("/");
  return read === asUrl.filter((segment) => segment !== "").join("/") ? `/${read}` : null;
}

/** RFC 3986 §6.2.2: a letter, digit, or one of `-._~` is the same thing encoded and as it is. */
function plainOctet(encoded: string): string {
  const character = String.fromCharCode(Number.parseInt(encoded.slice(1), 16));
  return /[\w.~-]/.test(character) ? character : encoded.toUpperCase();
}

function hostMatches(pattern: string | null, host: string): boolean {
  if (pattern === null) return true;
  return pattern.startsWith("*.") ? host.endsWith(pattern.slice(1)) : host === pattern;
}

/** A prefix on segment borders: `/ws` matches `/ws` and `/ws/x`, not `/wsx`. */
function pathMatches(prefix: string | null, path: string): boolean {
  if (prefix === null || prefix === "/" || path === prefix) return true;
  return path.startsWith(prefix.endsWith("/") ? prefix : `${prefix}/`);
}
