/** What the admin listener answers: a table of paths over a GatewayView. Knows nothing of sockets. */
import type { GatewayView } from "./gateway-view.ts";
import {
  type Answer,
  json,
  mutation,
  problem,
  type Resource,
  readable,
  submission,
  text,
} from "./http-server.ts";
import type { StaticPage } from "./static-page.ts";

/** Rows of a list where the request names no limit, and the most that it can ask for. */
const DEFAULT_LIMIT = 100;
const MAX_LIMIT = 10_000;
/** As large as a configuration file may be. */
const MAX_CONFIG_BYTES = 2 ** 20;
const MAX_SMALL_BODY_BYTES = 8 * 1024;

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
    case "/api/reload":
      return mutation("POST", async () => {
        const report = await view.reload();
        const isGood = report.outcome === "applied" || report.outcome === "unchanged";
        return json(isGood ? 200 : 409, report);
      });
    case "/api/plan":
      return submission(MAX_CONFIG_BYTES, (body) => {
        const answer = view.plan(body);
        return json("plan" in answer ? 200 : 422, answer);
      });
    case "/api/backends/drain":
      return submission(MAX_SMALL_BODY_BYTES, (body) =>
        withUrl(body, (url) => {
          const drained = view.drainBackend(url);
          return drained === null ? problem(404, `no backend ${url}`) : json(202, drained);
        }),
      );
    case "/api/backends/undrain":
      return submission(MAX_SMALL_BODY_BYTES, (body) =>
        withUrl(body, (url) =>
          view.undrainBackend(url) ? json(200, {}) : problem(404, `no backend ${url}`),
        ),
      );
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

/** The backend that a body names: `{"url": "ws://10.0.0.5:9001"}`. */
function withUrl(body: string, answer: (url: string) => Answer): Answer {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return problem(400, 'the body must be JSON, like {"url": "ws://10.0.0.5:9001"}');
  }
  const url = typeof parsed === "object" && parsed !== null && "url" in parsed ? parsed.url : null;
  return typeof url === "string" ? answer(url) : problem(400, "url is missing");
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
