/** Which route a request takes: the first whose host and path match. */
import type { RouteConfig } from "../config/config.ts";

interface Entry {
  readonly route: RouteConfig;
  /** As `readingsOf` gives it. */
  readonly prefix: string | null;
}

export class Router {
  readonly #entries: readonly Entry[];

  constructor(routes: readonly RouteConfig[]) {
    this.#entries = routes.map((route) => {
      const { path } = route.match;
      // The configuration has only paths with one reading.
      return { route, prefix: path === null ? null : (readingsOf(path)[0] ?? path) };
    });
  }

  /** The route of this name. */
  named(name: string): RouteConfig | undefined {
    return this.#entries.find(({ route }) => route.name === name)?.route;
  }

  /**
   * `host` as in the Host header; `target` in origin form. Null: none matches, or different ones do, by how
   * the path is read.
   */
  find(host: string, target: string): RouteConfig | null {
    const name = hostName(host);
    const [first = "/", ...others] = readingsOf(target.split(/[?#]/, 1)[0] ?? "/");
    const route = this.#find(name, first);
    return others.every((path) => this.#find(name, path) === route) ? route : null;
  }

  #find(host: string, path: string): RouteConfig | null {
    const entry = this.#entries.find(
      ({ route, prefix }) => hostMatches(route.match.host, host) && pathMatches(prefix, path),
    );
    return entry?.route ?? null;
  }
}

/** Lower case, without port and without the dot of a fully qualified name. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, "").replace(/\.$/, "");
}

/**
 * The path in every way in which a backend may read it, so that no other way of writing `/admin` gets round its
 * route. Most have one: `//admin` and `/%61dmin` are `/admin`. But `/x/../admin`, `/x%2f..%2fadmin` and `/admin//..`
 * depend on the reader: whether it resolves dots, keeps empty segments before it does, and what it takes for a
 * separator. What is sent on is what the client sent.
 */
function readingsOf(path: string): readonly string[] {
  if (!/%|\\|\/\/|\/\.{1,2}(?:[/;]|$)/.test(path)) return [path];
  const plain = path.replace(/%[\da-f]{2}/gi, plainOctet);
  const readings = new Set<string>();
  for (const separator of hasOneReading(plain) ? ["/"] : SEPARATORS) {
    const segments = plain.split(separator).slice(1);
    readings.add(joined(segments));
    readings.add(joined(resolved(segments)));
    readings.add(joined(resolved(segments.filter((segment) => segment !== ""))));
  }
  return [...readings];
}

const SEPARATORS = ["/", /[/\\]/, /[/\\]|%2F|%5C/];

/** Whether a path, its unreserved characters not encoded, means the same to all. */
function hasOneReading(path: string): boolean {
  return !/\\|%2F|%5C|(?:^|\/)\.{1,2}(?:[/;]|$)/.test(path);
}

function joined(segments: readonly string[]): string {
  return `/${segments.filter((segment) => segment !== "").join("/")}`;
}

/** RFC 3986 §5.2.4; and as servlet containers have it, which take parameters off first: `..;a=b` is `..`. */
function resolved(segments: readonly string[]): readonly string[] {
  const left: string[] = [];
  for (const segment of segments) {
    if (/^\.\.(?:;|$)/.test(segment)) left.pop();
    else if (!/^\.(?:;|$)/.test(segment)) left.push(segment);
  }
  return left;
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
