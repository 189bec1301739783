import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { GatewayConfig } from "../../../src/config/config.ts";
import { isEmptyPlan, planReload, type ReloadPlan } from "../../../src/config/plan.ts";
import { load } from "./support.ts";

const FULL = `
listeners: [{ name: public, bind: 127.0.0.1:8080 }, { name: inner, bind: 127.0.0.1:8081 }]
admin: { bind: 127.0.0.1:9901 }
routes:
  - { name: a, match: { path: /a }, pool: one }
  - { name: b, match: { path: /b }, pool: two }
pools:
  one: { backends: [{ url: "ws://10.0.0.1:1" }, { url: "ws://10.0.0.2:1" }] }
  two: { backends: [{ url: "ws://10.0.0.1:1" }] }
`;
const BASE = load(FULL);
const NONE = { added: [], removed: [], changed: [] };
const NOTHING: ReloadPlan = {
  listeners: NONE,
  routes: NONE,
  pools: NONE,
  backends: NONE,
  reordered: [],
  sections: [],
  needRestart: [],
};

/** What changes when `from` in the file becomes `to`. */
function change(from: string | RegExp, to: string): Partial<ReloadPlan> {
  const text = FULL.replace(from, to);
  expect(text).not.toBe(FULL);
  const plan = planReload(BASE, load(text));
  const differing = Object.entries(plan).filter(
    ([key, value]) => JSON.stringify(value) !== JSON.stringify(Object(NOTHING)[key]),
  );
  return Object.fromEntries(differing);
}

const withTranslation = (code: number): GatewayConfig =>
  load(`${FULL}close: { translate: { 1011: ${code} } }\n`);

describe("planReload", () => {
  it("finds nothing where nothing differs, even with another text", () => {
    expect(planReload(BASE, load(`# new\n${FULL}`))).toEqual(NOTHING);
    expect(isEmptyPlan(planReload(BASE, load(FULL)))).toBe(true);
  });

  it.each<[string, string | RegExp, string, Partial<ReloadPlan>]>([
    [
      "a backend more",
      '[{ url: "ws://10.0.0.1:1" }] }',
      '[{ url: "ws://10.0.0.1:1" }, { url: "ws://10.0.0.9:1" }] }',
      { backends: { ...NONE, added: ["two ws://10.0.0.9:1"] } },
    ],
    [
      "a backend less",
      ', { url: "ws://10.0.0.2:1" }',
      "",
      { backends: { ...NONE, removed: ["one ws://10.0.0.2:1"] } },
    ],
    [
      "another cap",
      '{ url: "ws://10.0.0.2:1" }',
      '{ url: "ws://10.0.0.2:1", maxConnections: 5 }',
      { backends: { ...NONE, changed: ["one ws://10.0.0.2:1"] } },
    ],
    [
      "settings of a pool",
      "one: { backends",
      "one: { balance: roundRobin, backends",
      { pools: { ...NONE, changed: ["one"] } },
    ],
    ["another pool", "pool: two }", "pool: one }", { routes: { ...NONE, changed: ["b"] } }],
    [
      "another name",
      "name: inner",
      "name: private",
      { listeners: { added: ["private"], removed: ["inner"], changed: [] } },
    ],
    ["another address", ":8081", ":8082", { listeners: { ...NONE, changed: ["inner"] } }],
    ["the admin listener", ":9901", ":9902", { sections: ["admin"] }],
    ["the time to drain", "pools:", "drain: { timeout: 1s }\npools:", { sections: ["drain"] }],
    ["the log's level", "pools:", "log: { level: warn }\npools:", { sections: ["log"] }],
    [
      "the log's format",
      "pools:",
      "log: { format: pretty }\npools:",
      { sections: ["log"], needRestart: ["log.format"] },
    ],
    [
      "a policy of all routes",
      "pools:",
      "refuse: http\npools:",
      { routes: { ...NONE, changed: ["a", "b"] }, sections: ["policies"] },
    ],
    ["the order of the routes", /( {2}- .*\n)( {2}- .*\n)/, "$2$1", { reordered: ["routes"] }],
    [
      "a route in front of the others",
      "routes:",
      "routes:\n  - { name: c, match: { path: /c }, pool: one }",
      { routes: { ...NONE, added: ["c"] } },
    ],
  ])("names %s", (_what, from, to, expected) => {
    expect(change(from, to)).toEqual(expected);
  });

  it("sees a change in what YAML lists as a mapping", () => {
    expect(planReload(withTranslation(1012), withTranslation(1012))).toEqual(NOTHING);
    expect(planReload(withTranslation(1012), withTranslation(1013)).sections).toEqual(["policies"]);
  });

  it("is empty only between configurations that do the same", () => {
    const names = ["a", "b", "c"].map((name) => ({ name }));
    const routes = fc.shuffledSubarray(names, { minLength: 0 });
    fc.assert(
      fc.property(routes, routes, (before, after) => {
        const [template] = BASE.routes;
        if (template === undefined) throw new Error("no route");
        const withRoutes = (list: readonly { name: string }[]): GatewayConfig => ({
          ...BASE,
          routes: list.map(({ name }) => ({ ...template, name })),
        });
        const isSame = JSON.stringify(before) === JSON.stringify(after);
        expect(isEmptyPlan(planReload(withRoutes(before), withRoutes(after)))).toBe(isSame);
      }),
    );
  });
});
