/**
 * The addresses behind one host name, kept up to date by asking again and again. Owns when to ask and
 * what counts as an answer; what becomes of the addresses, and of backends whose address has gone, is
 * its user's.
 *
 *   idle ──start──▶ resolving ──answer, error, hang──▶ waiting ──interval or back-off──▶ resolving
 *                       └──────────stop──────────▶ stopped ◀──stop──┘
 */
import { lookup as systemLookup } from "node:dns/promises";
import { isIPv4 } from "node:net";
import type { BackoffConfig } from "../config/config.ts";
import { backoffMs } from "./back-off.ts";

/** All addresses of a host; `signal`: nobody waits for the answer any more. */
export type Resolver = (host: string, signal: AbortSignal) => Promise<readonly string[]>;

export interface DiscoveryConfig {
  /** A name: an IP address needs no discovery. */
  readonly host: string;
  readonly intervalMs: number;
}

export interface DiscoveryDependencies {
  readonly resolve: Resolver;
  readonly random: () => number;
}

export interface DiscoveryEvents {
  /** Sorted, each once, at least one and at most MAX_ADDRESSES; only when they have changed. */
  readonly onAddresses: (addresses: readonly string[]) => void;
  /** For people; once per outage, however many tries it lasts. The addresses stay as they are. */
  readonly onError: (detail: string) => void;
  /** The outage is over. */
  readonly onRecovery?: () => void;
}

/**
 * One backend each: beyond this, the first of them in sorted order are taken, so that the choice does not
 * move with the order of the answer, and `onError` says so.
 */
export const MAX_ADDRESSES = 1_024;

/** Longer than the system's resolver takes to fail by itself with one name server: 5 s, twice. */
export const RESOLVE_TIMEOUT_MS = 15_000;

/** What a delay is spread by, so that gateways that started as one do not ask as one. */
const SPREAD = 0.1;

/** Never later than the interval would have asked. */
const RETRY: BackoffConfig = { initialMs: 1_000, factor: 2, maxMs: 30_000, jitter: 0.2 };

