/**
 * What a row of probes says about a backend, pure. A backend that has not been judged yet counts as up,
 * so that a gateway serves as soon as it has started.
 *
 *              1 good           fall bad in a row
 *   unknown ───────────▶ up ──────────────────────▶ down
 *      │                  ▲                           │ ▲
 *      │                  └──── rise good in a row ───┘ │
 *      └─────────────── fall bad in a row ──────────────┘
 */
import type { HealthConfig } from "../config/config.ts";

export type HealthState = "unknown" | "up" | "down";

export interface Tally {
  readonly state: HealthState;
  /** The last probes in a row that spoke against the state. */
  readonly against: number;
}

export function isUp(state: HealthState): boolean {
  return state !== "down";
}

export function tallyProbe(
  tally: Tally,
  good: boolean,
  { rise, fall }: Pick<HealthConfig, "rise" | "fall">,
): Tally {
  const { state } = tally;
  const against = tally.against + 1;
  if (state === "down") {
    if (!good) return { state, against: 0 };
    return against >= rise ? { state: "up", against: 0 } : { state, against };
  }
  // `rise` is for coming back: a backend that counts as up already is up by its first good probe.
  if (good) return { state: "up", against: 0 };
  return against >= fall ? { state: "down", against: 0 } : { state, against };
}
