/**
 * The composition root: builds every part from a configuration, binds the listeners, and drains. The
 * only file that knows all the others.
 */
import { isDeepStrictEqual } from "node:util";
import type {
  BackendStatus,
  DrainedBackend,
  GatewayStatus,
  GatewayView,
  PlanAnswer,
  ReloadReport,
  SessionSummary,
} from "./admin/gateway-view.ts";
import { type AdminServer, startAdminServer } from "./admin/server.ts";
import { RetryAfter } from "./close/retry-after.ts";
import type { GatewayConfig } from "./config/config.ts";
import { isEmptyPlan, planReload } from "./config/plan.ts";
import type { ConfigSource, ReadResult } from "./config/source.ts";
import { Admission } from "./edge/admission.ts";
import { BindError, formatBind } from "./edge/bind-error.ts";
import { Listener } from "./edge/listener.ts";
import { type BoundListener, Listeners, type PreparedListeners } from "./edge/listeners.ts";
import { Passthrough } from "./edge/passthrough.ts";
import { Refuser } from "./edge/refusal.ts";
import { Router } from "./edge/router.ts";
import { NO_ROUTE, type Routing, type Upgrade, type UpgradeServices } from "./edge/upgrade.ts";
import { BackendWatch } from "./observe/backend-watch.ts";
import { Ledger } from "./observe/ledger.ts";
import { type Logger, logRecord } from "./observe/log.ts";
import { type BackendGauge, Metrics } from "./observe/metrics.ts";
import { BackendDrains } from "./session/backend-drains.ts";
import { monotonicClock } from "./session/clock.ts";
import { PingMark } from "./session/heartbeat.ts";
import type { SessionRecord } from "./session/record.ts";
import type { Session } from "./session/session.ts";
import type { SessionContext } from "./session/session-parts.ts";
import { SessionTable } from "./session/session-table.ts";
import { Wheel } from "./session/wheel.ts";
import type { Backend } from "./upstream/backend.ts";
import { type Resolver, systemResolver } from "./upstream/discovery.ts";
import type { Pool } from "./upstream/pool.ts";
import { Pools } from "./upstream/pools.ts";
import { probe } from "./upstream/probe.ts";
import { HIGH_WATER_MARK_BYTES, ReadBuffers } from "./upstream/upstream-socket.ts";
import { SlabPool } from "./wire/slab.ts";

/** What a process in an unknown state may take for its last words. */
const ABANDON_MS = 2_000;

export interface GatewayDependencies {
  readonly logger: Logger;
  readonly version: string;
  /** What a reload reads; absent: there is nothing to reload. */
  readonly source?: ConfigSource | null;
  /** False where several gateways share a process, as in tests. */
  readonly processMetrics?: boolean;
  /** Looks the names of backends up; default: the system's way. */
  readonly resolve?: Resolver;
}

/** `delaying`: still accepting, so that load balancers have time to notice that we are not ready. */
type State = "starting" | "ready" | "delaying" | "draining" | "stopped";

export class Gateway implements GatewayView {
  #config: GatewayConfig;
  readonly #source: ConfigSource | null;
  readonly #logger: Logger;
  readonly #version: string;
  readonly #startedAt = Date.now();
  readonly #sessions = new SessionTable();
  readonly #ledger = new Ledger();
  readonly #pending = new Set<Upgrade>();
  readonly #admission = new Admission(monotonicClock);
  readonly #wheel = new Wheel(monotonicClock);
  readonly #drains = new BackendDrains(this.#sessions, monotonicClock);
  readonly #pools: Pools;
  readonly #metrics: Metrics;
  readonly #refuser: Refuser;
  readonly #passthrough: Passthrough;
  readonly #listeners: Listeners;
  #routing: Routing;
  #lastReload: GatewayStatus["lastReload"] = null;
  #reloading: Promise<ReloadReport> | null = null;
  /** Waits for the one that is under way, which may have read the file before it was changed. */
  #nextReload: Promise<ReloadReport> | null = null;
  #admin: AdminServer | null = null;
  #state: State = "starting";

