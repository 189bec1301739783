/**
 * Where the configuration of a run comes from: a file, or for a sidecar a few flags and environment
 * variables. Problems name the flag or variable that the operator wrote.
 */
import type { GatewayConfig } from "./config.ts";
import type { Environment } from "./interpolate.ts";
import { formatProblem, loadConfigFile } from "./load.ts";
import { type Finding, resolve } from "./resolve.ts";
import { formatPath } from "./wording.ts";

/** The flags of `run`; an absent flag falls back to its variable. */
export interface RunFlags {
  readonly config?: string | undefined;
  readonly listen?: string | undefined;
  readonly upstream?: readonly string[] | undefined;
  readonly maxConnections?: string | undefined;
  readonly admin?: string | undefined;
}

export type Sources =
  /** `file` is null for a sidecar without one: there is nothing to reload. */
  | { readonly config: GatewayConfig; readonly file: string | null }
  | { readonly problems: readonly string[] };

/** A sidecar's settings, as written. */
export interface SidecarSettings {
  readonly listen: string;
  readonly upstreams: readonly string[];
  /** Cap of each upstream. */
  readonly maxConnections?: string | undefined;
  readonly admin?: string | undefined;
}

/** What problems call each setting: a flag, or the variable that it came from. */
export type SettingNames = Readonly<Record<keyof SidecarSettings, string>>;

const FLAG_NAMES: SettingNames = {
  listen: "--listen",
  upstreams: "--upstream",
  maxConnections: "--max-connections",
  admin: "--admin",
};

/** Finds out what to run with: flags first, then environment variables. */
export function resolveSources(flags: RunFlags, env: Environment): Sources {
  const config = setting(flags.config, "--config", env, "SOFTCLOSE_CONFIG");
  const listen = setting(flags.listen, "--listen", env, "SOFTCLOSE_LISTEN");
  const upstream = setting(flags.upstream, "--upstream", env, "SOFTCLOSE_UPSTREAM");
  const cap = setting(flags.maxConnections, "--max-connections", env, "SOFTCLOSE_MAX_CONNECTIONS");
  const admin = setting(flags.admin, "--admin", env, "SOFTCLOSE_ADMIN");
  if (config !== undefined) {
    const problems = [listen, upstream, cap, admin]
      .filter((other) => other !== undefined)
      .map(
        (other) => `${other.name} cannot be used together with ${config.name}; set it in the file`,
      );
    if (problems.length > 0) return { problems };
    const file = config.value;
    const result = loadConfigFile(file, env);
    return "config" in result
      ? { config: result.config, file }
      : { problems: result.errors.map(formatProblem) };
  }
  if (upstream === undefined) {
    const example = "--listen 0.0.0.0:8080 --upstream ws://127.0.0.1:3000";
    return { problems: [`nothing to run: give a file with --config FILE, or ${example}`] };
  }
  if (listen === undefined) {
    return { problems: ["--listen: is missing; write host:port, like --listen 0.0.0.0:8080"] };
  }
  const settings = {
    listen: listen.value,
    upstreams: Array.isArray(upstream.value) ? upstream.value : splitList(String(upstream.value)),
    maxConnections: cap === undefined ? undefined : cap.value,
    admin: admin === undefined ? undefined : admin.value,
  };
  const result = sidecarConfig(settings, {
    listen: listen.name,
    upstreams: upstream.name,
    maxConnections: cap?.name ?? FLAG_NAMES.maxConnections,
    admin: admin?.name ?? FLAG_NAMES.admin,
  });
  return "config" in result ? { config: result.config, file: null } : result;
}

/** One listener, one route and one pool, all named `default`; the rest as in a file without it. */
export function sidecarConfig(
  settings: SidecarSettings,
  names: SettingNames = FLAG_NAMES,
): { readonly config: GatewayConfig } | { readonly problems: readonly string[] } {
  const { listen, upstreams, maxConnections, admin } = settings;
  const cap = maxConnections === undefined ? {} : { maxConnections: toNumber(maxConnections) };
  const result = resolve({
    listeners: [{ name: "default", bind: listen }],
    ...(admin === undefined ? {} : { admin: { bind: admin } }),
    routes: [{ name: "default", pool: "default" }],
    pools: { default: { backends: upstreams.map((url) => ({ url, ...cap })) } },
  });
  if ("config" in result) return result;
  // Each upstream has the same cap, so a bad one is found once for each.
  const problems = new Set(result.findings.map((finding) => nameProblem(finding, names)));
  return { problems: [...problems] };
}

function nameProblem({ path, message }: Finding, names: SettingNames): string {
  const key = path.at(-1);
  if (key === "maxConnections") return `${names.maxConnections}: ${message}`;
  if (path[0] === "listeners") return `${names.listen}: ${message}`;
  if (path[0] === "admin") {
    return `${names.admin}: ${message.replace("listeners[0].bind", names.listen)}`;
  }
  if (path[0] === "pools")
    return `${names.upstreams}: ${message.replace(/ as backends\[\d+\]$/, " as one before it")}`;
  return `${formatPath(path)}: ${message}`;
}

function setting<T extends string | readonly string[]>(
  flag: T | undefined,
  flagName: string,
  env: Environment,
  variable: string,
): { readonly value: T | string; readonly name: string } | undefined {
  if (flag !== undefined && flag.length > 0) return { value: flag, name: flagName };
  const value = Object.hasOwn(env, variable) ? env[variable] : undefined;
  // Set and empty is how a manifest says "not set".
  return value === undefined || value === "" ? undefined : { value, name: variable };
}

function splitList(list: string): string[] {
  return list
    .split(",")
    .map((item) => item.trim())
    .filter((item) => item !== "");
}

function toNumber(digits: string): number | string {
  return /^-?\d+(\.\d+)?$/.test(digits) ? Number(digits) : digits;
}
