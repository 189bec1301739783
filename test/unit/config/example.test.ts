/** gateway.example.yaml shows every key with its default, and cannot drift from the schema. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import * as z from "zod";
import { isMapping } from "../../../src/config/merge.ts";
import { fileSchema } from "../../../src/config/schema.ts";
import { load } from "./support.ts";

const TEXT = readFileSync(join(import.meta.dirname, "../../../gateway.example.yaml"), "utf8");
const BODY = TEXT.slice(TEXT.indexOf("\nlisteners:"));

/** Keys that are absent by default: the example has them in a comment. */
const ABSENT = new Set(["pools.*.of", "pools.*.health"]);

/** Keys without a default: the example shows some value. */
const FREE = new Set([
  ...ABSENT,
  "pools.*.health.type",
  "listeners.*.name",
  "listeners.*.bind",
  "routes.*.name",
  "routes.*.match.host",
  "routes.*.match.path",
  "routes.*.pool",
  "pools.*.backends.*.url",
]);

type Node = Record<string, unknown>;

function nodeOf(value: unknown): Node {
  return isMapping(value) ? value : {};
}

/** Every key of the schema by its path, `*` for any index or name; a route's policies once, at the top. */
function keysOf(node: Node, path: readonly string[] = []): Map<string, Node> {
  const keys = new Map<string, Node>();
  const add = (inner: Node, step: string) => {
    for (const [key, value] of keysOf(inner, [...path, step])) keys.set(key, value);
  };
  for (const [name, inner] of Object.entries(nodeOf(node.properties)).map(
    ([key, value]) => [key, nodeOf(value)] as const,
  )) {
    if (path.join(".") === "routes.*" && !["name", "match", "pool"].includes(name)) continue;
    keys.set([...path, name].join("."), inner);
    add(inner, name);
  }
  if (isMapping(node.items)) add(node.items, "*");
  // The entries of these two are examples in a comment.
  const isMap = !["close.causes", "close.translate"].includes(path.join("."));
  if (isMap && isMapping(node.additionalProperties)) add(node.additionalProperties, "*");
  return keys;
}

/** Every value of the example by its path, `*` for any index or name. */
function valuesOf(value: unknown, path: readonly string[] = []): Map<string, unknown> {
  const values = new Map<string, unknown>([[path.join("."), value]]);
  if (typeof value !== "object" || value === null) return values;
  for (const [name, inner] of Object.entries(value)) {
    const step = Array.isArray(value) || path.join(".") === "pools" ? "*" : name;
    for (const [key, found] of valuesOf(inner, [...path, step])) values.set(key, found);
  }
  return values;
}

const schema = nodeOf(z.toJSONSchema(fileSchema, { io: "input" }));
const schemaKeys = keysOf(schema);
const isLater = (node: Node) => /[Nn]ot supported yet/.test(String(node.description));
const shown = valuesOf(parse(TEXT));
/** As an operator would bring them to life: comments that look like keys or list items, uncommented. */
const uncommented = valuesOf(
  parse(BODY.replaceAll(/^( *)# ( *(?:- )?[A-Za-z]+:(?: .*)?)$/gm, "$1$2")),
);

describe("gateway.example.yaml", () => {
  it("loads as it is", () => {
    const config = load(TEXT);
    expect(config.listeners.map((listener) => listener.name)).toEqual(["public"]);
    expect(config.routes[0]?.match).toEqual({ host: "*.example.com", path: "/ws" });
  });

  it("gives the same as leaving every default out", () => {
    const config = load(TEXT);
    const bare = load(`
listeners: [{ name: public, bind: 0.0.0.0:8080 }]
routes: [{ name: chat, match: { host: "*.example.com", path: /ws }, pool: chat }]
pools: { chat: { backends: [{ url: "ws://127.0.0.1:9001" }] } }
`);
    expect(config).toEqual(bare);
  });

  it.each([...schemaKeys.keys()])("mentions %s, with a comment unless it is a section", (key) => {
    expect(uncommented.has(key)).toBe(true);
    const name = key.split(".").at(-1) ?? "";
    const lines = TEXT.split("\n").filter((line) => new RegExp(`^[ #-]*${name}:`).test(line));
    expect(lines.length).toBeGreaterThan(0);
    const value = uncommented.get(key);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return;
    // A value at the left margin has its comment on the lines above.
    const commented = lines.filter((line) => / # /.test(line) || /^[a-z]/.test(line));
    expect(commented.length).toBeGreaterThan(0);
  });

  it.each(
    [...shown, ...[...uncommented].filter(([key]) => key.startsWith("pools.*.health."))].filter(
      ([key, value]) => key !== "" && (typeof value !== "object" || Array.isArray(value)),
    ),
  )("shows the default of %s", (key, value) => {
    // What is a list of mappings is covered by its parts.
    if (["listeners", "routes", "pools.*.backends"].includes(key) || key.endsWith("on.*")) return;
    const node = schemaKeys.get(key);
    expect(node).toBeDefined();
    expect(node?.default).toEqual(FREE.has(key) ? undefined : value);
  });

  it("shows every key that has an effect uncommented, but those that are absent by default", () => {
    const hidden = [...schemaKeys]
      .filter(([key]) => !shown.has(key))
      .filter(([, node]) => !isLater(node))
      .map(([key]) => key)
      // Parts of the commented-out sections.
      .filter((key) => !/\.(tls|health)\./.test(key));
    expect(new Set(hidden)).toEqual(ABSENT);
  });

  it("loads with what is absent by default brought to life", () => {
    const lines =
      /^( *)# ( *(?:of|health|type|path|interval|timeout|rise|fall|closeSessions):.*)$/gm;
    const text = TEXT.replaceAll(lines, "$1$2").replace("leastConnections", "hash            ");
    expect(load(text).pools[0]).toMatchObject({
      balance: "hash",
      hashKey: { kind: "clientIp" },
      health: {
        type: "http",
        path: "/",
        intervalMs: 5000,
        timeoutMs: 2000,
        rise: 2,
        fall: 3,
        closeSessions: false,
      },
    });
  });

  it("marks what is not supported yet as later", () => {
    const unmarked = [...schemaKeys].filter(([key, node]) => {
      const name = key.split(".").at(-1) ?? "";
      const marked = new RegExp(`^[ #-]*${name}:.*# later`, "m").test(BODY);
      return /Not supported yet/.test(String(node.description)) && !marked;
    });
    expect(unmarked.map(([key]) => key)).toEqual([]);
  });
});
