/** How a pool chooses among its backends. A balancer sees candidates only; caps are not its concern. */
import type { PoolConfig } from "../config/config.ts";
import type { Backend } from "./backend.ts";
import { rendezvous } from "./rendezvous.ts";

export interface Balancer {
  /** One of `candidates`, which is never empty. `key`: what the session is hashed by, if anything. */
  pick(candidates: readonly Backend[], key?: string | null): Backend | undefined;
}

export function createBalancer(balance: PoolConfig["balance"]): Balancer {
  switch (balance) {
    case "leastConnections":
      return new LeastConnections();
    case "roundRobin":
      return new RoundRobin();
    case "hash":
      return new Hash();
  }
}

/**
 * The same key goes to the same backend for as long as that is a candidate, else to the key's next
 * choice. Sessions without a key are no reason to load one backend.
 */
class Hash implements Balancer {
  readonly #withoutKey = new LeastConnections();

  pick(candidates: readonly Backend[], key: string | null = null): Backend | undefined {
    return key === null ? this.#withoutKey.pick(candidates) : rendezvous(candidates, key);
  }
}

/** Fewest connections for its weight; equals take turns, or an idle pool would load its first only. */
class LeastConnections implements Balancer {
  #turn = 0;

  pick(candidates: readonly Backend[]): Backend | undefined {
    this.#turn = (this.#turn + 1) % Number.MAX_SAFE_INTEGER;
    let best: Backend | undefined;
    let bestLoad = Number.POSITIVE_INFINITY;
    for (let i = 0; i < candidates.length; i += 1) {
      const candidate = candidates[(i + this.#turn) % candidates.length];
      if (candidate === undefined) continue;
      const load = (candidate.connections + 1) / candidate.weight;
      if (load < bestLoad) {
        best = candidate;
        bestLoad = load;
      }
    }
    return best;
  }
}

/**
 * Smooth weighted round robin: each turn every candidate gains its weight, the richest is chosen and
 * pays the sum of all weights. Weights 5, 1, 1 give a a b a c a a, never five in a row.
 */
class RoundRobin implements Balancer {
  readonly #credit = new WeakMap<Backend, number>();

  pick(candidates: readonly Backend[]): Backend | undefined {
    let total = 0;
    let best: Backend | undefined;
    let bestCredit = Number.NEGATIVE_INFINITY;
    for (const candidate of candidates) {
      const credit = (this.#credit.get(candidate) ?? 0) + candidate.weight;
      this.#credit.set(candidate, credit);
      total += candidate.weight;
      if (credit > bestCredit) {
        best = candidate;
        bestCredit = credit;
      }
    }
    if (best !== undefined) this.#credit.set(best, bestCredit - total);
    return best;
  }
}
