/** What must hold of the gateway's own account once a session, or a refusal, is over. */
import { expect } from "vitest";
import type { Cause } from "../../src/close/causes.ts";
import type { CloseCodes, SessionRecord } from "../../src/session/record.ts";
import { eventually } from "./eventually.ts";
import type { TestGateway } from "./gateway.ts";
import type { UpstreamPeer } from "./raw-upstream.ts";

export interface Outcome {
  readonly cause: Cause;
  /** Default: false. */
  readonly refused?: boolean;
  /** What is left out may be either. */
  readonly client: Partial<CloseCodes>;
  /** Default: no Close either way. */
  readonly upstream?: Partial<CloseCodes>;
  /** Default: 1. */
  readonly dials?: number;
  readonly detail?: string;
  /** Default: all. */
  readonly route?: string;
}

const DROPS: readonly Cause[] = ["upstreamLost", "upstreamUnresponsive"];

/** Waits for the record of the only session so far; it, the metrics and the slots agree with `outcome`. */
export async function expectOutcome(
  gateway: TestGateway,
  { refused = false, upstream = NO_CODES, dials = 1, route = "all", ...rest }: Outcome,
): Promise<SessionRecord> {
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({ refused, upstream, dials, route, ...rest });
  expect(gateway.records).toHaveLength(1);
  await eventually(() => expect(gateway.slots).toBe(0));
  const { cause, client } = rest;
  const ended = { [`route="${route}",cause="${cause}"`]: 1 };
  const dropped = DROPS.includes(cause) && !refused && typeof client.sent === "number";
  const series = await readSeries(gateway);
  expect(series("softclose_session_ends_total")).toEqual(refused ? {} : ended);
  expect(series("softclose_refusals_total")).toEqual(refused ? ended : {});
  expect(series("softclose_sessions_total")).toEqual(refused ? {} : { [`route="${route}"`]: 1 });
  expect(series("softclose_absorbed_drops_total")).toEqual(
    dropped ? { [`route="${route}",outcome="closed"`]: 1 } : {},
  );
  const closeFrames = Object.entries(series("softclose_close_frames_total"));
  for (const [side, codes] of Object.entries({ client, upstream })) {
    for (const direction of ["sent", "received"] as const) {
      if (codes[direction] === undefined) continue;
      const frames = closeFrames
        .filter(([labels]) => labels.startsWith(`side="${side}",direction="${direction}"`))
        .reduce((sum, [, value]) => sum + value, 0);
      expect([side, direction, frames]).toEqual([side, direction, codes[direction] ? 1 : 0]);
    }
  }
  if (record === undefined) throw new Error("no record");
  return record;
}

/** Everything that a backend got is whole and masked (RFC 6455 §5.1), with at most one Close. */
export function expectWellFormed(peer: UpstreamPeer): void {
  expect(peer.log.torn).toHaveLength(0);
  expect(peer.log.frames.filter(({ mask }) => mask === null)).toEqual([]);
  expect(peer.log.closes.length).toBeLessThanOrEqual(1);
}

/** Reads all metrics once; the answer gives the values of one, by their labels, without zeros. */
export async function readSeries(
  gateway: TestGateway,
): Promise<(name: string) => Record<string, number>> {
  const { text } = await gateway.gateway.metrics();
  const lines = text.split("\n");
  return (name) => {
    const values: Record<string, number> = {};
    for (const line of lines) {
      const match = /^(\w+)\{(.*)\} (\S+)$/.exec(line);
      if (match?.[1] !== name || Number(match[3]) === 0) continue;
      values[match[2] ?? ""] = Number(match[3]);
    }
    return values;
  };
}

const NO_CODES: CloseCodes = { sent: null, received: null };

/** Rows for `it.each` whose title stands in the test's name whole and without quotes: `%s`. */
export function titled<Row extends { readonly title: string }>(
  rows: readonly Row[],
): (readonly [string, Row])[] {
  return rows.map((row) => [row.title, row] as const);
}
