/**
 * What a live session is watched for: limits and silence on either leg. Says what is due; the session
 * does it. No I/O and no timer of its own.
 */
import type { Cause } from "../close/causes.ts";
import type { RouteConfig } from "../config/config.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { Leg } from "./leg.ts";
import type { UpstreamLink } from "./upstream-link.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** Sessions that began together must not reach their age together either. */
const AGE_SPREAD = 0.1;

/** Who is due for a ping, or why the session must end. */
export type Due =
  | { readonly end: Cause }
  | { readonly pingClient: boolean; readonly pingUpstream: boolean };

export class Watch {
  readonly clientHeartbeat: Heartbeat;
  /** When a frame was last relayed, either way: what `limits.idleTimeout` counts from. */
  relayedAt: number;
  readonly #client: Leg;
  readonly #limits: RouteConfig["limits"];
  readonly #oldAt: number;

  constructor(client: Leg, route: RouteConfig, now: number, random: () => number) {
    this.#client = client;
    this.#limits = route.limits;
    this.clientHeartbeat = new Heartbeat(route.heartbeat.client, now, random);
    this.relayedAt = now;
    const ageMs = route.limits.maxConnectionAgeMs;
    this.#oldAt = ageMs === 0 ? NEVER : now + ageMs * (1 - AGE_SPREAD * random());
  }

  /** `link`: null while there is no upstream. */
  due(now: number, link: UpstreamLink | null): Due {
    const end = this.#endingOf(now, link);
    if (end !== null) return { end };
    const client = this.clientHeartbeat.verdict(now, this.#client.lastReadAt);
    if (client === "unresponsive") return { end: "clientUnresponsive" };
    const upstream = link?.heartbeat.verdict(now, lastSignOf(link.leg, now)) ?? "nothing";
    if (upstream === "unresponsive") return { end: "upstreamUnresponsive" };
    return { pingClient: client === "ping", pingUpstream: upstream === "ping" };
  }

  /** When to ask again. */
  nextAt(now: number, link: UpstreamLink | null): number {
    let at = Math.min(
      this.clientHeartbeat.nextAt,
      link?.heartbeat.nextAt ?? NEVER,
      this.#oldAt,
      this.#stallsUntil(this.#client, now),
    );
    if (link === null) return at;
    at = Math.min(at, this.#stallsUntil(link.leg, now));
    const { idleTimeoutMs } = this.#limits;
    return idleTimeoutMs > 0 ? Math.min(at, this.relayedAt + idleTimeoutMs) : at;
  }

  #endingOf(now: number, link: UpstreamLink | null): Cause | null {
    if (now >= this.#stallsUntil(this.#client, now)) return "slowConsumer";
    // Nor does it read our ping, whatever it sends by itself meanwhile.
    if (link !== null && now >= this.#stallsUntil(link.leg, now)) return "upstreamUnresponsive";
    // While an upstream is being dialled the client waits for us: it is not idle.
    const { idleTimeoutMs } = this.#limits;
    const mayIdle = idleTimeoutMs > 0 && link !== null;
    if (mayIdle && now - this.relayedAt >= idleTimeoutMs) return "idle";
    return now >= this.#oldAt ? "maxAge" : null;
  }

  /** When a peer that takes nothing has done so for too long; Infinity: it takes what it gets. */
  #stallsUntil(leg: Leg, now: number): number {
    const since = leg.stalledSince(now);
    return since === null ? NEVER : since + this.#limits.slowConsumerTimeoutMs;
  }
}

/** An upstream that takes what we send lives, even before it has come to our ping. */
function lastSignOf(leg: Leg, now: number): number {
  return Math.max(leg.lastReadAt, leg.stalledSince(now) ?? 0);
}
