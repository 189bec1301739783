import { describe, expect, it } from "vitest";
import { jsonSchema } from "../../../src/cli/schema.ts";
import { isMapping } from "../../../src/config/merge.ts";

type Node = Record<string, unknown>;

function nodeOf(value: unknown): Node {
  return isMapping(value) ? value : {};
}

/** The part of the schema at a path of property names; `*` steps into items or named entries. */
function at(...path: string[]): Node {
  return path.reduce((node, step) => {
    if (step === "*") return nodeOf(node.items ?? node.additionalProperties);
    return nodeOf(nodeOf(node.properties)[step]);
  }, jsonSchema());
}

/** Every schema that describes a key, by its path. */
function keysOf(node: Node, path = ""): [string, Node][] {
  const own = Object.entries(nodeOf(node.properties)).flatMap(([name, value]) => {
    const here = `${path}.${name}`;
    const entry: [string, Node] = [here, nodeOf(value)];
    return [entry, ...keysOf(nodeOf(value), here)];
  });
  const inner = [
    [node.items, `${path}[]`] as const,
    [node.additionalProperties, `${path}.*`] as const,
  ].flatMap(([child, here]) => (isMapping(child) ? keysOf(child, here) : []));
  return [...own, ...inner];
}

describe("the JSON Schema", () => {
  it("is draft 2020-12, has a title and is plain JSON", () => {
    const schema = jsonSchema();
    expect(schema.$schema).toBe("https://json-schema.org/draft/2020-12/schema");
    expect(schema.title).toBe("softclose configuration");
    expect(JSON.parse(JSON.stringify(schema))).toEqual(schema);
  });

  it("requires listeners, routes and pools and allows no unknown key", () => {
    expect(jsonSchema()).toMatchObject({
      type: "object",
      required: ["listeners", "routes", "pools"],
      additionalProperties: false,
    });
    expect(at("limits")).toMatchObject({ additionalProperties: false });
    expect(at("routes", "*")).toMatchObject({
      required: ["name", "pool"],
      additionalProperties: false,
    });
  });

  it("describes every key", () => {
    const keys = keysOf(jsonSchema());
    expect(keys.length).toBeGreaterThan(120);
    const silent = keys.filter(
      ([, node]) => typeof node.description !== "string" || node.description === "",
    );
    expect(silent.map(([path]) => path)).toEqual([]);
  });

  it("gives defaults as an operator writes them, and none in a route's policies", () => {
    expect(at("heartbeat", "client", "interval").default).toBe("25s");
    expect(at("limits", "maxMessageSize").default).toBe("16MiB");
    expect(at("admin", "bind").default).toBe("127.0.0.1:9901");
    expect(at("retry", "connect", "attempts").default).toBe(3);
    expect(at("routes", "*", "retry", "connect", "attempts")).toMatchObject({
      description: expect.any(String),
    });
    const policies = keysOf(at("routes", "*")).filter(([path]) => path !== ".match");
    expect(policies.filter(([, node]) => "default" in node)).toEqual([]);
  });

  it("lets every scalar be a variable", () => {
    const variable = { type: "string", pattern: String.raw`\$\{.*\}` };
    expect(at("limits", "maxConnections").anyOf).toEqual([
      { type: "integer", minimum: 0, maximum: 10_000_000 },
      variable,
    ]);
    expect(at("close", "legacyCodes").anyOf).toEqual([{ type: "boolean" }, variable]);
    expect(at("refuse").anyOf).toEqual([{ type: "string", enum: ["close", "http"] }, variable]);
    expect(at("limits", "idleTimeout").anyOf).toHaveLength(2);
    expect(at("limits", "maxMessageSize").anyOf).toHaveLength(3);
  });

  it("knows keys that are not supported yet, and says so", () => {
    const keys = [
      at("listeners", "*", "tls"),
      at("listeners", "*", "http2"),
      at("listeners", "*", "proxyProtocol"),
      at("origins"),
      at("routes", "*", "auth"),
    ];
    const plain = keys.filter((key) => !String(key.description).includes("Not supported yet"));
    expect(plain).toEqual([]);
  });

  it("offers all of session retry, at the top and in a route", () => {
    for (const session of [at("retry", "session"), at("routes", "*", "retry", "session")]) {
      expect(Object.keys(nodeOf(session.properties))).toEqual([
        "enabled",
        "on",
        "attempts",
        "timeout",
        "buffer",
        "resend",
        "replay",
        "notify",
      ]);
      const keys = keysOf(session);
      expect(
        keys.filter(([, { description }]) => /not supported/i.test(String(description))),
      ).toEqual([]);
    }
    expect(at("retry", "session", "on").default).toEqual(["lost", "unresponsive", "drained", 1012]);
    expect(at("retry", "session", "buffer").default).toBe("64KiB");
  });

  it("offers all of a pool, with what is on by default and what is not", () => {
    const keys = keysOf(at("pools", "*"));
    expect(
      keys.filter(([, { description }]) => /not supported/i.test(String(description))),
    ).toEqual([]);
    const defaults = keys.filter(([, node]) => "default" in node && node.type !== "object");
    expect(Object.fromEntries(defaults.map(([path, node]) => [path, node.default]))).toEqual({
      ".balance": "leastConnections",
      ".backends[].maxConnections": 0,
      ".backends[].weight": 1,
      ".connectTimeout": "5s",
      ".queue.size": 0,
      ".queue.timeout": "5s",
      ".health.path": "/",
      ".health.interval": "5s",
      ".health.timeout": "2s",
      ".health.rise": 2,
      ".health.fall": 3,
      ".health.closeSessions": false,
      ".ejection.failures": 5,
      ".ejection.window": "30s",
      ".ejection.duration": "10s",
      ".ejection.maxDuration": "5m",
      ".slowStart": "0s",
      ".dns.interval": "30s",
    });
    expect(at("pools", "*").required).toEqual(["backends"]);
    expect(at("pools", "*", "health").required).toEqual(["type"]);
    expect(at("listeners", "*", "acceptRate").default).toBe(0);
  });

  it("knows what hash may look at", () => {
    const [{ pattern } = {}] = [at("pools", "*", "of").anyOf].flat().map(nodeOf);
    const good = ["clientIp", "header:x-user", "cookie:sid", "query:room"];
    expect(good.filter((form) => !new RegExp(String(pattern)).test(form))).toEqual([]);
    expect(new RegExp(String(pattern)).test("header:")).toBe(false);
  });

  it("names the causes that can be set", () => {
    const names = nodeOf(at("close", "causes").propertyNames).enum;
    expect(names).toContain("upstreamLost");
    expect(names).not.toContain("clientClosed");
  });
});
