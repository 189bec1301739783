/**
 * The caps of listener, route and client address, and the listener's rate. A ticket is taken when a
 * handshake has been checked and given back when its session is over, or as soon as it is refused.
 */
import type { ListenerConfig, RouteConfig } from "../config/config.ts";
import type { Clock } from "../session/clock.ts";
import { AcceptRate } from "./accept-rate.ts";
import { clientKey } from "./forwarded.ts";
import { listenerKey } from "./listener-key.ts";

/** Which cap is reached. */
export type FullCap = "listener" | "route" | "client" | "acceptRate";

export class Ticket {
  #release: (() => void) | null;

  constructor(release: () => void) {
    this.#release = release;
  }

  /** Gives the places back; a second call does nothing. */
  release(): void {
    const release = this.#release;
    this.#release = null;
    release?.();
  }
}

export class Admission {
  /** By address: over a reload a listener keeps its places, whatever it is called. */
  readonly #listeners = new Counts();
  /** By name: a route that is called otherwise is another route. */
  readonly #routes = new Counts();
  /** By route and client address: each route has a limit of its own. */
  readonly #clients = new Counts();
  readonly #acceptRate: AcceptRate;

  constructor(clock: Clock) {
    this.#acceptRate = new AcceptRate(clock);
  }

  /** A place in all three, or the cap that is reached. */
  admit(listener: ListenerConfig, route: RouteConfig, clientIp: string): Ticket | FullCap {
    const { limits } = route;
    const address = listenerKey(listener);
    const client = `${route.name} ${clientKey(clientIp)}`;
    if (isFull(this.#listeners.get(address), listener.maxConnections)) return "listener";
    if (isFull(this.#routes.get(route.name), limits.maxConnections)) return "route";
    if (isFull(this.#clients.get(client), limits.maxConnectionsPerClient)) return "client";
    // Last: one that is refused anyway must not take the turn of another.
    if (!this.#acceptRate.take(listener)) return "acceptRate";
    this.#listeners.add(address, 1);
    this.#routes.add(route.name, 1);
    this.#clients.add(client, 1);
    return new Ticket(() => {
      this.#listeners.add(address, -1);
      this.#routes.add(route.name, -1);
      this.#clients.add(client, -1);
    });
  }

  /** Places taken; for tests of release. */
  get places(): number {
    return this.#listeners.total;
  }
}

function isFull(count: number, limit: number): boolean {
  return limit > 0 && count >= limit;
}

/** Names that count nothing are not kept: client addresses come and go without end. */
class Counts {
  readonly #counts = new Map<string, number>();

  get(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  add(name: string, difference: 1 | -1): void {
    const count = this.get(name) + difference;
    if (count === 0) this.#counts.delete(name);
    else this.#counts.set(name, count);
  }

  get total(): number {
    let sum = 0;
    for (const count of this.#counts.values()) sum += count;
    return sum;
  }
}
