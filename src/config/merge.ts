/** How a route's policies come about: its own keys over those at the top, as they are written. */
import { policiesSchema } from "./policies-schema.ts";

/** The policies of a scope, as written: those of the route over those at the top, key by key. */
export function mergedPolicies(top: unknown, route: unknown): Mapping {
  const merged: Mapping = {};
  for (const key of Object.keys(policiesSchema.shape)) {
    const outer = isMapping(top) ? top[key] : undefined;
    const inner = isMapping(route) ? route[key] : undefined;
    const both = merge(outer, inner);
    if (both !== undefined) merged[key] = both;
  }
  return merged;
}

/** Keys with values, as read. */
export type Mapping = Record<string, unknown>;

export function isMapping(value: unknown): value is Mapping {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function merge(outer: unknown, inner: unknown): unknown {
  if (inner === undefined) return outer;
  if (!isMapping(outer) || !isMapping(inner)) return inner;
  const merged: Mapping = { ...outer };
  for (const [key, value] of Object.entries(inner)) merged[key] = merge(outer[key], value);
  return merged;
}
