/** Which route a request takes: the first whose host and path match. */
import type { RouteConfig } from "../config/config.ts";

export class Router {
  readonly #routes: readonly RouteConfig[];

  constructor(routes: readonly RouteConfig[]) {
    this.#routes = routes;
  }

  /** `host` as in the Host header; `target` in origin form. */
  find(host: string, target: string): RouteConfig | null {
    const name = hostName(host);
    const path = pathOf(target);
    return (
      this.#routes.find(
        ({ match }) => hostMatches(match.host, name) && pathMatches(match.path, path),
      ) ?? null
    );
  }
}

/** Lower case, without port and without the dot of a fully qualified name. */
function hostName(host: string): string {
  return host.toLowerCase().replace(/:\d+$/, "").replace(/\.$/, "");
}

/**
 * The path as a backend is likely to read it: dot segments resolved, so that `/ws/../admin` takes the
 * route of `/admin` and not the one of `/ws`. What is sent on is what the client sent.
 */
function pathOf(target: string): string {
  const path = target.split(/[?#]/, 1)[0] ?? "/";
  if (!/\.|%2e/i.test(path)) return path;
  // A second slash at the start would make the first segment a host.
  const url = `http://gateway.invalid/${path.replace(/^\/+/, "")}`;
  return URL.canParse(url) ? new URL(url).pathname : path;
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
