/**
 * One upstream server and its slots. A slot is the right to hold one connection to the backend: taken
 * before the dial, released once, when that connection is gone. This is what makes the cap exact.
 */
import type { BackendConfig } from "../config/config.ts";

export class Backend {
  /** As written in the configuration: the backend's name in logs, metrics and the admin API. */
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** 0: no limit. */
  readonly maxConnections: number;
  readonly weight: number;
  #connections = 0;

  constructor(config: BackendConfig) {
    this.url = config.url;
    this.host = config.host;
    this.port = config.port;
    this.maxConnections = config.maxConnections;
    this.weight = config.weight;
  }

  /** Slots taken, by sessions and dials. */
  get connections(): number {
    return this.#connections;
  }

  get full(): boolean {
    return this.maxConnections > 0 && this.#connections >= this.maxConnections;
  }

  /** Whether it may get one more session; the only question that balancing asks. */
  get available(): boolean {
    return !this.full;
  }

  /** Takes a slot; null: full. */
  takeSlot(): Slot | null {
    if (this.full) return null;
    this.#connections += 1;
    return new Slot(this, () => {
      this.#connections -= 1;
    });
  }
}

export class Slot {
  readonly backend: Backend;
  #release: (() => void) | null;

  constructor(backend: Backend, release: () => void) {
    this.backend = backend;
    this.#release = release;
  }

  /** Gives the slot back; a second call does nothing. */
  release(): void {
    const release = this.#release;
    this.#release = null;
    release?.();
  }
}