/** setTimeout takes a longer one for 1 ms. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

export class Discovery {
  readonly #config: DiscoveryConfig;
  readonly #dependencies: DiscoveryDependencies;
  readonly #events: DiscoveryEvents;
  #state: "idle" | "resolving" | "waiting" | "stopped" = "idle";
  /** What has been told to `onError`, and has not ended. */
  #trouble: "none" | "outage" | "tooMany" = "none";
  #addresses: readonly string[] = [];
  /** Failures in a row. */
  #failures = 0;
  /** The next question, or while `resolving` the end of patience. */
  #timer: NodeJS.Timeout | undefined;
  /** Of the resolution that is waited for. */
  #current: AbortController | null = null;

  /** `known`: what another discovery of the same host has found; it stands until there is an answer. */
  constructor(
    config: DiscoveryConfig,
    dependencies: DiscoveryDependencies,
    events: DiscoveryEvents,
    known: readonly string[] = [],
  ) {
    this.#config = config;
    this.#dependencies = dependencies;
    this.#events = events;
    this.#addresses = known;
  }

  get host(): string {
    return this.#config.host;
  }

  /** The last good answer; empty: there has been none yet. */
  get addresses(): readonly string[] {
    return this.#addresses;
  }

  start(): void {
    if (this.#state === "idle") this.#resolve();
  }

  /** For good. An answer that is on its way is ignored. */
  stop(): void {
    const current = this.#current;
    this.#state = "stopped";
    this.#current = null;
    clearTimeout(this.#timer);
    current?.abort();
  }

  #resolve(): void {
    const current = new AbortController();
    this.#state = "resolving";
    this.#current = current;
    this.#timer = setTimeout(() => {
      this.#failed(`no answer within ${RESOLVE_TIMEOUT_MS} ms`);
      current.abort();
    }, RESOLVE_TIMEOUT_MS);
    void this.#ask(current);
  }

  /** Stopped or given up, it is not the current one any more: late answers and late errors are nobody's. */
  async #ask(current: AbortController): Promise<void> {
    let answer: readonly string[];
    try {
      answer = await this.#dependencies.resolve(this.#config.host, current.signal);
    } catch (error) {
      if (this.#current === current) this.#failed(wordsFor(error));
      return;
    }
    if (this.#current === current) this.#answered(answer);
  }

  #answered(answer: readonly string[]): void {
    const all = [...new Set(answer)].toSorted();
    if (all.length === 0) {
      this.#failed("no address in the answer");
      return;
    }
    const before = this.#addresses;
    const addresses = all.slice(0, MAX_ADDRESSES);
    this.#addresses = addresses;
    this.#failures = 0;
    const { intervalMs } = this.#config;
    this.#askAgainIn(intervalMs * (1 - SPREAD + 2 * SPREAD * this.#dependencies.random()));
    const detail = `${all.length} addresses, of which the first ${MAX_ADDRESSES} are used`;
    if (all.length > MAX_ADDRESSES) this.#inTrouble("tooMany", detail);
    else this.#recovered();
    const isStopped = this.#state === "stopped";
    if (!isStopped && !isSame(before, addresses)) this.#events.onAddresses(addresses);
  }

  #failed(detail: string): void {
    const { intervalMs } = this.#config;
    this.#failures += 1;
    const backoff = { ...RETRY, maxMs: Math.min(RETRY.maxMs, intervalMs) };
    this.#askAgainIn(backoffMs(backoff, this.#failures, this.#dependencies.random));
    this.#inTrouble("outage", detail);
  }

  #inTrouble(trouble: "outage" | "tooMany", detail: string): void {
    if (this.#trouble === trouble) return;
    this.#trouble = trouble;
    this.#events.onError(`${this.#config.host}: ${detail}`);
  }

  #recovered(): void {
    if (this.#trouble === "none") return;
    this.#trouble = "none";
    this.#events.onRecovery?.();
  }

  /** Before anybody is told: whoever is told may stop it. */
  #askAgainIn(delayMs: number): void {
    clearTimeout(this.#timer);
    this.#current = null;
    this.#state = "waiting";
    this.#timer = setTimeout(() => this.#resolve(), Math.min(LONGEST_DELAY_MS, delayMs));
  }
}

/**
 * The resolver of the system, as `getaddrinfo` has it: with `/etc/hosts`, search domains and name servers
 * as the pod has them. Addresses of both families are given, so behind a dual-stack name a server is two.
 *
 * A `getaddrinfo` cannot be cancelled and holds one of the process's few worker threads until it ends.
 * So while one is under way for a host, whoever asks for the same host again waits for that one.
 */
export function systemResolver(lookup: Lookup = systemLookup): Resolver {
  const pending = new Map<string, Promise<readonly string[]>>();
  return (host) => {
    const found = pending.get(host);
    if (found !== undefined) return found;
    const asked = lookup(host, { all: true })
      .then((entries) => oneFamily(entries.map(({ address }) => address)))
      .finally(() => pending.delete(host));
    pending.set(host, asked);
    return asked;
  };
}

/** A server with an address of each family is one server, with one cap. */
function oneFamily(addresses: readonly string[]): readonly string[] {
  const v4 = addresses.filter((address) => isIPv4(address));
  return v4.length > 0 ? v4 : addresses;
}

type Lookup = (
  host: string,
  options: { readonly all: true },
) => Promise<readonly { readonly address: string }[]>;

function isSame(before: readonly string[], after: readonly string[]): boolean {
  return before.length === after.length && before.every((address, i) => address === after[i]);
}

/** Of a failed lookup the code says it all: ENOTFOUND, EAI_AGAIN. */
function wordsFor(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return "code" in error && typeof error.code === "string" ? error.code : error.message;
}
