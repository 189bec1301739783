/**
 * The composition root: builds every part from a configuration, binds the listeners, and drains. The
 * only file that knows all the others.
 */
import type { GatewayStatus, GatewayView, SessionSummary } from "./admin/gateway-view.ts";
import { type AdminServer, startAdminServer } from "./admin/server.ts";
import { RetryAfter } from "./close/retry-after.ts";
import type { GatewayConfig } from "./config/config.ts";
import { Admission } from "./edge/admission.ts";
import { BindError, formatBind } from "./edge/bind-error.ts";
import { Listener } from "./edge/listener.ts";
import { Passthrough } from "./edge/passthrough.ts";
import { Refuser } from "./edge/refusal.ts";
import { Router } from "./edge/router.ts";
import { NO_ROUTE, type Upgrade, type UpgradeServices } from "./edge/upgrade.ts";
import { Ledger } from "./observe/ledger.ts";
import { type Logger, logRecord } from "./observe/log.ts";
import { Metrics } from "./observe/metrics.ts";
import { monotonicClock } from "./session/clock.ts";
import { PingMark } from "./session/heartbeat.ts";
import type { SessionRecord } from "./session/record.ts";
import type { Session } from "./session/session.ts";
import type { SessionContext } from "./session/session-parts.ts";
import { SessionTable } from "./session/session-table.ts";
import { Wheel } from "./session/wheel.ts";
import { Pool } from "./upstream/pool.ts";
import { HIGH_WATER_MARK_BYTES, ReadBuffers } from "./upstream/upstream-socket.ts";
import { SlabPool } from "./wire/slab.ts";

/** What a process in an unknown state may take for its last words. */
const ABANDON_MS = 2_000;

export interface GatewayDependencies {
  readonly logger: Logger;
  readonly version: string;
  /** False where several gateways share a process, as in tests. */
  readonly processMetrics?: boolean;
}

/** `delaying`: still accepting, so that load balancers have time to notice that we are not ready. */
type State = "starting" | "ready" | "delaying" | "draining" | "stopped";

export class Gateway implements GatewayView {
  readonly #config: GatewayConfig;
  readonly #logger: Logger;
  readonly #version: string;
  readonly #startedAt = Date.now();
  readonly #sessions = new SessionTable();
  readonly #ledger = new Ledger();
  readonly #pending = new Set<Upgrade>();
  readonly #admission = new Admission();
  readonly #wheel = new Wheel(monotonicClock);
  readonly #pools: ReadonlyMap<string, Pool>;
  readonly #metrics: Metrics;
  readonly #refuser: Refuser;
  readonly #passthrough: Passthrough;
  readonly #listeners: readonly Listener[];
  #bound: GatewayStatus["listeners"] = [];
  #admin: AdminServer | null = null;
  #state: State = "starting";

