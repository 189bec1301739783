/**
 * The caps of listener, route and client address. A ticket is taken when a handshake has been checked
 * and given back when its session is over, or as soon as it is refused.
 */
import type { ListenerConfig, RouteConfig } from "../config/config.ts";
import { clientKey } from "./forwarded.ts";

/** Which cap is reached. */
export type FullCap = "listener" | "route" | "client";

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
  readonly #listeners = new Counts();
  readonly #routes = new Counts();
  /** By route and client address: each route has a limit of its own. */
  readonly #clients = new Counts();

  /** A place in all three, or the cap that is reached. */
  admit(listener: ListenerConfig, route: RouteConfig, clientIp: string): Ticket | FullCap {
    const { limits } = route;
    const client = `${route.name} ${clientKey(clientIp)}`;
    if (isFull(this.#listeners.get(listener.name), listener.maxConnections)) return "listener";
    if (isFull(this.#routes.get(route.name), limits.maxConnections)) return "route";
    if (isFull(this.#clients.get(client), limits.maxConnectionsPerClient)) return "client";
    this.#listeners.add(listener.name, 1);
    this.#routes.add(route.name, 1);
    this.#clients.add(client, 1);
    return new Ticket(() => {
      this.#listeners.add(listener.name, -1);
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
