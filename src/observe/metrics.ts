/**
 * Prometheus metrics of one gateway, in a registry of its own. Every label value comes from the
 * configuration or from a closed list, so no client can grow the number of series.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { CAUSES, type Cause, type Side } from "../close/causes.ts";
import type { BothWays, SessionObserver, SessionRecord } from "../session/record.ts";

/** How a dial ended. `rejected`: an answer that is not a valid 101. `aborted`: the client left first. */
export const DIAL_OUTCOMES = [
  "connected",
  "refused",
  "timeout",
  "tls",
  "dns",
  "reset",
  "rejected",
  "aborted",
] as const;

export type DialOutcome = (typeof DIAL_OUTCOMES)[number];

interface BackendGauge {
  readonly pool: string;
  /** URL from the config. */
  readonly backend: string;
  /** Slots taken: sessions and dials. */
  readonly connections: number;
  readonly up: boolean;
}

/** Live state that gauges mirror: asked for on scrape, never kept twice. */
export interface LiveState {
  sessionsByRoute(): Iterable<readonly [route: string, sessions: number]>;
  backends(): Iterable<BackendGauge>;
}

export interface MetricsOptions {
  readonly version: string;
  /** Names whose series start at 0, so that rate() sees the first event. */
  readonly routes: readonly { readonly name: string }[];
  readonly pools: readonly {
    readonly name: string;
    readonly backends: readonly { readonly url: string }[];
  }[];
  readonly live: LiveState;
  /**
   * prom-client's process and Node.js metrics, on unless false. They hook into the garbage collector
   * and the event loop for the life of the process: turn them off where many gateways share one.
   */
  readonly processMetrics?: boolean;
}

/** A drop of the upstream that a client would have seen as 1006 through a tunnel. */
const DROPS: ReadonlySet<Cause> = new Set<Cause>(["upstreamLost", "upstreamUnresponsive"]);

/** From the refresh of a page to a working day and beyond: the usual lives of a WebSocket. */
const DURATION_BUCKETS = [0.1, 1, 5, 15, 30, 60, 300, 900, 3600, 14_400, 43_200, 86_400];

const RTT_BUCKETS = [
  0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
];

/** The counters of one route, resolved once: looking a label set up costs more than the increment. */
interface TrafficCounters {
  readonly messages: Record<keyof BothWays, Counter.Internal>;
  readonly bytes: Record<keyof BothWays, Counter.Internal>;
}

export class Metrics implements SessionObserver {
  readonly #registry = new Registry();
  readonly #beforeScrape: (() => void)[] = [];
  readonly #traffic = new Map<string, TrafficCounters>();

