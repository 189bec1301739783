/** What a reload changes: the difference of two configurations, by name. Pure. */
import { isDeepStrictEqual } from "node:util";
import type { GatewayConfig, PoolConfig } from "./config.ts";

/** Names that are new, gone, and there before and after with other settings. */
export interface Changes {
  readonly added: readonly string[];
  readonly removed: readonly string[];
  readonly changed: readonly string[];
}

export interface ReloadPlan {
  readonly listeners: Changes;
  readonly routes: Changes;
  readonly pools: Changes;
  /** `POOL URL`. */
  readonly backends: Changes;
  /** Lists whose order matters and is another one: the first route that matches wins. */
  readonly reordered: readonly "routes"[];
  /** Other top-level sections that differ. */
  readonly sections: readonly string[];
  /** Keys whose change takes effect only with a restart. */
  readonly needRestart: readonly string[];
}

export function planReload(before: GatewayConfig, after: GatewayConfig): ReloadPlan {
  const sections = (["policies", "admin", "drain", "log"] as const).filter(
    (section) => !isDeepStrictEqual(before[section], after[section]),
  );
  return {
    listeners: changesOf(byName(before.listeners), byName(after.listeners)),
    routes: changesOf(byName(before.routes), byName(after.routes)),
    pools: changesOf(byName(before.pools.map(settings)), byName(after.pools.map(settings))),
    backends: changesOf(backendsOf(before), backendsOf(after)),
    reordered: isReordered(before.routes, after.routes) ? ["routes"] : [],
    sections,
    needRestart: before.log.format === after.log.format ? [] : ["log.format"],
  };
}

/** Whether nothing differs. */
export function isEmptyPlan(plan: ReloadPlan): boolean {
  const { listeners, routes, pools, backends, reordered, sections, needRestart } = plan;
  const changes = [listeners, routes, pools, backends].flatMap(({ added, removed, changed }) => [
    ...added,
    ...removed,
    ...changed,
  ]);
  return changes.length + reordered.length + sections.length + needRestart.length === 0;
}

/** Backends are compared one by one. */
function settings(pool: PoolConfig) {
  return { ...pool, backends: [] };
}

type Named = readonly { readonly name: string }[];

/** Whether those that are in both stand in another order. */
function isReordered(before: Named, after: Named): boolean {
  const [old, fresh] = [byName(before), byName(after)];
  const stayed = [...old.keys()].filter((name) => fresh.has(name));
  const stay = [...fresh.keys()].filter((name) => old.has(name));
  return stay.some((name, index) => name !== stayed[index]);
}

function byName<T extends { readonly name: string }>(items: readonly T[]): Map<string, T> {
  return new Map(items.map((item) => [item.name, item]));
}

function backendsOf({ pools }: GatewayConfig): Map<string, unknown> {
  return new Map(
    pools.flatMap(({ name, backends }) =>
      backends.map((backend) => [`${name} ${backend.url}`, backend] as const),
    ),
  );
}

function changesOf(before: ReadonlyMap<string, unknown>, after: ReadonlyMap<string, unknown>) {
  return {
    added: [...after.keys()].filter((name) => !before.has(name)),
    removed: [...before.keys()].filter((name) => !after.has(name)),
    changed: [...after.keys()].filter(
      (name) => before.has(name) && !isDeepStrictEqual(before.get(name), after.get(name)),
    ),
  };
}
