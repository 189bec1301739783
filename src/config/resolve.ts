/**
 * A tree of plain values to the configuration that the gateway uses: schema, rules, then policies
 * merged into every route. Knows no YAML; a sidecar's flags come the same way.
 */
import type * as z from "zod";
import type { Cause } from "../close/causes.ts";
import type { GatewayConfig, Policies, PoolConfig } from "./config.ts";
import { isMapping, type Mapping, mergedPolicies } from "./merge.ts";
import { describeIssues, type Finding, toPath, valueAt } from "./messages.ts";
import { policiesSchema, settableCauses } from "./policies-schema.ts";
import { checkRules } from "./rules.ts";
import { type File, fileSchema } from "./schema.ts";
import { pathId } from "./yaml-tree.ts";

export type { Finding } from "./messages.ts";

export type Resolution =
  | { readonly config: GatewayConfig }
  | { readonly findings: readonly Finding[] };

/**
 * `texts` holds, by path, the text of values that became a number or boolean only because a variable
 * had such a content; where text belongs, they are text again.
 */
export function resolve(
  value: unknown,
  texts: ReadonlyMap<string, string> = new Map(),
): Resolution {
  let result = fileSchema.safeParse(value);
  if (!result.success && texts.size > 0 && restoreTexts(value, result.error.issues, texts)) {
    result = fileSchema.safeParse(value);
  }
  const issues = result.success ? [] : result.error.issues;
  const findings = [...describeIssues(issues, fileSchema, value), ...checkRules(value)];
  if (!result.success || findings.length > 0) return { findings };
  return { config: build(result.data, value) };
}

/** Puts text back where text was expected; says whether it did anything. */
function restoreTexts(
  root: unknown,
  issues: readonly z.core.$ZodIssue[],
  texts: ReadonlyMap<string, string>,
): boolean {
  let restored = false;
  for (const issue of issues) {
    if (issue.code !== "invalid_type" || issue.expected !== "string") continue;
    const path = toPath(issue.path);
    const text = texts.get(pathId(path));
    const parent = valueAt(root, path.slice(0, -1));
    const last = path.at(-1);
    if (text === undefined || last === undefined) continue;
    if (Array.isArray(parent)) parent[Number(last)] = text;
    else if (isMapping(parent)) parent[last] = text;
    restored = true;
  }
  return restored;
}

function build(file: File, written: unknown): GatewayConfig {
  const top = mergedPolicies(written, undefined);
  return {
    listeners: file.listeners.map(({ name, bind, trustedProxies, maxConnections, acceptRate }) => ({
      name,
      bind,
      trustedProxies,
      maxConnections,
      acceptRate,
    })),
    admin: file.admin,
    routes: file.routes.map(({ name, match, pool }, index) => ({
      name,
      match: { host: match.host ?? null, path: match.path ?? null },
      pool,
      ...toRoutePolicies(written, index),
    })),
    pools: Object.entries(file.pools).map(([name, pool]) => toPool(name, pool)),
    policies: toPolicies(top),
    drain: { delayMs: file.drain.delay, timeoutMs: file.drain.timeout },
    log: file.log,
  };
}

function toPool(name: string, pool: File["pools"][string]): PoolConfig {
  const { balance, of, backends, connectTimeout, queue, health, ejection, slowStart, dns } = pool;
  return {
    name,
    balance,
    hashKey: of ?? null,
    backends: backends.map(({ url, maxConnections, weight }) => ({
      ...url,
      maxConnections,
      weight,
    })),
    connectTimeoutMs: connectTimeout,
    queue: { size: queue.size, timeoutMs: queue.timeout },
    health:
      health === undefined
        ? null
        : {
            type: health.type,
            path: health.path,
            intervalMs: health.interval,
            timeoutMs: health.timeout,
            rise: health.rise,
            fall: health.fall,
            closeSessions: health.closeSessions,
          },
    ejection:
      ejection.failures === 0
        ? null
        : {
            failures: ejection.failures,
            windowMs: ejection.window,
            durationMs: ejection.duration,
            maxDurationMs: ejection.maxDuration,
          },
    slowStartMs: slowStart,
    dns: { intervalMs: dns.interval },
  };
}

