/** Whether the gateway's counters add up: among themselves, and with the records it has logged. */
import type { LoggedRecord } from "./gateway-life.ts";

/** A line of the exposition format: name, labels (may be empty), value. */
const METRIC_LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/gm;

/** One scrape of `/metrics`. */
export class Scrape {
  readonly #series = new Map<string, Map<string, number>>();

  constructor(text: string) {
    for (const [, name = "", labels = "", value] of text.matchAll(METRIC_LINE)) {
      const series = this.#series.get(name) ?? new Map<string, number>();
      this.#series.set(name, series);
      series.set(labels, Number(value));
    }
  }

  /** The sum over all series of a metric with these labels. */
  sum(name: string, ...labels: readonly string[]): number {
    let sum = 0;
    for (const [known, value] of this.#series.get(name) ?? []) {
      if (labels.every((label) => known.split(",").includes(label))) sum += value;
    }
    return sum;
  }

  /**
   * Counters that have become smaller since `before`. Those of a backend begin anew when it has been out
   * of the configuration for a while.
   */
  shrunkSince(before: Scrape): string[] {
    const shrunk: string[] = [];
    for (const [name, series] of this.#series) {
      if (!name.startsWith("softclose_") || !name.endsWith("_total")) continue;
      for (const [labels, value] of series) {
        if (labels.includes('backend="')) continue;
        const earlier = before.#series.get(name)?.get(labels) ?? 0;
        if (value < earlier) shrunk.push(`${name}{${labels}} fell from ${earlier} to ${value}`);
      }
    }
    return shrunk;
  }

  /** At any moment, in one scrape. */
  get imbalance(): string[] {
    const opened = this.sum("softclose_sessions_total");
    const ended = this.sum("softclose_session_ends_total");
    const active = this.sum("softclose_sessions_active");
    if (opened === ended + active) return [];
    return [`${opened} sessions opened, but ${ended} ended and ${active} active`];
  }

  /** When nothing goes on any more. */
  disagreements(records: readonly LoggedRecord[]): string[] {
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
          this.sum("softclose_session_ends_total", ...labels),
          ofCause.length - refused,
        );
        expect(`${title}, refusals`, this.sum("softclose_refusals_total", ...labels), refused);
      }
      for (const direction of ["clientToUpstream", "upstreamToClient"] as const) {
        const labels = [label, `direction="${direction}"`];
        expect(
          `${route}, messages ${direction}`,
          this.sum("softclose_relayed_messages_total", ...labels),
          sumOf(ofRoute, ({ messages }) => messages[direction]),
        );
        expect(
          `${route}, dropped ${direction}`,
          this.sum("softclose_dropped_messages_total", ...labels),
          sumOf(ofRoute, ({ dropped }) => dropped?.[direction] ?? 0),
        );
      }
    }
    for (const direction of ["sent", "received"] as const) {
      expect(
        `Closes ${direction}, client`,
        this.sum("softclose_close_frames_total", 'side="client"', `direction="${direction}"`),
        sumOf(records, ({ client }) => (client[direction] === null ? 0 : 1)),
      );
    }
    return problems;
  }
}

function sumOf(records: readonly LoggedRecord[], value: (record: LoggedRecord) => number): number {
  return records.reduce((sum, record) => sum + value(record), 0);
}
