/**
 * What a live session is watched for: limits and silence on either leg. Says what is due; the session
 * does it. No I/O and no timer of its own.
 */
import type { Cause } from "../close/causes.ts";
import type { RouteConfig } from "../config/config.ts";
import { Heartbeat } from "./heartbeat.ts";
import type { Leg } from "./leg.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** Sessions that began together must not reach their age together either. */
const AGE_SPREAD = 0.1;

/** Who is due for a ping, or why the session must end. */
export type Due =
  | { readonly end: Cause }
  | { readonly pingClient: boolean; readonly pingUpstream: boolean };

export class Watch {
  readonly clientHeartbeat: Heartbeat;
  readonly upstreamHeartbeat: Heartbeat;
  /** When a frame was last relayed, either way: what `limits.idleTimeout` counts from. */
  relayedAt: number;
  readonly #client: Leg;
  readonly #upstream: Leg;
  readonly #limits: RouteConfig["limits"];
  readonly #oldAt: number;

  constructor(client: Leg, upstream: Leg, route: RouteConfig, now: number, random: () => number) {
    this.#client = client;
    this.#upstream = upstream;
    this.#limits = route.limits;
    this.clientHeartbeat = new Heartbeat(route.heartbeat.client, now, random);
    this.upstreamHeartbeat = new Heartbeat(route.heartbeat.upstream, now, random);
    this.relayedAt = now;
    const ageMs = route.limits.maxConnectionAgeMs;
    this.#oldAt = ageMs === 0 ? NEVER : now + ageMs * (1 - AGE_SPREAD * random());
  }

  due(now: number): Due {
    const end = this.#endingOf(now);
    if (end !== null) return { end };
    const client = this.clientHeartbeat.verdict(now, this.#client.lastReadAt);
    if (client === "unresponsive") return { end: "clientUnresponsive" };
    // An upstream that takes what we send lives, even before it has come to our ping.
    const lastSignAt = Math.max(this.#upstream.lastReadAt, this.#upstream.stalledSince(now) ?? 0);
    const upstream = this.upstreamHeartbeat.verdict(now, lastSignAt);
    if (upstream === "unresponsive") return { end: "upstreamUnresponsive" };
    return { pingClient: client === "ping", pingUpstream: upstream === "ping" };
  }

  /** When to ask again. */
  nextAt(now: number): number {
    const { idleTimeoutMs } = this.#limits;
    return Math.min(
      this.clientHeartbeat.nextAt,
      this.upstreamHeartbeat.nextAt,
      this.#oldAt,
      this.#stallsUntil(this.#client, now),
      this.#stallsUntil(this.#upstream, now),
      idleTimeoutMs > 0 ? this.relayedAt + idleTimeoutMs : NEVER,
    );
  }

  #endingOf(now: number): Cause | null {
    if (now >= this.#stallsUntil(this.#client, now)) return "slowConsumer";
    // Nor does it read our ping, whatever it sends by itself meanwhile.
    if (now >= this.#stallsUntil(this.#upstream, now)) return "upstreamUnresponsive";
    const { idleTimeoutMs } = this.#limits;
    if (idleTimeoutMs > 0 && now - this.relayedAt >= idleTimeoutMs) return "idle";
    return now >= this.#oldAt ? "maxAge" : null;
  }

  /** When a peer that takes nothing has done so for too long; Infinity: it takes what it gets. */
  #stallsUntil(leg: Leg, now: number): number {
    const since = leg.stalledSince(now);
    return since === null ? NEVER : since + this.#limits.slowConsumerTimeoutMs;
  }
}