/**
 * The default of handshakeTimeout is for the request's head only; another value bounds the answer, too.
 * Else the default would cap a longer `retry.connect.timeout` in silence.
 */
function toRoutePolicies(written: unknown, index: number): Policies {
  const merged = mergedPolicies(written, valueAt(written, ["routes", index]));
  const policies = toPolicies(merged);
  const byDefault = toPolicies({}).limits.handshakeTimeoutMs;
  if (policies.limits.handshakeTimeoutMs !== byDefault) return policies;
  const limits = { ...policies.limits, handshakeTimeoutMs: Number.POSITIVE_INFINITY };
  return { ...policies, limits };
}

function toPolicies(merged: Mapping): Policies {
  const policies = policiesSchema.parse(merged);
  const { heartbeat, retry, close, refuse, retryAfter, limits } = policies;
  const { client, upstream } = heartbeat;
  const causes = new Map<Cause, { code?: number; reason?: string }>();
  for (const cause of settableCauses.options) {
    const { code, reason } = close.causes[cause] ?? {};
    if (code === undefined && reason === undefined) continue;
    causes.set(cause, {
      ...(code === undefined ? {} : { code }),
      ...(reason === undefined ? {} : { reason }),
    });
  }
  return {
    heartbeat: {
      client: {
        intervalMs: client.interval,
        timeoutMs: client.timeout,
        payload: client.payload,
        text: client.text,
      },
      upstream: {
        intervalMs: upstream.interval,
        timeoutMs: upstream.timeout,
        payload: "ping",
        text: "",
      },
    },
    retry: {
      connect: { attempts: retry.connect.attempts, timeoutMs: retry.connect.timeout },
      session: retry.session.enabled ? toSessionRetry(retry.session) : null,
      backoff: {
        initialMs: retry.backoff.initial,
        factor: retry.backoff.factor,
        maxMs: retry.backoff.max,
        jitter: retry.backoff.jitter,
      },
    },
    close: {
      timeoutMs: close.timeout,
      legacyCodes: close.legacyCodes,
      causes,
      translate: new Map(Object.entries(close.translate).map(([from, to]) => [Number(from), to])),
    },
    refuse,
    retryAfter: {
      minMs: retryAfter.min,
      maxMs: retryAfter.max,
      acceptRate: retryAfter.acceptRate,
    },
    limits: {
      handshakeTimeoutMs: limits.handshakeTimeout,
      maxMessageBytes: limits.maxMessageSize,
      messageRate: limits.messageRate,
      messageBurst: burstOf(limits.messageRate, limits.messageBurst),
      maxConnections: limits.maxConnections,
      maxConnectionsPerClient: limits.maxConnectionsPerClient,
      idleTimeoutMs: limits.idleTimeout,
      maxConnectionAgeMs: limits.maxConnectionAge,
      slowConsumerTimeoutMs: limits.slowConsumerTimeout,
    },
  };
}

function toSessionRetry(session: z.output<typeof policiesSchema>["retry"]["session"]) {
  const { on, attempts, timeout, buffer, resend, replay, notify } = session;
  return {
    onLost: on.includes("lost"),
    onUnresponsive: on.includes("unresponsive"),
    onDrained: on.includes("drained"),
    onCodes: new Set(on.filter((end) => typeof end === "number")),
    attempts,
    timeoutMs: timeout,
    bufferBytes: buffer,
    resend,
    replayFirst: replay.first,
    replaySwallow: replay.swallow,
    notify,
  };
}

/** A bucket that holds less than one message would let none through. */
function burstOf(rate: number, burst: number): number {
  return rate > 0 && burst === 0 ? Math.max(1, Math.ceil(rate)) : burst;
}