  constructor(config: GatewayConfig, { logger, version, processMetrics }: GatewayDependencies) {
    this.#config = config;
    this.#logger = logger;
    this.#version = version;
    this.#pools = new Map(config.pools.map((pool) => [pool.name, new Pool(pool)]));
    this.#metrics = new Metrics({
      version,
      routes: [...config.routes, { name: NO_ROUTE }],
      pools: config.pools,
      live: {
        sessionsByRoute: () => this.#sessionsByRoute(),
        backends: () => this.#backendGauges(),
      },
      processMetrics: processMetrics ?? true,
    });
    this.#metrics.beforeScrape(() => {
      for (const session of this.#sessions.values()) session.reportTraffic();
    });
    const clock = monotonicClock;
    const retryAfter = new RetryAfter();
    const router = new Router(config.routes);
    this.#refuser = new Refuser({ retryAfter, observer: this.#metrics, clock });
    this.#passthrough = new Passthrough({ router, pools: this.#pools });
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
      router,
      pools: this.#pools,
      admission: this.#admission,
      refuser: this.#refuser,
      policies: config.policies,
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
    const { handshakeTimeoutMs } = config.policies.limits;
    this.#listeners = config.listeners.map(
      (listener) => new Listener(listener, handshakeTimeoutMs, upgrades, this.#passthrough),
    );
  }

  /** Binds every address and is ready. Rejects with a BindError; then nothing is left bound. */
  async start(): Promise<void> {
    try {
      await this.#startAdmin();
      const bound: { name: string; address: string }[] = [];
      for (const listener of this.#listeners) {
        const { name, bind } = listener.config;
        const actual = await listener.listen().catch((error: unknown) => {
          throw BindError.from(`listener ${name}`, bind, error);
        });
        bound.push({ name, address: formatBind(actual) });
        this.#logger.info({ listener: name, address: formatBind(actual) }, "listening");
      }
      this.#bound = bound;
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
    for (const listener of this.#listeners) listener.stopAccepting();
    for (const upgrade of this.#pending) upgrade.drain();
    const startedAtMs = monotonicClock.now();
    const destroyed = await this.#sessions.drain(timeoutMs, monotonicClock);
    const leftMs = timeoutMs - (monotonicClock.now() - startedAtMs);
    // Cut off before it has read its Close, a refused client with data on the way sees a reset: 1006.
    await Promise.all([
      ...this.#listeners.map((listener) => listener.answered(leftMs)),
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
    for (const listener of this.#listeners) listener.stopAccepting();
    for (const upgrade of this.#pending) upgrade.drain();
    for (const session of this.#sessions.values()) session.end("internalError");
    await this.#sessions.emptyWithin(ABANDON_MS);
    await this.stop();
  }

  /** Ends everything at once. */
  async stop(): Promise<void> {
    this.#state = "stopped";
    for (const listener of this.#listeners) listener.stopAccepting();
    for (const upgrade of this.#pending) upgrade.drain();
    for (const session of this.#sessions.values()) session.destroy();
    this.#refuser.close();
    for (const listener of this.#listeners) listener.closeAll();
    this.#passthrough.close();
    this.#wheel.stop();
    await this.#admin?.close();
  }

  ready(): boolean {
    return this.#state === "ready";
  }

  status(): GatewayStatus {
    const byRoute = this.#sessions.countByRoute();
    return {
      version: this.#version,
      state: this.#state === "delaying" ? "draining" : this.#state,
      startedAt: new Date(this.#startedAt).toISOString(),
      uptimeMs: Date.now() - this.#startedAt,
      sessions: this.#sessions.size,
      listeners: this.#bound,
      routes: this.#config.routes.map(({ name }) => ({ name, sessions: byRoute.get(name) ?? 0 })),
      pools: Array.from(this.#pools.values(), ({ name, backends }) => ({
        name,
        backends: backends.map(({ url, connections, maxConnections, weight }) => ({
          url,
          connections,
          maxConnections,
          weight,
        })),
      })),
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

  metrics(): Promise<{ readonly contentType: string; readonly text: string }> {
    return this.#metrics.scrape();
  }

  /** Places taken in the caps of listeners, routes and clients; 0 when no session is left. */
  get placesTaken(): number {
    return this.#admission.places;
  }

  async #startAdmin(): Promise<void> {
    const { bind, token } = this.#config.admin;
    if (bind === null) return;
    try {
      const onError = (error: unknown): void =>
        this.#logger.error({ err: error }, "bug in the admin listener");
      this.#admin = await startAdminServer({ bind, token, view: this, onError });
    } catch (error) {
      throw BindError.from("admin", bind, error);
    }
    this.#logger.info({ listener: "admin", address: formatBind(this.#admin.bind) }, "listening");
  }

  #recorded(record: SessionRecord): void {
    this.#metrics.sessionEnded(record);
    this.#ledger.add(record);
    logRecord(this.#logger, record);
  }

  *#sessionsByRoute(): Generator<readonly [string, number]> {
    const byRoute = this.#sessions.countByRoute();
    for (const { name } of this.#config.routes) yield [name, byRoute.get(name) ?? 0];
  }

  *#backendGauges() {
    for (const { name: pool, backends } of this.#pools.values()) {
      for (const { url: backend, connections } of backends) {
        yield { pool, backend, connections, up: true };
      }
    }
  }
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
