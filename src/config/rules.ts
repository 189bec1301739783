/**
 * What spans several keys: unique names, pools that exist, routes that can be reached, values that
 * fit together. Works on the values as written and passes over malformed ones, which the schema
 * reports, so that all problems show at once.
 */

import * as z from "zod";
import { type Clash, child, ifValid, reportClashes } from "./clashes.ts";
import { isMapping, mergedPolicies } from "./merge.ts";
import type { Finding } from "./messages.ts";
import { policiesSchema } from "./policies-schema.ts";
import { checkPool } from "./pool-rules.ts";
import { backendUrl, bind, hostPattern, pathPrefix } from "./values.ts";
import { formatPath, nearest, type Path, show } from "./wording.ts";

/** A message stays one line that can be read. */
const MOST_NAMES_SHOWN = 20;

const BIND = bind();
const HOST = hostPattern().optional();
const PATH = pathPrefix().optional();
const BACKEND_URL = backendUrl();

/** Everything in `value` that no single key shows. */
export function checkRules(value: unknown): Finding[] {
  if (!isMapping(value)) return [];
  const findings: Finding[] = [];
  const listeners = listOf(value.listeners);
  const routes = listOf(value.routes);
  checkUnique(listeners, "listeners", "name", findings);
  checkUnique(routes, "routes", "name", findings);
  checkBinds(listeners, value.admin, findings);
  checkPools(routes, value.pools, findings);
  checkReachable(routes, findings);
  checkBackends(value.pools, findings);
  for (const [name, pool] of isMapping(value.pools) ? Object.entries(value.pools) : []) {
    checkPool(name, pool, findings);
  }
  checkPolicies([], mergedPolicies(value, undefined), value, findings);
  routes.forEach((route, index) => {
    checkPolicies(["routes", index], mergedPolicies(value, route), route, findings);
  });
  return findings;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function textAt(value: unknown, key: string): string | undefined {
  const found = isMapping(value) ? value[key] : undefined;
  return typeof found === "string" ? found : undefined;
}

function checkUnique(list: readonly unknown[], at: string, key: string, findings: Finding[]): void {
  const seen = new Map<string, number>();
  list.forEach((item, index) => {
    const text = textAt(item, key);
    if (text === undefined) return;
    const first = seen.get(text);
    if (first === undefined) seen.set(text, index);
    else {
      const message = `${show(text)} is already the ${key} of ${at}[${first}]`;
      findings.push({ path: [at, index, key], at: "value", message });
    }
  });
}

function checkBinds(listeners: readonly unknown[], admin: unknown, findings: Finding[]): void {
  const seen = new Map<string, string>();
  const places: [Path, string | undefined][] = listeners.map((listener, index) => [
    ["listeners", index, "bind"],
    textAt(listener, "bind"),
  ]);
  places.push([["admin", "bind"], textAt(admin, "bind")]);
  for (const [path, text] of places) {
    const parsed = BIND.safeParse(text);
    // Port 0 is another free port each time.
    if (!parsed.success || parsed.data.port === 0) continue;
    const address = `${parsed.data.host} ${parsed.data.port}`;
    const first = seen.get(address);
    if (first === undefined) seen.set(address, formatPath(path));
    else
      findings.push({ path, at: "value", message: `${show(text)} is already taken by ${first}` });
  }
}

function checkPools(routes: readonly unknown[], pools: unknown, findings: Finding[]): void {
  if (!isMapping(pools)) return;
  const names = Object.keys(pools);
  const some =
    names.slice(0, MOST_NAMES_SHOWN).join(", ") + (names.length > MOST_NAMES_SHOWN ? ", …" : "");
  routes.forEach((route, index) => {
    const pool = textAt(route, "pool");
    if (pool === undefined || Object.hasOwn(pools, pool)) return;
    const meant = nearest(pool, names);
    const hint = meant === undefined ? `there are: ${some}` : `did you mean ${meant}?`;
    const message = `there is no pool ${show(pool)}; ${hint}`;
    findings.push({ path: ["routes", index, "pool"], at: "value", message });
  });
}

interface Match {
  readonly host: string | null;
  readonly path: string | null;
}

function checkReachable(routes: readonly unknown[], findings: Finding[]): void {
  const earlier: { readonly match: Match; readonly label: string }[] = [];
  routes.forEach((route, index) => {
    const match = matchOf(route);
    if (match === undefined) return;
    const above = earlier.find((other) => covers(other.match, match));
    if (above !== undefined) {
      const message = `is never reached: route ${above.label} above matches everything that it matches`;
      findings.push({ path: ["routes", index], at: "value", message });
    }
    const label = show(textAt(route, "name") ?? `routes[${index}]`);
    earlier.push({ match, label });
  });
}

/** What the route matches, if that is well-formed. */
function matchOf(route: unknown): Match | undefined {
  if (!isMapping(route)) return undefined;
  const match = route.match ?? {};
  if (!isMapping(match)) return undefined;
  const host = HOST.safeParse(match.host);
  const path = PATH.safeParse(match.path);
  if (!host.success || !path.success) return undefined;
  return { host: host.data ?? null, path: path.data ?? null };
}

function covers(outer: Match, inner: Match): boolean {
  return coversHost(outer.host, inner.host) && coversPath(outer.path, inner.path);
}

function coversHost(outer: string | null, inner: string | null): boolean {
  if (outer === null || outer === inner) return true;
  // *.example.com takes a.example.com and *.a.example.com, not example.com itself.
  return inner !== null && outer.startsWith("*.") && inner.endsWith(outer.slice(1));
}

function coversPath(outer: string | null, inner: string | null): boolean {
  if (outer === null || outer === inner) return true;
  return inner?.startsWith(`${outer}/`) ?? false;
}

function checkBackends(pools: unknown, findings: Finding[]): void {
  if (!isMapping(pools)) return;
  for (const [name, pool] of Object.entries(pools)) {
    const seen = new Map<string, number>();
    const backends = listOf(isMapping(pool) ? pool.backends : undefined);
    backends.forEach((backend, index) => {
      const url = textAt(backend, "url");
      const parsed = BACKEND_URL.safeParse(url);
      if (!parsed.success) return;
      const server = `${parsed.data.host.toLowerCase()} ${parsed.data.port}`;
      const first = seen.get(server);
      if (first === undefined) seen.set(server, index);
      else {
        const message = `${show(url)} is the same server as backends[${first}]`;
        findings.push({ path: ["pools", name, "backends", index, "url"], at: "value", message });
      }
    });
  }
}

function checkPolicies(
  scope: Path,
  merged: Record<string, unknown>,
  written: unknown,
  findings: Finding[],
): void {
  const clashes = [
    ...ifValid(beats.safeParse(child(merged.heartbeat, "client")), (leg) =>
      beatClash("client", leg),
    ),
    ...ifValid(beats.safeParse(child(merged.heartbeat, "upstream")), (leg) =>
      beatClash("upstream", leg),
    ),
    ...ifValid(texts.safeParse(child(merged.heartbeat, "client")), textClash),
    ...ifValid(waits.safeParse(child(merged.retry, "backoff")), backoffClash),
    ...ifValid(spread.safeParse(merged.retryAfter ?? {}), retryAfterClash),
  ];
  reportClashes(clashes, scope, written, findings);
}

// Only the keys that a rule compares: a fault in another key must not hide the clash.
const { heartbeat, retry, retryAfter } = policiesSchema.shape;
const client = heartbeat.unwrap().shape.client.unwrap().shape;
const backoff = retry.unwrap().shape.backoff.unwrap().shape;
const beats = z.object({ interval: client.interval, timeout: client.timeout });
const texts = z.object({ payload: client.payload, text: client.text });
const waits = z.object({ initial: backoff.initial, max: backoff.max });
const spread = z.object({
  min: retryAfter.unwrap().shape.min,
  max: retryAfter.unwrap().shape.max,
});

function beatClash(leg: "client" | "upstream", set: z.output<typeof beats>): Clash | undefined {
  if (set.interval === 0 || set.timeout > 0) return undefined;
  return {
    paths: [
      ["heartbeat", leg, "timeout"],
      ["heartbeat", leg, "interval"],
    ],
    message:
      "0s after each ping would end every session; set more, or interval: 0s for no heartbeat",
  };
}

function textClash(set: z.output<typeof texts>): Clash | undefined {
  if (set.payload === "ping" || set.text !== "") return undefined;
  return {
    paths: [
      ["heartbeat", "client", "text"],
      ["heartbeat", "client", "payload"],
    ],
    message: "payload: text needs a message to send; set heartbeat.client.text",
  };
}

function backoffClash(set: z.output<typeof waits>): Clash | undefined {
  if (set.max >= set.initial) return undefined;
  return {
    paths: [
      ["retry", "backoff", "max"],
      ["retry", "backoff", "initial"],
    ],
    message: `max is shorter than initial (${set.max}ms against ${set.initial}ms)`,
  };
}

function retryAfterClash(set: z.output<typeof spread>): Clash | undefined {
  if (set.max >= set.min) return undefined;
  return {
    paths: [
      ["retryAfter", "max"],
      ["retryAfter", "min"],
    ],
    message: `max is shorter than min (${set.max}ms against ${set.min}ms)`,
  };
}
