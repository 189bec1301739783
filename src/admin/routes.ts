/** What the admin listener answers: a table of paths over a GatewayView. Knows nothing of sockets. */
import type { GatewayView } from "./gateway-view.ts";
import { json, mutation, problem, type Resource, readable, text } from "./http-server.ts";
import type { StaticPage } from "./static-page.ts";

/** Rows of a list where the request names no limit, and the most that it can ask for. */
const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 10_000;

/** The resource at `path`, or null. */
export function findResource(
  path: string,
  query: URLSearchParams,
  view: GatewayView,
  page: StaticPage,
): Resource | null {
  switch (path) {
    case "/":
      return readable(() => page.answer);
    case "/healthz":
      return readable(() => text(200, "ok\n"));
    case "/readyz":
      return readable(() =>
        view.ready() ? text(200, "ready\n") : text(503, `${view.status().state}\n`),
      );
    case "/metrics":
      return readable(async () => {
        const metrics = await view.metrics();
        return {
          status: 200,
          headers: { "Content-Type": metrics.contentType },
          body: metrics.text,
        };
      });
    case "/api/status":
      return readable(() => json(200, view.status()));
    case "/api/sessions":
      return list(query, (limit) => view.sessions(limit));
    case "/api/closes":
      return list(query, (limit) => view.closes(limit));
    default:
      return liveSession(path, view);
  }
}

function liveSession(path: string, view: GatewayView): Resource | null {
  const id = /^\/api\/sessions\/([A-Za-z0-9_-]{1,128})$/.exec(path)?.[1];
  if (id === undefined) return null;
  return mutation("DELETE", () =>
    view.closeSession(id)
      ? { status: 204, headers: {}, body: "" }
      : problem(404, `no live session ${id}`),
  );
}

function list(query: URLSearchParams, rows: (limit: number) => readonly unknown[]): Resource {
  return readable(() => {
    const given = query.get("limit");
    if (given === null) return json(200, rows(DEFAULT_LIMIT));
    if (!/^\d{1,9}$/.test(given)) {
      return problem(400, `limit must be a whole number from 0 to ${MAX_LIMIT}`);
    }
    return json(200, rows(Math.min(Number(given), MAX_LIMIT)));
  });
}
