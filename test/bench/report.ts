/** What the benchmark prints: the table that the README quotes, the machine, and the targets. */
import { cpus } from "node:os";
import type { Contender } from "./contenders.ts";
import type { Measurements, Metric } from "./measurements.ts";

interface Column {
  title: string;
  metric: Metric;
  format: (value: number) => string;
}

const oneDecimal = (value: number): string => value.toFixed(1);
const whole = (value: number): string => Math.round(value).toLocaleString("en-US");
const milliseconds = (us: number): string => (us / 1000).toFixed(2);

const COLUMNS: readonly Column[] = [
  { title: "64 B", metric: "cpuUs64", format: oneDecimal },
  { title: "of it outside the kernel", metric: "userUs64", format: oneDecimal },
  { title: "1 KiB", metric: "cpuUs1k", format: oneDecimal },
  { title: "16 KiB", metric: "cpuUs16k", format: oneDecimal },
  { title: "64 B, 16 in flight", metric: "cpuUs64Pipelined", format: oneDecimal },
  { title: "messages/s", metric: "messagesPerSecond64", format: whole },
  { title: "messages/s, 16 in flight", metric: "messagesPerSecond64Pipelined", format: whole },
  { title: "p50 ms", metric: "p50Us", format: milliseconds },
  { title: "p99 ms", metric: "p99Us", format: milliseconds },
  { title: "handshakes/s", metric: "handshakesPerSecond", format: whole },
  { title: "CPU µs per handshake", metric: "cpuUsPerHandshake", format: whole },
  { title: "KiB per idle session", metric: "kibPerIdleSession", format: oneDecimal },
];

const row = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;

export function renderTable(
  measurements: Measurements,
  contenders: readonly Contender[],
  rounds: number,
): string {
  const lines = [
    row(["proxy", ...COLUMNS.map((column) => column.title)]),
    row(["---", ...COLUMNS.map(() => "---:")]),
  ];
  for (const { name, label } of contenders) {
    const cells = COLUMNS.map(({ metric, format }) => {
      const value = measurements.median(name, metric);
      return value === undefined ? "-" : format(value);
    });
    lines.push(row([label, ...cells]));
  }
  return `${lines.join("\n")}

The first five columns: CPU microseconds of the proxy per echoed message, 50 connections, one message
in flight where not said otherwise. Messages/s and latency: 64 B. A handshake: a new session, one
echoed message, a clean close. An idle session: RSS growth of a fresh process at 2,000 sessions, each
after one echoed message. ${rounds === 1 ? "One round." : `Medians of ${rounds} rounds, proxies taking turns.`}`;
}

export function renderMachine(contenders: readonly Contender[]): string {
  const processors = cpus();
  const facts = [
    `Node ${process.version}`,
    `${processors.length} cores (${processors[0]?.model.trim() || "unknown model"})`,
  ];
  for (const { label, version } of contenders) {
    if (version !== undefined) facts.push(`${label} ${version}`);
  }
  return `Machine: ${facts.join(", ")}`;
}

interface Goal {
  title: string;
  metric: Metric;
  /** The proxy to compare with; without one the limit is absolute. */
  against?: string;
  limit: number;
}

const GOALS: readonly Goal[] = [
  {
    title: "CPU per 64 B message / bare pipe",
    metric: "cpuUs64",
    against: "bare-pipe",
    limit: 1.2,
  },
  { title: "CPU per 64 B message / ws pump", metric: "cpuUs64", against: "ws-pump", limit: 0.5 },
  { title: "CPU per 16 KiB message / nginx", metric: "cpuUs16k", against: "nginx", limit: 1 },
  { title: "KiB per idle session", metric: "kibPerIdleSession", limit: 14 },
];

/** One line per target, from the medians of the table. */
export function renderGoals(measurements: Measurements): string {
  return GOALS.map(({ title, metric, against, limit }) => {
    const ours = measurements.median("softclose", metric);
    const base = against === undefined ? 1 : measurements.median(against, metric);
    if (ours === undefined || base === undefined) return `----  ${title}: not measured in this run`;
    const value = ours / base;
    const verdict = value <= limit ? "PASS" : "FAIL";
    return `${verdict}  ${title}: ${value.toFixed(2)} (at most ${limit})`;
  }).join("\n");
}

/**
 * What puts the pump's target into proportion: both pay the same system calls, so the ratio depends on
 * how dear those are on the machine. The bare pipe shows how low any proxy on Node can get there.
 */
export function renderPumpContext(measurements: Measurements): string {
  const ratio = (name: string, metric: Metric): string => {
    const value = measurements.median(name, metric);
    const pump = measurements.median("ws-pump", metric);
    return value === undefined || pump === undefined ? "-" : (value / pump).toFixed(2);
  };
  return (
    `      Against the ws pump, 64 B: bare pipe ${ratio("bare-pipe", "cpuUs64")}; ` +
    `softclose outside the kernel ${ratio("softclose", "userUs64")}, ` +
    `with 16 in flight ${ratio("softclose", "cpuUs64Pipelined")}`
  );
}