  constructor(config: GatewayConfig, dependencies: GatewayDependencies) {
    const { logger, version, processMetrics, source, resolve } = dependencies;
    this.#config = config;
    this.#source = source ?? null;
    this.#logger = logger;
    this.#version = version;
    this.#routing = routingOf(config);
    this.#pools = new Pools(config.pools, {
      now: () => monotonicClock.now(),
      random: Math.random,
      probe,
      resolve: resolve ?? systemResolver(),
      observer: new BackendWatch(() => this.#metrics, logger),
      onBackends: (pools) => this.#expectMetrics(pools),
      onLeaving: (backends) => this.#leave(backends),
      onReturning: () => this.#drains.forgetReturned(),
    });
    this.#metrics = new Metrics({
      version,
      routes: [...config.routes, { name: NO_ROUTE }],
      pools: [...this.#pools.values()],
      live: {
        sessionsByRoute: () => this.#sessionsByRoute(),
        backends: () => this.#backendGauges(),
        queues: () => this.#queueGauges(),
      },
      processMetrics: processMetrics ?? true,
    });
    this.#metrics.beforeScrape(() => {
      for (const session of this.#sessions.values()) session.reportTraffic();
    });
    const clock = monotonicClock;
    const retryAfter = new RetryAfter();
    this.#refuser = new Refuser({ retryAfter, observer: this.#metrics, clock });
    const routing = (): Routing => this.#routing;
    this.#passthrough = new Passthrough({ routing, pools: this.#pools });
    const slabs = new SlabPool();
    const sessionContext: SessionContext = {
      clock,
      wheel: this.#wheel,
      observer: this.#metrics,
      pingMark: new PingMark(),
      retryAfter,
      random: Math.random,
      highWaterMarkBytes: HIGH_WATER_MARK_BYTES,
      slabs,
      onBug: (error) => logger.error({ err: error }, "bug in the gateway"),
    };
    const upgrades: UpgradeServices = {
      routing,
      pools: this.#pools,
      admission: this.#admission,
      refuser: this.#refuser,
      sessions: this.#sessions,
      sessionContext,
      connect: {
        observer: this.#metrics,
        readBuffers: new ReadBuffers(slabs),
        random: Math.random,
        now: () => clock.now(),
      },
      pending: this.#pending,
      isDraining: () => this.#state === "draining" || this.#state === "stopped",
      onRecord: (record) => this.#recorded(record),
    };
    this.#listeners = new Listeners((listener) => {
      const { handshakeTimeoutMs } = this.#config.policies.limits;
      return new Listener(listener, handshakeTimeoutMs, upgrades, this.#passthrough);
    });
  }

  /** Binds every address and is ready. Rejects with a BindError; then nothing is left bound. */
  async start(): Promise<void> {
    try {
      this.#admin = await this.#startAdmin(this.#config.admin);
      await this.#pools.start(FIRST_LOOKUP_MS);
      this.#logListening((await this.#listeners.prepare(this.#config.listeners)).commit());
      if (this.#state !== "starting") {
        // Stopped meanwhile.
        await this.stop();
        return;
      }
      this.#state = "ready";
      this.#logger.info({ version: this.#version }, "ready");
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  /** The admin listener's address; null: there is none. */
  get adminAddress(): string | null {
    return this.#admin === null ? null : formatBind(this.#admin.bind);
  }

  /**
   * Not ready any more; after `drain.delay` accepts no more and closes every session, paced over
   * `drain.timeout`. Resolves to the number of sessions that had to be destroyed.
   */
  async drain(): Promise<number> {
    const { delayMs, timeoutMs } = this.#config.drain;
    this.#state = "delaying";
    this.#logger.info({ sessions: this.#sessions.size, delayMs, timeoutMs }, "draining");
    if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));
    this.#state = "draining";
    this.#drains.stop();
    for (const listener of this.#listeners.values()) listener.stopAccepting();
    // Before the dials end: what one gives back would go to somebody who waits, for nothing.
    this.#pools.closeQueues();
    for (const upgrade of this.#pending) upgrade.drain();
    const startedAtMs = monotonicClock.now();
    const destroyed = await this.#sessions.drain(timeoutMs, monotonicClock);
    const leftMs = timeoutMs - (monotonicClock.now() - startedAtMs);
    // Cut off before it has read its Close, a refused client with data on the way sees a reset: 1006.
    await Promise.all([
      ...this.#listeners.values().map((listener) => listener.answered(leftMs)),
      this.#refuser.settled(leftMs),
    ]);
    this.#logger.info({ destroyed }, "drained");
    await this.stop();
    return destroyed;
  }

  /**
   * The process cannot go on, by a bug of ours: tells every client so (`internalError`), as the end of
   * the process would be 1006 for all of them.
   */
  async abandon(): Promise<void> {
    this.#state = "draining";
    for (const listener of this.#listeners.values()) listener.stopAccepting();
    for (const upgrade of this.#pending) upgrade.drain();
    for (const session of this.#sessions.values()) session.end("internalError");
    await Promise.all([this.#sessions.emptyWithin(ABANDON_MS), this.#refuser.settled(ABANDON_MS)]);
    await this.stop();
  }

  /** Ends everything at once. */
  async stop(): Promise<void> {
    this.#state = "stopped";
    this.#drains.stop();
    for (const listener of this.#listeners.values()) listener.stopAccepting();
    this.#pools.stop();
    for (const upgrade of this.#pending) upgrade.drain();
    for (const session of this.#sessions.values()) session.destroy();
    this.#refuser.close();
    for (const listener of this.#listeners.values()) listener.closeAll();
    this.#passthrough.close();
    this.#wheel.stop();
    await this.#admin?.close();
  }

  ready(): boolean {
    return this.#state === "ready";
  }

  status(): GatewayStatus {
    return {
      version: this.#version,
      state: this.#state === "delaying" ? "draining" : this.#state,
      startedAt: new Date(this.#startedAt).toISOString(),
      uptimeMs: Date.now() - this.#startedAt,
      sessions: this.#sessions.size,
      absorbedDrops: { ...this.#metrics.absorbedDrops },
      listeners: this.#listeners.bound,
      lastReload: this.#lastReload,
      routes: Array.from(this.#sessionsByRoute(), ([name, sessions]) => ({ name, sessions })),
      pools: Array.from(this.#pools.values(), ({ name, backends }) => ({
        name,
        queued: this.#pools.get(name)?.queueLength ?? 0,
        backends: backends.map((backend) => this.#statusOf(backend)),
      })),
      leaving: this.#pools.left.map(({ pool, backend }) => ({ pool, ...this.#statusOf(backend) })),
    };
  }

  sessions(limit: number): SessionSummary[] {
    const summaries: SessionSummary[] = [];
    for (const session of this.#sessions.values()) {
      if (summaries.length >= limit) break;
      summaries.push(summarize(session));
    }
    return summaries;
  }

  closes(limit: number): SessionRecord[] {
    return this.#ledger.newest(limit);
  }

  closeSession(id: string): boolean {
    const session = this.#sessions.get(id);
    session?.end("adminClosed");
    return session !== undefined;
  }

  drainBackend(url: string): DrainedBackend | null {
    const backends = this.#pools.drain(url);
    if (backends.length === 0) return null;
    return { sessions: this.#leave(backends) };
  }

  undrainBackend(url: string): boolean {
    const backends = this.#pools.undrain(url);
    if (backends.length > 0) this.#logger.info({ backend: url }, "backend back in service");
    return backends.length > 0;
  }

  /** Reads the file again. Calls that come meanwhile share the next reload. */
  reload(): Promise<ReloadReport> {
    if (this.#reloading === null) {
      this.#reloading = this.#reload().finally(() => {
        this.#reloading = null;
      });
      return this.#reloading;
    }
    this.#nextReload ??= this.#reloading.then(() => {
      this.#nextReload = null;
      return this.reload();
    });
    return this.#nextReload;
  }

  plan(text: string): PlanAnswer {
    if (this.#source === null) return { problems: [NO_FILE] };
    const read = this.#source.readText(text, "FILE");
    if ("problems" in read) return read;
    const sessionsLeaving = this.#sessionsOn(this.#pools.leftBy(read.config.pools));
    return { plan: planReload(this.#config, read.config), sessionsLeaving };
  }

  metrics(): Promise<{ readonly contentType: string; readonly text: string }> {
    return this.#metrics.scrape();
  }

  /** Places taken in the caps of listeners, routes and clients; 0 when no session is left. */
  get placesTaken(): number {
    return this.#admission.places;
  }

  #expectMetrics(pools: readonly Pool[]): void {
    this.#metrics.expect([...this.#config.routes, { name: NO_ROUTE }], pools);
  }

  #statusOf(backend: Backend): BackendStatus {
    return {
      url: backend.url,
      connections: backend.connections,
      maxConnections: backend.maxConnections,
      weight: backend.weight,
      up: backend.isUp,
      ejected: backend.ejected,
      draining: backend.draining,
      probe: this.#pools.probeDetail(backend),
    };
  }

  #sessionsOn(backends: readonly Backend[]): number {
    const leaving = new Set(backends);
    return [...this.#sessions.values()].filter(
      ({ served }) => served !== null && leaving.has(served),
    ).length;
  }

  /** Has the sessions of these backends move or end, paced. */
  #leave(backends: readonly Backend[]): number {
    const { timeoutMs } = this.#config.drain;
    let all = 0;
    for (const backend of backends) {
      const sessions = this.#drains.begin(backend, timeoutMs);
      this.#logger.info({ backend: backend.url, sessions, timeoutMs }, "sessions leave a backend");
      all += sessions;
    }
    return all;
  }

  /** Never rejects: a reload that fails, by a bug even, is no reason to end sessions. */
  async #reload(): Promise<ReloadReport> {
    const report = await this.#tryReload().catch((error: unknown): ReloadReport => {
      this.#logger.error({ err: error }, "bug in the gateway");
      return { outcome: "failed", problems: ["by a bug in the gateway: see its log"] };
    });
    const { outcome, problems } = report;
    if (problems.length > 0) this.#logger.error({ outcome, problems }, "reload changed nothing");
    this.#lastReload = { at: new Date().toISOString(), outcome, problems };
    this.#metrics.reloaded(outcome);
    return report;
  }

  async #tryReload(): Promise<ReloadReport> {
    if (this.#state !== "ready") return this.#refuseReload();
    const read: ReadResult = this.#source?.read() ?? { problems: [NO_FILE] };
    if ("problems" in read) return { outcome: "invalid", problems: read.problems };
    return await this.#apply(read.config);
  }

  #refuseReload(): ReloadReport {
    return { outcome: "refused", problems: [`the gateway is ${this.status().state}`] };
  }

  /** All of the new configuration, or none of it. */
  async #apply(config: GatewayConfig): Promise<ReloadReport> {
    const before = this.#config;
    const plan = planReload(before, config);
    if (isEmptyPlan(plan)) return { outcome: "unchanged", problems: [] };
    let listeners: PreparedListeners | null = null;
    let admin = this.#admin;
    // A pool that is empty until its names are looked up would turn everybody away meanwhile.
    await this.#pools.lookUp(config.pools, FIRST_LOOKUP_MS);
    try {
      listeners = await this.#listeners.prepare(config.listeners);
      if (!isDeepStrictEqual(before.admin.bind, config.admin.bind)) {
        admin = await this.#startAdmin(config.admin);
      }
    } catch (error) {
      listeners?.abort();
      if (!(error instanceof BindError)) throw error;
      // Names of the new configuration are not looked up any more.
      this.#pools.reconfigure(before.pools);
      return { outcome: "failed", problems: [error.message] };
    }
    // A signal to stop may have come while addresses were bound: nobody would close them again.
    if (this.#state !== "ready") {
      listeners.abort();
      if (admin !== this.#admin) await admin?.close();
      return this.#refuseReload();
    }
    this.#config = config;
    this.#logListening(listeners.commit());
    if (admin !== this.#admin) {
      // After the answer to the request that may have asked for this.
      setImmediate((old: AdminServer | null) => void old?.close(), this.#admin);
      this.#admin = admin;
    }
    this.#routing = routingOf(config);
    this.#logger.level = config.log.level;
    for (const listener of this.#listeners.values()) {
      listener.handshakeTimeoutMs = config.policies.limits.handshakeTimeoutMs;
    }
    const sessionsLeaving = this.#sessionsOn(this.#pools.leftBy(config.pools));
    this.#pools.reconfigure(config.pools);
    this.#logger.info({ ...plan, sessionsLeaving }, "reloaded");
    return { outcome: "applied", problems: [], plan, sessionsLeaving };
  }

  async #startAdmin({ bind }: GatewayConfig["admin"]): Promise<AdminServer | null> {
    if (bind === null) return null;
    const onError = (error: unknown): void =>
      this.#logger.error({ err: error }, "bug in the admin listener");
    const token = (): string => this.#config.admin.token;
    const admin = await startAdminServer({ bind, token, view: this, onError }).catch(
      (error: unknown) => {
        throw BindError.from("admin", bind, error);
      },
    );
    this.#logListening([{ name: "admin", address: formatBind(admin.bind) }]);
    return admin;
  }

  #logListening(bound: readonly BoundListener[]): void {
    for (const { name, address } of bound) {
      this.#logger.info({ listener: name, address }, "listening");
    }
  }

  #recorded(record: SessionRecord): void {
    this.#metrics.sessionEnded(record);
    this.#ledger.add(record);
    logRecord(this.#logger, record);
  }

  /** Those of the configuration, and those of before that still have sessions. */
  #sessionsByRoute(): ReadonlyMap<string, number> {
    const configured = this.#config.routes.map(({ name }) => [name, 0] as const);
    return new Map([...configured, ...this.#sessions.countByRoute()]);
  }

  *#queueGauges(): Generator<readonly [string, number]> {
    for (const { name, queueLength } of this.#pools.values()) yield [name, queueLength];
  }

  /** One series for each pool and URL: a backend that is left may stand beside one that has come. */
  #backendGauges(): Iterable<BackendGauge> {
    const gauges = new Map<string, BackendGauge>();
    for (const { pool, backend } of this.#pools.members()) {
      const { url, inService, ejected } = backend;
      const key = `${pool} ${url}`;
      const same = gauges.get(key);
      gauges.set(key, {
        pool,
        backend: url,
        connections: backend.connections + (same?.connections ?? 0),
        up: inService || same?.up === true,
        ejected: ejected || same?.ejected === true,
      });
    }
    return gauges.values();
  }
}

/** Names of backends are looked up before the first client comes; one that does not answer is not waited for. */
const FIRST_LOOKUP_MS = 5_000;

const NO_FILE = "there is no configuration file to reload: the gateway was started with flags";

function routingOf({ routes, policies }: GatewayConfig): Routing {
  return { router: new Router(routes), policies };
}

function summarize(session: Session): SessionSummary {
  const { id, route, backend, clientIp, subprotocol, state, startedAt } = session;
  return {
    session: id,
    route,
    backend,
    clientIp,
    subprotocol,
    state,
    startedAt: new Date(startedAt).toISOString(),
    ageMs: Date.now() - startedAt,
    idleMs: Math.round(session.idleMs),
    messages: session.messages,
    bytes: session.bytes,
  };
}
