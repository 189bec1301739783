/** Routes with the policies of an empty configuration. */
import type { RouteConfig } from "../../../src/config/config.ts";
import { loadConfig } from "../../../src/config/load.ts";

export function aRoute(name: string, match: RouteConfig["match"]): RouteConfig {
  return { ...defaultRoute(), name, match };
}

/** With limits of its own. */
export function aLimitedRoute(name: string, limits: Partial<RouteConfig["limits"]>): RouteConfig {
  const route = defaultRoute();
  return { ...route, name, limits: { ...route.limits, ...limits } };
}

function defaultRoute(): RouteConfig {
  const yaml = `
listeners: [{ name: a, bind: "127.0.0.1:0" }]
routes: [{ name: r, pool: p }]
pools: { p: { backends: [{ url: "ws://127.0.0.1:1" }] } }
`;
  const result = loadConfig(yaml, { file: "test", env: {} });
  const [route] = "config" in result ? result.config.routes : [];
  if (route === undefined) throw new Error("the configuration of this helper is bad");
  return route;
}
