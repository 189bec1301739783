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

/** What came of a reload. */
const RELOAD_OUTCOMES = ["applied", "unchanged", "invalid", "failed", "refused"] as const;

export type ReloadOutcome = (typeof RELOAD_OUTCOMES)[number];

export type DialOutcome = (typeof DIAL_OUTCOMES)[number];

export interface BackendGauge {
  readonly pool: string;
  /** URL from the config. */
  readonly backend: string;
  /** Slots taken: sessions and dials. */
  readonly connections: number;
  /** Neither down by its probe, nor ejected, nor draining. */
  readonly up: boolean;
  readonly ejected: boolean;
}

/** Live state that gauges mirror: asked for on scrape, never kept twice. */
export interface LiveState {
  sessionsByRoute(): Iterable<readonly [route: string, sessions: number]>;
  backends(): Iterable<BackendGauge>;
  queues(): Iterable<readonly [pool: string, length: number]>;
}

export interface MetricsOptions {
  readonly version: string;
  /** Names whose series start at 0, so that rate() sees the first event. */
  readonly routes: readonly { readonly name: string }[];
  readonly pools: readonly {
    readonly name: string;
    readonly backends: readonly { readonly url: string }[];
    /** null: its backends are not probed. */
    readonly health: object | null;
  }[];
  readonly live: LiveState;
  /**
   * prom-client's process and Node.js metrics, on unless false. They hook into the garbage collector
   * and the event loop for the life of the process: turn them off where many gateways share one.
   */
  readonly processMetrics?: boolean;
}

/** A drop of the upstream that a client would have seen as 1006 through a tunnel. */
const DROPS: ReadonlySet<Cause> = new Set<Cause>([
  "upstreamLost",
  "upstreamUnresponsive",
  "retryExhausted",
]);

/** From the refresh of a page to a working day and beyond: the usual lives of a WebSocket. */
const DURATION_BUCKETS = [0.1, 1, 5, 15, 30, 60, 300, 900, 3600, 14_400, 43_200, 86_400];

