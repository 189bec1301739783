/** One scrape of `/metrics`. */

/** A line of the exposition format: name, labels (may be empty), value. */
const METRIC_LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/gm;

export class Scrape {
  /** Values by metric, then by labels. */
  readonly series: ReadonlyMap<string, ReadonlyMap<string, number>>;

  constructor(text: string) {
    const all = new Map<string, Map<string, number>>();
    for (const [, name = "", labels = "", value] of text.matchAll(METRIC_LINE)) {
      const series = all.get(name) ?? new Map<string, number>();
      all.set(name, series);
      series.set(labels, Number(value));
    }
    this.series = all;
  }

  /** The sum over all series of a metric that must be there. */
  total(name: string): number {
    if (!this.series.has(name)) throw new Error(`/metrics has no ${name}`);
    return this.sum(name);
  }

  /** The sum over all series of a metric with these labels, each as `name="value"`. */
  sum(name: string, ...labels: readonly string[]): number {
    let sum = 0;
    for (const [known, value] of this.series.get(name) ?? []) {
      if (labels.every((label) => known.split(",").includes(label))) sum += value;
    }
    return sum;
  }
}
