/** Whether the gateway's counters add up: among themselves, and with the records it has logged. */
import type { Scrape } from "../bench/scrape.ts";
import type { LoggedRecord } from "./gateway-life.ts";

/**
 * Counters that have become smaller. Those of a backend begin anew when it has been out
 * of the configuration for a while.
 */
export function shrunkCounters(before: Scrape, now: Scrape): string[] {
  const shrunk: string[] = [];
  for (const [name, series] of now.series) {
    if (!name.startsWith("softclose_") || !name.endsWith("_total")) continue;
    for (const [labels, value] of series) {
      if (labels.includes('backend="')) continue;
      const earlier = before.series.get(name)?.get(labels) ?? 0;
      if (value < earlier) shrunk.push(`${name}{${labels}} fell from ${earlier} to ${value}`);
    }
  }
  return shrunk;
}

/** At any moment, in one scrape. */
export function imbalance(scrape: Scrape): string[] {
  const opened = scrape.sum("softclose_sessions_total");
  const ended = scrape.sum("softclose_session_ends_total");
  const active = scrape.sum("softclose_sessions_active");
  if (opened === ended + active) return [];
  return [`${opened} sessions opened, but ${ended} ended and ${active} active`];
}

/** When nothing goes on any more. */
export function disagreements(scrape: Scrape, records: readonly LoggedRecord[]): string[] {
  const problems: string[] = [];
  const expect = (what: string, counted: number, recorded: number): void => {
    if (counted !== recorded) problems.push(`${what}: counted ${counted}, recorded ${recorded}`);
  };
  const routes = new Set(records.map(({ route }) => route));
  for (const route of routes) {
    const label = `route="${route}"`;
    const ofRoute = records.filter((record) => record.route === route);
    for (const cause of new Set(ofRoute.map((record) => record.cause))) {
      const labels = [label, `cause="${cause}"`];
      const ofCause = ofRoute.filter((record) => record.cause === cause);
      const refused = ofCause.filter((record) => record.refused === true).length;
      const title = `${route}, ${cause}`;
      expect(
        `${title}, ends`,
        scrape.sum("softclose_session_ends_total", ...labels),
        ofCause.length - refused,
      );
      expect(`${title}, refusals`, scrape.sum("softclose_refusals_total", ...labels), refused);
    }
    for (const direction of ["clientToUpstream", "upstreamToClient"] as const) {
      const labels = [label, `direction="${direction}"`];
      expect(
        `${route}, messages ${direction}`,
        scrape.sum("softclose_relayed_messages_total", ...labels),
        sumOf(ofRoute, ({ messages }) => messages[direction]),
      );
      expect(
        `${route}, dropped ${direction}`,
        scrape.sum("softclose_dropped_messages_total", ...labels),
        sumOf(ofRoute, ({ dropped }) => dropped?.[direction] ?? 0),
      );
    }
  }
  for (const direction of ["sent", "received"] as const) {
    expect(
      `Closes ${direction}, client`,
      scrape.sum("softclose_close_frames_total", 'side="client"', `direction="${direction}"`),
      sumOf(records, ({ client }) => (client[direction] === null ? 0 : 1)),
    );
  }
  return problems;
}

function sumOf(records: readonly LoggedRecord[], value: (record: LoggedRecord) => number): number {
  return records.reduce((sum, record) => sum + value(record), 0);
}
