/** A set of backends that serve the same thing. Hands out slots; dialling is `connect.ts`. */
import type { PoolConfig } from "../config/config.ts";
import { Backend, type Slot } from "./backend.ts";
import { type Balancer, createBalancer } from "./balance.ts";

export class Pool {
  readonly name: string;
  readonly connectTimeoutMs: number;
  readonly backends: readonly Backend[];
  readonly #balancer: Balancer;

  constructor(config: PoolConfig) {
    this.name = config.name;
    this.connectTimeoutMs = config.connectTimeoutMs;
    this.backends = config.backends.map((backend) => new Backend(backend));
    this.#balancer = createBalancer(config.balance);
  }

  /** A slot in an available backend outside `except`; null: there is none. */
  takeSlot(except: ReadonlySet<Backend>): Slot | null {
    const backend = this.#pick((candidate) => candidate.available && !except.has(candidate));
    return backend?.takeSlot() ?? null;
  }

  /** A backend for a plain HTTP request, which takes no slot; null: there is none. */
  pickForHttp(): Backend | null {
    return this.#pick(() => true);
  }

  #pick(eligible: (candidate: Backend) => boolean): Backend | null {
    const candidates = this.backends.filter(eligible);
    return candidates.length === 0 ? null : (this.#balancer.pick(candidates) ?? null);
  }
}