/** From another backend at once to the end of the default retry.session.timeout. */
const RESUME_BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60];

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
  readonly #live: LiveState;
  readonly #routes = new Names();
  readonly #pools = new Names();
  readonly #backends = new Names();

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
  /** Over all routes that there ever were, since the start. */
  readonly absorbedDrops = { closed: 0, resumed: 0 };
  readonly #absorbedDrops = this.#counter(
    "softclose_absorbed_drops_total",
    "Connections lost by the upstream that no client saw as 1006.",
    ["route", "outcome"],
  );
  readonly #resumes = this.#counter(
    "softclose_resumes_total",
    "Upstreams that were lost on a route with session retry, by what came of it.",
    ["route", "outcome"],
  );
  readonly #resumeGap = new Histogram({
    name: "softclose_resume_gap_seconds",
    help: "Time that a client was held without an upstream, until another one took over.",
    labelNames: ["route"] as const,
    buckets: RESUME_BUCKETS,
    registers: [this.#registry],
  });
  readonly #ejections = this.#counter(
    "softclose_ejections_total",
    "Times that a backend was taken out after failures in real traffic.",
    ["pool", "backend"],
  );
  readonly #probes = this.#counter(
    "softclose_probes_total",
    "Active probes of a backend, by outcome.",
    ["pool", "backend", "outcome"],
  );
  readonly #queueWait = new Histogram({
    name: "softclose_queue_wait_seconds",
    help: "Time that clients have waited for a slot, by how the wait ended.",
    labelNames: ["pool", "outcome"] as const,
    buckets: RESUME_BUCKETS,
    registers: [this.#registry],
  });
  readonly #reloads = this.#counter(
    "softclose_config_reloads_total",
    "Reloads of the configuration, by outcome; only applied changes anything.",
    ["outcome"],
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
    this.#live = options.live;
    this.#mirrorLiveState(options.live);
    new Gauge({
      name: "softclose_build_info",
      help: "Always 1; the labels say what is running.",
      labelNames: ["version", "node"] as const,
      registers: [this.#registry],
    }).set({ version: options.version, node: process.version }, 1);
    this.#startAtZero();
    this.expect(options.routes, options.pools);
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

  resumed(route: string, gapSeconds: number): void {
    this.#resumes.inc({ route, outcome: "resumed" });
    this.#absorbed(route, "resumed");
    this.#resumeGap.observe({ route }, gapSeconds);
  }

  #absorbed(route: string, outcome: "closed" | "resumed"): void {
    this.#absorbedDrops.inc({ route, outcome });
    this.absorbedDrops[outcome] += 1;
  }

  moved(route: string): void {
    this.#resumes.inc({ route, outcome: "moved" });
  }

  resumeEnded(route: string, outcome: "impossible" | "exhausted" | "ended"): void {
    this.#resumes.inc({ route, outcome });
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
    if (DROPS.has(cause) && record.client.sent !== null) this.#absorbed(route, "closed");
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
    this.#mirror("softclose_queue_length", "Clients that wait for a slot now.", ["pool"], () =>
      Array.from(live.queues(), ([pool, length]) => [{ pool }, length]),
    );
    this.#mirror(
      "softclose_backend_ejected",
      "1: failures in real traffic have taken the backend out for a while.",
      ["pool", "backend"],
      () =>
        Array.from(live.backends(), ({ pool, backend, ejected }) => [
          { pool, backend },
          ejected ? 1 : 0,
        ]),
    );
    this.#mirror(
      "softclose_backend_up",
      "1: the backend may be dialled. 0: it is out of service.",
      ["pool", "backend"],
      () => Array.from(live.backends(), ({ pool, backend, up }) => [{ pool, backend }, up ? 1 : 0]),
    );
  }

  ejected(pool: string, backend: string): void {
    this.#ejections.inc({ pool, backend });
  }

  probed(pool: string, backend: string, isGood: boolean): void {
    this.#probes.inc({ pool, backend, outcome: isGood ? "good" : "bad" });
  }

  waited(pool: string, seconds: number, outcome: "served" | "left" | "timeout" | "closed"): void {
    this.#queueWait.observe({ pool, outcome }, seconds);
  }

  reloaded(outcome: ReloadOutcome): void {
    this.#reloads.inc({ outcome });
  }

  /**
   * Shows every series of these, with 0 where nothing was counted yet. What these take the place of stays
   * until the next call, so that its last events are scraped, and as long as it is in use.
   */
  expect(routes: MetricsOptions["routes"], pools: MetricsOptions["pools"]): void {
    const isNewRoute = routes.map(({ name }) => !this.#routes.has(name));
    const isNewPool = pools.map(({ name }) => !this.#pools.has(name));
    this.#forgetGone(routes, pools);
    for (const [index, { name: route }] of routes.entries()) {
      this.#sessions.inc({ route }, 0);
      for (const cause of CAUSES) {
        this.#ends.inc({ route, cause }, 0);
        this.#refusals.inc({ route, cause }, 0);
      }
      for (const outcome of ABSORBED) this.#absorbedDrops.inc({ route, outcome }, 0);
      for (const outcome of RESUME_OUTCOMES) this.#resumes.inc({ route, outcome }, 0);
      this.#dropped.inc({ route, direction: "clientToUpstream" }, 0);
      this.#dropped.inc({ route, direction: "upstreamToClient" }, 0);
      this.relayed(route, NOTHING, NOTHING);
      // `zero` forgets what a histogram has counted.
      if (isNewRoute[index] !== true) continue;
      this.#resumeGap.zero({ route });
      this.#duration.zero({ route });
    }
    for (const [index, { name: pool, backends, health }] of pools.entries()) {
      if (isNewPool[index] === true) {
        for (const outcome of WAIT_OUTCOMES) this.#queueWait.zero({ pool, outcome });
      }
      for (const { url: backend } of backends) {
        for (const outcome of DIAL_OUTCOMES) this.#dials.inc({ pool, backend, outcome }, 0);
        this.#ejections.inc({ pool, backend }, 0);
        if (health === null) continue;
        for (const outcome of PROBE_OUTCOMES) this.#probes.inc({ pool, backend, outcome }, 0);
      }
    }
  }

  /** Backends may be called after pods: what has gone must not pile up. */
  #forgetGone(routes: MetricsOptions["routes"], pools: MetricsOptions["pools"]): void {
    const busyRoutes = new Set<string>();
    for (const [route, sessions] of this.#live.sessionsByRoute()) {
      if (sessions > 0) busyRoutes.add(route);
    }
    for (const route of this.#routes.replace(new Set(routes.map(({ name }) => name)), busyRoutes)) {
      this.#forgetRoute(route);
    }
    for (const pool of this.#pools.replace(new Set(pools.map(({ name }) => name)), NOBODY)) {
      for (const outcome of WAIT_OUTCOMES) this.#queueWait.remove({ pool, outcome });
    }
    const pairs = pools.flatMap(({ name: pool, backends }) =>
      backends.map(({ url }) => `${pool} ${url}`),
    );
    const busyBackends = new Set<string>();
    for (const { pool, backend, connections } of this.#live.backends()) {
      if (connections > 0) busyBackends.add(`${pool} ${backend}`);
    }
    for (const pair of this.#backends.replace(new Set(pairs), busyBackends)) {
      const [pool = "", backend = ""] = pair.split(" ");
      for (const outcome of DIAL_OUTCOMES) this.#dials.remove({ pool, backend, outcome });
      for (const outcome of PROBE_OUTCOMES) this.#probes.remove({ pool, backend, outcome });
      this.#ejections.remove({ pool, backend });
    }
  }

  #forgetRoute(route: string): void {
    this.#traffic.delete(route);
    for (const metric of [this.#sessions, this.#resumeGap, this.#duration])
      metric.remove({ route });
    for (const cause of CAUSES) {
      this.#ends.remove({ route, cause });
      this.#refusals.remove({ route, cause });
    }
    for (const outcome of ABSORBED) this.#absorbedDrops.remove({ route, outcome });
    for (const outcome of RESUME_OUTCOMES) this.#resumes.remove({ route, outcome });
    for (const direction of ["clientToUpstream", "upstreamToClient"]) {
      for (const counter of [this.#bytes, this.#messages, this.#dropped]) {
        counter.remove({ route, direction });
      }
    }
  }

  #startAtZero(): void {
    for (const outcome of RELOAD_OUTCOMES) this.#reloads.inc({ outcome }, 0);
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

/** Names of the configuration, and those that have left it and still have series. */
class Names {
  #now: ReadonlySet<string> = new Set();
  readonly #gone = new Set<string>();

  /** Whether it has series. */
  has(name: string): boolean {
    return this.#now.has(name) || this.#gone.has(name);
  }

  /** Returns the ones that had left before, and that nobody uses: they are not kept here any more. */
  replace(now: ReadonlySet<string>, busy: ReadonlySet<string>): string[] {
    const forgotten: string[] = [];
    for (const name of this.#gone) {
      if (busy.has(name) && !now.has(name)) continue;
      this.#gone.delete(name);
      if (!now.has(name)) forgotten.push(name);
    }
    for (const name of this.#now) {
      if (!now.has(name)) this.#gone.add(name);
    }
    this.#now = now;
    return forgotten;
  }
}

const NOBODY: ReadonlySet<string> = new Set();

const ABSORBED = ["closed", "resumed"];

const PROBE_OUTCOMES = ["good", "bad"];

/** `ended`: the client or the gateway ended the session while an upstream was being dialled. */
const RESUME_OUTCOMES = ["resumed", "moved", "impossible", "exhausted", "ended"];

const WAIT_OUTCOMES = ["served", "left", "timeout", "closed"];

const NOTHING: BothWays = { clientToUpstream: 0, upstreamToClient: 0 };

/** Peers choose the code of a Close: 65,536 values must not become as many series. */
function codeLabel(code: number): string {
  if (code >= 1000 && code <= 1015) return String(code);
  if (code >= 3000 && code <= 3999) return "3000-3999";
  if (code >= 4000 && code <= 4999) return "4000-4999";
  return "other";
}
