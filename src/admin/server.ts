/**
 * The admin listener: probes, metrics, the JSON API and the page, over a GatewayView. Who may ask and
 * how much is `http-server.ts`'s business; what is answered stands in `routes.ts`.
 */
import type { Bind } from "../config/config.ts";
import type { GatewayView } from "./gateway-view.ts";
import { type HttpServer, startHttpServer } from "./http-server.ts";
import { findResource } from "./routes.ts";
import { loadStaticPage } from "./static-page.ts";

export interface AdminServerOptions {
  readonly bind: Bind;
  /** Empty: mutations need no token. */
  readonly token: () => string;
  readonly view: GatewayView;
  /** A bug behind one answer (the client gets 500); never an operator's or a client's mistake. */
  readonly onError: (error: unknown) => void;
}

export type AdminServer = HttpServer;

/** Rejects with Node's own error (EADDRINUSE, EACCES, ENOTFOUND, …) if it cannot listen. */
export function startAdminServer({
  bind,
  token,
  view,
  onError,
}: AdminServerOptions): Promise<AdminServer> {
  const page = loadStaticPage(new URL("./page.html", import.meta.url));
  return startHttpServer({
    bind,
    token,
    onError,
    find: (path, query) => findResource(path, query, view, page),
  });
}
