import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import type { RunFlags } from "../../../src/config/sources.ts";
import { resolveSources, sidecarConfig } from "../../../src/config/sources.ts";
import { load, MINIMAL } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "softclose-sources-"));
afterAll(() => rmSync(folder, { recursive: true }));
const file = join(folder, "gateway.yaml");
writeFileSync(file, MINIMAL);

function configOf(flags: RunFlags, env = {}) {
  const sources = resolveSources(flags, env);
  if ("config" in sources) return sources.config;
  throw new Error(sources.problems.join("\n"));
}

function problemsOf(flags: RunFlags, env = {}): readonly string[] {
  const sources = resolveSources(flags, env);
  return "problems" in sources ? sources.problems : [];
}

const SIDECAR = { listen: "0.0.0.0:8080", upstream: ["ws://127.0.0.1:3000"] };

describe("a sidecar without a file", () => {
  it("has one listener, one route and one pool, and the defaults of a file", () => {
    const written = load(`
listeners: [{ name: default, bind: 0.0.0.0:8080 }]
routes: [{ name: default, pool: default }]
pools: { default: { backends: [{ url: "ws://127.0.0.1:3000", maxConnections: 500 }, { url: "ws://b", maxConnections: 500 }] } }
admin: { bind: 0.0.0.0:9901 }
`);
    const flags = {
      listen: "0.0.0.0:8080",
      upstream: ["ws://127.0.0.1:3000", "ws://b"],
      maxConnections: "500",
      admin: "0.0.0.0:9901",
    };
    expect(configOf(flags)).toEqual(written);
    expect(resolveSources(flags, {})).toEqual({ config: written, file: null });
    const env = {
      SOFTCLOSE_LISTEN: "0.0.0.0:8080",
      SOFTCLOSE_UPSTREAM: "ws://127.0.0.1:3000, ws://b,",
      SOFTCLOSE_MAX_CONNECTIONS: "500",
      SOFTCLOSE_ADMIN: "0.0.0.0:9901",
    };
    expect(configOf({}, env)).toEqual(written);
  });

  it("has a loopback admin listener, no cap, and takes off for none", () => {
    const config = configOf(SIDECAR);
    expect(config.admin.bind).toEqual({ host: "127.0.0.1", port: 9901 });
    expect(config.pools[0]?.backends[0]?.maxConnections).toBe(0);
    expect(configOf({ ...SIDECAR, admin: "off" }).admin.bind).toBeNull();
  });

  it("prefers flags to variables, and takes an empty variable as unset", () => {
    const env = { SOFTCLOSE_LISTEN: "127.0.0.1:1", SOFTCLOSE_CONFIG: "", SOFTCLOSE_ADMIN: "" };
    expect(configOf(SIDECAR, env).listeners[0]?.bind).toEqual({ host: "0.0.0.0", port: 8080 });
  });

  it("names the flag that is wrong, each once", () => {
    expect(
      problemsOf({
        listen: "8080",
        upstream: ["http://a", "ws://b", "ws://b/"],
        maxConnections: "many",
        admin: "yes",
      }),
    ).toEqual([
      '--listen: "8080" is not an address; write host:port, like 0.0.0.0:8080 or [::]:8080',
      '--admin: "yes" is not an address; write host:port, like 0.0.0.0:8080 or [::]:8080, or off',
      '--upstream: "http://a" is not a WebSocket URL; write ws://host:port',
      '--max-connections: "many" is not a number',
      '--upstream: "ws://b/" is the same server as one before it',
    ]);
  });

  it("names the variable where the value came from one", () => {
    const env = {
      SOFTCLOSE_UPSTREAM: "ws://a",
      SOFTCLOSE_LISTEN: ":1",
      SOFTCLOSE_MAX_CONNECTIONS: "-1",
    };
    expect(problemsOf({}, env)).toEqual([
      'SOFTCLOSE_LISTEN: ":1" has no usable host; write host:port, like 0.0.0.0:8080 or [::]:8080',
      "SOFTCLOSE_MAX_CONNECTIONS: -1 is too small; the least is 0",
    ]);
    expect(problemsOf({}, { SOFTCLOSE_UPSTREAM: " , ", SOFTCLOSE_LISTEN: "a:1" })).toEqual([
      "SOFTCLOSE_UPSTREAM: is empty; at least one is needed",
    ]);
  });

  it("needs to be told where to listen", () => {
    expect(problemsOf({ upstream: ["ws://a"] })).toEqual([
      "--listen: is missing; write host:port, like --listen 0.0.0.0:8080",
    ]);
  });

  it("may not have its admin listener where clients come in", () => {
    expect(problemsOf({ ...SIDECAR, admin: "0.0.0.0:8080" })).toEqual([
      '--admin: "0.0.0.0:8080" is already taken by --listen',
    ]);
  });

  it("can be built without flags", () => {
    expect(sidecarConfig({ listen: "127.0.0.1:0", upstreams: ["ws://a"] })).toHaveProperty(
      "config",
    );
    expect(sidecarConfig({ listen: "x", upstreams: [] })).toHaveProperty("problems.length", 2);
  });
});

describe("a configuration file", () => {
  it("comes from the flag or the variable", () => {
    expect(resolveSources({ config: file }, {})).toEqual({ config: load(MINIMAL), file });
    expect(resolveSources({}, { SOFTCLOSE_CONFIG: file })).toEqual({ config: load(MINIMAL), file });
  });

  it("reports its problems as check does", () => {
    expect(problemsOf({ config: join(folder, "none") })).toEqual([
      `${join(folder, "none")}: there is no such file`,
    ]);
  });

  it("excludes each setting of a sidecar", () => {
    expect(problemsOf({ config: file, ...SIDECAR }, { SOFTCLOSE_ADMIN: "off" })).toEqual([
      "--listen cannot be used together with --config; set it in the file",
      "--upstream cannot be used together with --config; set it in the file",
      "SOFTCLOSE_ADMIN cannot be used together with --config; set it in the file",
    ]);
    expect(problemsOf(SIDECAR, { SOFTCLOSE_CONFIG: file })).toHaveLength(2);
  });

  it("or an upstream must be given", () => {
    expect(problemsOf({}, {})).toEqual([
      "nothing to run: give a file with --config FILE, or --listen 0.0.0.0:8080 --upstream ws://127.0.0.1:3000",
    ]);
  });
});