  readonly #sessions = this.#counter(
    "softclose_sessions_total",
    "Sessions opened: the upstream has answered 101 and the client has been told.",
    ["route"],
  );
  readonly #ends = this.#counter(
    "softclose_session_ends_total",
    "Sessions ended, by cause. Refused handshakes are in softclose_refusals_total.",
    ["route", "cause"],
  );
  readonly #refusals = this.#counter(
    "softclose_refusals_total",
    "Handshakes turned away before a session came about, by cause.",
    ["route", "cause"],
  );
  readonly #closeFrames = this.#counter(
    "softclose_close_frames_total",
    "Close frames by side and direction. 1005 is a Close without a code.",
    ["side", "direction", "code"],
  );
  readonly #absorbedDrops = this.#counter(
    "softclose_absorbed_drops_total",
    "Connections lost by the upstream that no client saw as 1006.",
    ["route", "outcome"],
  );
  readonly #dials = this.#counter("softclose_dials_total", "Dials of a backend, by outcome.", [
    "pool",
    "backend",
    "outcome",
  ]);
  readonly #bytes = this.#counter(
    "softclose_relayed_bytes_total",
    "Bytes of relayed frames, headers included.",
    ["route", "direction"],
  );
  readonly #messages = this.#counter(
    "softclose_relayed_messages_total",
    "Whole messages relayed.",
    ["route", "direction"],
  );
  readonly #dropped = this.#counter(
    "softclose_dropped_messages_total",
    "Messages that were read and could not be delivered, because the other leg had ended.",
    ["route", "direction"],
  );
  readonly #rtt = new Histogram({
    name: "softclose_heartbeat_rtt_seconds",
    help: "Time from a heartbeat ping of the gateway to its pong.",
    labelNames: ["side"] as const,
    buckets: RTT_BUCKETS,
    registers: [this.#registry],
  });
  readonly #duration = new Histogram({
    name: "softclose_session_duration_seconds",
    help: "Life of ended sessions. Refused handshakes are not in it.",
    labelNames: ["route"] as const,
    buckets: DURATION_BUCKETS,
    registers: [this.#registry],
  });

  constructor(options: MetricsOptions) {
    this.#mirrorLiveState(options.live);
    new Gauge({
      name: "softclose_build_info",
      help: "Always 1; the labels say what is running.",
      labelNames: ["version", "node"] as const,
      registers: [this.#registry],
    }).set({ version: options.version, node: process.version }, 1);
    this.#startAtZero(options);
    if (options.processMetrics !== false) collectDefaultMetrics({ register: this.#registry });
  }

  sessionOpened(route: string): void {
    this.#sessions.inc({ route });
  }

  relayed(route: string, messages: BothWays, bytes: BothWays): void {
    const counters = this.#trafficOf(route);
    counters.messages.clientToUpstream.inc(messages.clientToUpstream);
    counters.messages.upstreamToClient.inc(messages.upstreamToClient);
    counters.bytes.clientToUpstream.inc(bytes.clientToUpstream);
    counters.bytes.upstreamToClient.inc(bytes.upstreamToClient);
  }

  closeFrame(side: Side, direction: "sent" | "received", code: number): void {
    this.#closeFrames.inc({ side, direction, code: codeLabel(code) });
  }

  heartbeatRtt(side: Side, seconds: number): void {
    this.#rtt.observe({ side }, seconds);
  }

  /** Takes every record; one of a refused handshake counts as a refusal only. */
  sessionEnded(record: SessionRecord): void {
    if (record.refused) {
      this.refused(record);
      return;
    }
    const { route, cause, dropped } = record;
    this.#ends.inc({ route, cause });
    this.#duration.observe({ route }, record.durationMs / 1000);
    if (DROPS.has(cause) && record.client.sent !== null) {
      this.#absorbedDrops.inc({ route, outcome: "closed" });
    }
    this.#dropped.inc({ route, direction: "clientToUpstream" }, dropped.clientToUpstream);
    this.#dropped.inc({ route, direction: "upstreamToClient" }, dropped.upstreamToClient);
  }

  refused(record: Pick<SessionRecord, "route" | "cause">): void {
    this.#refusals.inc({ route: record.route, cause: record.cause });
  }

  dialEnded(pool: string, backend: string, outcome: DialOutcome): void {
    this.#dials.inc({ pool, backend, outcome });
  }

  /** Runs before each scrape: live sessions hand in what they have counted so far. */
  beforeScrape(flush: () => void): void {
    this.#beforeScrape.push(flush);
  }

  /** The exposition text and its content type. */
  async scrape(): Promise<{ readonly contentType: string; readonly text: string }> {
    for (const flush of this.#beforeScrape) flush();
    return { contentType: this.#registry.contentType, text: await this.#registry.metrics() };
  }

  #counter<Label extends string>(name: string, help: string, labelNames: Label[]): Counter<Label> {
    return new Counter({ name, help, labelNames, registers: [this.#registry] });
  }

  /** A gauge whose whole content is read from the live state at each scrape. */
  #mirror<Label extends string>(
    name: string,
    help: string,
    labelNames: Label[],
    read: () => Iterable<readonly [labels: Record<Label, string>, value: number]>,
  ): Gauge<Label> {
    return new Gauge({
      name,
      help,
      labelNames,
      registers: [this.#registry],
      collect() {
        // What has left the configuration must not stay behind with its last value.
        this.reset();
        for (const [labels, value] of read()) this.set(labels, value);
      },
    });
  }

  #mirrorLiveState(live: LiveState): void {
    this.#mirror("softclose_sessions_active", "Sessions open now.", ["route"], () =>
      Array.from(live.sessionsByRoute(), ([route, sessions]) => [{ route }, sessions]),
    );
    this.#mirror(
      "softclose_backend_connections",
      "Slots of a backend that are taken, by sessions and dials.",
      ["pool", "backend"],
      () =>
        Array.from(live.backends(), ({ pool, backend, connections }) => [
          { pool, backend },
          connections,
        ]),
    );
    this.#mirror(
      "softclose_backend_up",
      "1: the backend may be dialled. 0: it is out of service.",
      ["pool", "backend"],
      () => Array.from(live.backends(), ({ pool, backend, up }) => [{ pool, backend }, up ? 1 : 0]),
    );
  }

  #startAtZero({ routes, pools }: MetricsOptions): void {
    for (const { name: route } of routes) {
      this.#sessions.inc({ route }, 0);
      for (const cause of CAUSES) {
        this.#ends.inc({ route, cause }, 0);
        this.#refusals.inc({ route, cause }, 0);
      }
      this.#absorbedDrops.inc({ route, outcome: "closed" }, 0);
      this.#dropped.inc({ route, direction: "clientToUpstream" }, 0);
      this.#dropped.inc({ route, direction: "upstreamToClient" }, 0);
      this.relayed(route, NOTHING, NOTHING);
      this.#duration.zero({ route });
    }
    for (const { name: pool, backends } of pools) {
      for (const { url: backend } of backends) {
        for (const outcome of DIAL_OUTCOMES) this.#dials.inc({ pool, backend, outcome }, 0);
      }
    }
    this.#rtt.zero({ side: "client" });
    this.#rtt.zero({ side: "upstream" });
  }

  #trafficOf(route: string): TrafficCounters {
    let counters = this.#traffic.get(route);
    if (counters === undefined) {
      const of = (counter: Counter<"route" | "direction">) => ({
        clientToUpstream: counter.labels({ route, direction: "clientToUpstream" }),
        upstreamToClient: counter.labels({ route, direction: "upstreamToClient" }),
      });
      counters = { messages: of(this.#messages), bytes: of(this.#bytes) };
      this.#traffic.set(route, counters);
    }
    return counters;
  }
}

const NOTHING: BothWays = { clientToUpstream: 0, upstreamToClient: 0 };

/** Peers choose the code of a Close: 65,536 values must not become as many series. */
function codeLabel(code: number): string {
  if (code >= 1000 && code <= 1015) return String(code);
  if (code >= 3000 && code <= 3999) return "3000-3999";
  if (code >= 4000 && code <= 4999) return "4000-4999";
  return "other";
}
