/**
 * Active health of one backend: when it is probed, and whether it counts as up. How a probe goes is
 * probe.ts, what a row of them means is health-tally.ts.
 *
 *   idle ──start──▶ waiting ──timer──▶ probing ──verdict──▶ waiting
 *                      └───────stop───────┴────▶ stopped
 */
import type { HealthConfig } from "../config/config.ts";
import { type HealthState, isUp, type Tally, tallyProbe } from "./health-tally.ts";
import type { Probe } from "./probe.ts";
import type { ProbeResult, ProbeTarget } from "./probe-attempt.ts";

/** Told of every probe that was not aborted; implemented by metrics. */
export interface ProbeObserver {
  probeEnded(backend: string, result: ProbeResult, durationMs: number): void;
}

export interface HealthDependencies {
  readonly probe: Probe;
  readonly observer: ProbeObserver;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  /** 0 to below 1. */
  readonly random: () => number;
}

/** Within this time after the start the first probe begins: all backends of a pool start together. */
const FIRST_SPREAD_MS = 500;

/** An interval is drawn from this share below to this share above its length: probes drift apart. */
const JITTER = 0.1;

/** setTimeout takes a longer one for 1 ms. */
const LONGEST_DELAY_MS = 2 ** 31 - 1;

export class HealthCheck {
  readonly #target: ProbeTarget;
  readonly #config: HealthConfig;
  readonly #dependencies: HealthDependencies;
  readonly #onChange: (isUp: boolean, detail: string) => void;
  #phase: "idle" | "waiting" | "probing" | "stopped" = "idle";
  #tally: Tally;
  #detail = "";
  #timer: NodeJS.Timeout | undefined;
  #abort: AbortController | null = null;

  /**
   * `onChange` is called when the backend stops or begins to count as up, never from within `start` or
   * `stop`; it may call `stop`. `initial`: what an earlier check of the same backend knew.
   */
  constructor(
    target: ProbeTarget,
    config: HealthConfig,
    dependencies: HealthDependencies,
    onChange: (isUp: boolean, detail: string) => void,
    initial: HealthState = "unknown",
  ) {
    this.#target = target;
    this.#config = config;
    this.#dependencies = dependencies;
    this.#onChange = onChange;
    this.#tally = { state: initial, against: 0 };
  }

  get state(): HealthState {
    return this.#tally.state;
  }

  get isUp(): boolean {
    return isUp(this.#tally.state);
  }

  /** What the last probe found, for people; empty before the first. */
  get detail(): string {
    return this.#detail;
  }

  /** A second call, or one after `stop`, does nothing. */
  start(): void {
    if (this.#phase !== "idle") return;
    const spreadMs = Math.min(FIRST_SPREAD_MS, this.#config.intervalMs);
    this.#wait(this.#dependencies.random() * spreadMs);
  }

  /** For good: no timer, no socket and no call of `onChange` comes after it. */
  stop(): void {
    this.#phase = "stopped";
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#abort = null;
  }

  #wait(delayMs: number): void {
    this.#phase = "waiting";
    this.#timer = setTimeout(() => void this.#probe(), Math.min(LONGEST_DELAY_MS, delayMs));
  }

  async #probe(): Promise<void> {
    const { probe, now } = this.#dependencies;
    const startedAt = now();
    const abort = new AbortController();
    this.#phase = "probing";
    this.#abort = abort;
    const result = await probe(this.#target, this.#config, abort.signal);
    // Stopped meanwhile: what is left of the probe is its abortion.
    if (this.#phase === "probing") this.#probed(result, startedAt);
  }

  #probed(result: ProbeResult, startedAt: number): void {
    const { observer, now, random } = this.#dependencies;
    const wasUp = this.isUp;
    this.#abort = null;
    this.#tally = tallyProbe(this.#tally, result.good, this.#config);
    this.#detail = result.detail;
    // From start to start: a probe that takes its whole timeout makes the rhythm no slower. One that
    // takes longer than the interval is followed by the next at once, never joined by it.
    const durationMs = now() - startedAt;
    const intervalMs = this.#config.intervalMs * (1 - JITTER + 2 * JITTER * random());
    this.#wait(Math.max(0, intervalMs - durationMs));
    observer.probeEnded(this.#target.url, result, durationMs);
    // Last, since it may stop this check.
    if (wasUp !== this.isUp) this.#onChange(this.isUp, result.detail);
  }
}
