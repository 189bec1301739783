/**
 * The listeners of the gateway, over reloads: one whose address stays is not bound again, and one that is
 * gone is kept until its last connection has ended.
 */
import type { ListenerConfig } from "../config/config.ts";
import { BindError, formatBind } from "./bind-error.ts";
import type { Listener } from "./listener.ts";
import { listenerKey } from "./listener-key.ts";

/** A listener that is bound, and where. */
export interface BoundListener {
  readonly name: string;
  readonly address: string;
}

/** Addresses that are bound for a change that can still be given up. Call one of the two, once. */
export interface PreparedListeners {
  /** What stays takes its new settings, what is gone accepts no more. Returns what is new. */
  commit(): BoundListener[];
  /** Nothing has changed. */
  abort(): void;
}

interface Entry {
  readonly listener: Listener;
  readonly address: string;
}

export class Listeners {
  readonly #make: (config: ListenerConfig) => Listener;
  #bound = new Map<string, Entry>();
  /** Accept no more, and still have connections. */
  readonly #leaving = new Set<Listener>();

  constructor(make: (config: ListenerConfig) => Listener) {
    this.#make = make;
  }

  get bound(): BoundListener[] {
    return Array.from(this.#bound.values(), ({ listener: { config }, address }) => ({
      name: config.name,
      address,
    }));
  }

  /** With those that are leaving: their requests are the gateway's, too. */
  values(): Listener[] {
    return [...Array.from(this.#bound.values(), ({ listener }) => listener), ...this.#leaving];
  }

  /** Binds what is new. Rejects with a BindError, and then nothing has changed. */
  async prepare(configs: readonly ListenerConfig[]): Promise<PreparedListeners> {
    const fresh = new Map<string, Entry>();
    const abort = (): void => {
      for (const { listener } of fresh.values()) this.#leave(listener);
    };
    try {
      for (const config of configs) {
        const key = listenerKey(config);
        if (this.#bound.has(key)) continue;
        const listener = this.#make(config);
        const bind = await listener.listen().catch((error: unknown) => {
          throw BindError.from(`listener ${config.name}`, config.bind, error);
        });
        fresh.set(key, { listener, address: formatBind(bind) });
      }
    } catch (error) {
      abort();
      throw error;
    }
    return { commit: () => this.#commit(configs, fresh), abort };
  }

  #commit(configs: readonly ListenerConfig[], fresh: ReadonlyMap<string, Entry>): BoundListener[] {
    const before = this.#bound;
    this.#bound = new Map();
    for (const config of configs) {
      const key = listenerKey(config);
      const entry = before.get(key) ?? fresh.get(key);
      before.delete(key);
      if (entry === undefined) continue;
      entry.listener.reconfigure(config);
      this.#bound.set(key, entry);
    }
    for (const { listener } of before.values()) this.#leave(listener);
    return Array.from(fresh.values(), ({ listener, address }) => ({
      name: listener.config.name,
      address,
    }));
  }

  #leave(listener: Listener): void {
    this.#leaving.add(listener);
    listener.stopAccepting(() => this.#leaving.delete(listener));
  }
}
