/** What has been done to backends and gateways, and when: which ends of a session it can explain. */

export type Disruption =
  /** The process was killed, or has gone with Close 1001 for everybody; until it listened again. */
  | "killed"
  | "restarted"
  /** It was stopped, or so slow that it looked like it. */
  | "frozen"
  /** An operator drained it; a reload took it out of its pools. */
  | "drained"
  | "removed";

export interface Entry {
  readonly what: Disruption;
  readonly backend: number;
  readonly from: number;
  /** Infinity: it goes on. */
  to: number;
}

/** How long the run's own processes may take to notice, on a machine that is busy. */
const SLACK_MS = 3_000;
/** Longer than `heartbeat.upstream` takes, interval and timeout. */
const LONG_FREEZE_MS = 5_000;
/** By when a session stands, and its first ping is due. */
const STANDING_MS = 1_500;

export class History {
  /** How long before and after it something may still explain an end. */
  slackMs = SLACK_MS;
  readonly #entries: Entry[] = [];

  /** What is done to processes hits every gateway; `wider` is their history. */
  readonly #wider: History | null;

  constructor(wider: History | null = null) {
    this.#wider = wider;
  }

  /** `end` ends it. */
  begin(what: Disruption, backend: number): Entry {
    const entry = { what, backend, from: performance.now(), to: Number.POSITIVE_INFINITY };
    this.#entries.push(entry);
    return entry;
  }

  end(entry: Entry): void {
    entry.to = performance.now();
  }

  /** Whether something of this kind, at any of these backends, falls within a time. */
  has(
    kinds: readonly Disruption[],
    backends: readonly number[],
    from: number,
    to: number,
  ): boolean {
    return this.during(from, to).some(
      ({ what, backend }) => kinds.includes(what) && backends.includes(backend),
    );
  }

  /** The backends that something has been done to within a time. */
  disrupted(from: number, to: number): Set<number> {
    return new Set(this.during(from, to).map(({ backend }) => backend));
  }

  /** Whether a session that stood from `from` to `to` has seen the backend frozen for long, and stayed. */
  spansLongFreeze(backend: number, from: number, to: number): boolean {
    return this.during(from, to).some(
      (entry) =>
        entry.what === "frozen" &&
        entry.backend === backend &&
        entry.to - entry.from >= LONG_FREEZE_MS &&
        entry.from >= from + STANDING_MS &&
        entry.to <= to,
    );
  }

  during(from: number, to: number): Entry[] {
    const own = this.#entries.filter(
      (entry) => entry.from <= to + this.slackMs && entry.to >= from - this.slackMs,
    );
    return [...own, ...(this.#wider?.during(from, to) ?? [])];
  }
}
