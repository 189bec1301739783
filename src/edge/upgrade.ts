/**
 * One upgrade, from the request to the session or the refusal. The upstream is dialled before the
 * client gets its 101, so that subprotocol, extension and the upstream's verdict are real.
 *
 *   checked ──▶ admitted ──▶ connecting ──▶ over: 101, the session has everything
 *      │            │            ├────────▶ over: refused
 *      └────────────┴────────────┴────────▶ over: the client left
 */
import { randomUUID } from "node:crypto";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Cause } from "../close/causes.ts";
import type { CloseDetail } from "../close/policy.ts";
import type { ListenerConfig, Policies, RouteConfig } from "../config/config.ts";
import type { CloseCodes, SessionRecord } from "../session/record.ts";
import { Session } from "../session/session.ts";
import type { SessionContext } from "../session/session-parts.ts";
import type { Redial } from "../session/session-retry.ts";
import type { SessionTable } from "../session/session-table.ts";
import {
  type ConnectDependencies,
  Connecting,
  type ConnectResult,
  discardConnection,
} from "../upstream/connect.ts";
import type { Connection, DialFailure } from "../upstream/dial.ts";
import type { Pools } from "../upstream/pools.ts";
import type { Rejection } from "../upstream/rejection.ts";
import { acceptFor } from "../upstream/upgrade-request.ts";
import { formatDeflate, withoutClientContext, withoutServerContext } from "../wire/deflate.ts";
import { type Admission, type FullCap, Ticket } from "./admission.ts";
import { ClientSocket } from "./client-socket.ts";
import { EarlyBytes } from "./early-bytes.ts";
import type { ForwardedReader } from "./forwarded.ts";
import { type ClientHandshake, checkHandshake } from "./handshake-check.ts";
import { hashKeyOf } from "./hash-key.ts";
import { textAnswer, writeAnswer } from "./http-answer.ts";
import type { Refuser } from "./refusal.ts";
import { responseHeaderLines, upgradeHeaderLines } from "./request-headers.ts";
import type { Router } from "./router.ts";

/** What a reload replaces. */
export interface Routing {
  readonly router: Router;
  /** What holds where no route does. */
  readonly policies: Policies;
}

/** What all upgrades of a gateway share. */
export interface UpgradeServices {
  readonly routing: () => Routing;
  readonly pools: Pools;
  readonly admission: Admission;
  readonly refuser: Refuser;
  readonly sessions: SessionTable;
  readonly sessionContext: SessionContext;
  readonly connect: ConnectDependencies;
  /** Upgrades that are not over. */
  readonly pending: Set<Upgrade>;
  readonly isDraining: () => boolean;
  readonly onRecord: (record: SessionRecord) => void;
}

/** Stands for the route in records and metrics where none matched. */
export const NO_ROUTE = "-";

export class Upgrade {
  readonly #services: UpgradeServices;
  readonly #request: IncomingMessage;
  readonly #client: ClientSocket;
  readonly #id = ownCopy(randomUUID());
  readonly #startedAt = Date.now();
  readonly #startedAtMs: number;
  #state: "open" | "over" = "open";
  #clientIp = "";
  #route: RouteConfig | null = null;
  #ticket: Ticket | null = null;
  #early: EarlyBytes | null = null;
  #connecting: Connecting | null = null;

  constructor(services: UpgradeServices, request: IncomingMessage, socket: Socket) {
    this.#services = services;
    this.#request = request;
    this.#client = new ClientSocket(socket);
    this.#startedAtMs = services.sessionContext.clock.now();
  }

  /** `head`: what came behind the request's head. */
  start(head: Buffer, listener: ListenerConfig, reader: ForwardedReader): void {
    const request = this.#request;
    const { routing, admission, pending, isDraining } = this.#services;
    const handshake = checkHandshake(request);
    if ("status" in handshake) {
      this.#state = "over";
      this.#client.detach();
      const { status, message, headers } = handshake;
      writeAnswer(this.#client.socket, textAnswer(status, message, headers));
      return;
    }
    pending.add(this);
    this.#early = new EarlyBytes(this.#client, head, () => this.#clientLeft());
    const forwarded = reader.read(request.headers, this.#client.socket.remoteAddress);
    this.#clientIp = ownCopy(forwarded.clientIp);
    const route = routing().router.find(handshake.host, handshake.target);
    if (route === null) {
      this.#refuse("forbidden", { reason: "no route for this host and path" });
      return;
    }
    this.#route = route;
    if (isDraining()) {
      this.#refuse("draining");
      return;
    }
    const ticket = admission.admit(listener, route, forwarded.clientIp);
    if (!(ticket instanceof Ticket)) {
      this.#refuse("capacity", {}, WHICH_CAP[ticket]);
      return;
    }
    this.#ticket = ticket;
    this.#connect(handshake, route, upgradeHeaderLines(request, forwarded, this.#id));
  }

  /** Turns the client away if its session does not stand yet. */
  drain(): void {
    this.#refuse("draining");
  }

  #connect(
    handshake: ClientHandshake,
    route: RouteConfig,
    headerLines: string,
    pool = this.#services.pools.get(route.pool),
  ): void {
    const { pools, connect, routing } = this.#services;
    if (pool === undefined) throw new Error(`pool ${route.pool} is not there`);
    const { target, subprotocols } = handshake;
    const { retry, limits, refuse } = route;
    const swallows = (retry.session?.replaySwallow ?? 0) > 0;
    const offers = swallows ? handshake.offers.map(withoutServerContext) : handshake.offers;
    const request = { target, headerLines, subprotocols, offers };
    const { hashKey } = pool;
    const found = hashKey && hashKeyOf(hashKey, this.#request, target, this.#clientIp);
    const key = found === null ? null : ownCopy(found);
    const redial = {
      pool: () => pools.get(routing().router.named(route.name)?.pool ?? route.pool) ?? pool,
      request,
      key,
      dependencies: connect,
    };
    this.#connecting = new Connecting(
      pool,
      request,
      {
        attempts: retry.connect.attempts,
        timeoutMs: Math.min(retry.connect.timeoutMs, limits.handshakeTimeoutMs),
        backoff: retry.backoff,
        wantsBody: refuse === "http",
        key,
      },
      connect,
      (result) => this.#connected(result, handshake, route, redial),
    );
    this.#connecting.start();
  }

  #connected(
    result: ConnectResult,
    handshake: ClientHandshake,
    route: RouteConfig,
    redial: Redial,
  ): void {
    if (this.#state === "over") {
      if (result.kind === "connected") discardConnection(result.connection, result.slot);
      return;
    }
    switch (result.kind) {
      case "connected":
        this.#open(result, handshake, route, redial);
        break;
      case "full":
        if (result.queue !== "closed") {
          this.#refuse("capacity", {}, WHY_FULL[result.queue]);
        } else if (this.#services.isDraining()) {
          this.#refuse("draining");
        } else {
          // A reload has removed the pool: the one that serves the route now is asked.
          this.#connect(handshake, route, redial.request.headerLines, redial.pool());
        }
        break;
      case "noBackend":
        this.#refuse("noBackend");
        break;
      case "failed": {
        const { failure, backend } = result;
        this.#refuse(causeOf(failure), detailOf(failure), failure.detail, {
          backend: backend.url,
          rejection: failure.rejection,
        });
        break;
      }
    }
  }

  #open(
    result: Extract<ConnectResult, { kind: "connected" }>,
    handshake: ClientHandshake,
    route: RouteConfig,
    redial: Redial,
  ): void {
    const { sessions, sessionContext, onRecord } = this.#services;
    const { slot, dials } = result;
    const isRetried = route.retry.session !== null;
    const connection = isRetried ? withMessagesAlone(result.connection) : result.connection;
    const ticket = this.#ticket;
    const early = this.#end();
    const client = this.#client;
    client.socket.write(switchingProtocols(handshake.key, connection), "latin1");
    const session = new Session(
      {
        id: this.#id,
        route,
        clientIp: this.#clientIp,
        subprotocol: ownCopy(connection.subprotocol),
        deflate: connection.deflate,
        client,
        upstream: { slot, socket: connection.upstream },
        redial: isRetried ? redial : null,
        dials,
        startedAt: this.#startedAt,
        startedAtMs: this.#startedAtMs,
        onClosed: (ended, record) => {
          ticket?.release();
          sessions.delete(ended);
          onRecord(record);
        },
      },
      sessionContext,
    );
    sessions.add(session);
    session.start(early, connection.early);
    // Its drain began while it was being dialled.
    if (slot.backend.draining) session.move();
  }

  #refuse(
    cause: Cause,
    detail: CloseDetail = {},
    words = "",
    upstream: { backend: string | null; rejection: Rejection | null } = NO_UPSTREAM,
  ): void {
    if (this.#state === "over") return;
    const dials = this.#connecting?.dials ?? 0;
    this.#connecting?.abort();
    const early = this.#end();
    this.#ticket?.release();
    const policies = this.#route ?? this.#services.routing().policies;
    const { backend, rejection } = upstream;
    this.#services.refuser.refuse(
      { request: this.#request, client: this.#client, early, policies, cause, detail, rejection },
      (codes) => this.#record(cause, words, codes, { backend, dials }),
    );
  }

  #clientLeft(): void {
    const dials = this.#connecting?.dials ?? 0;
    this.#connecting?.abort();
    this.#end();
    this.#ticket?.release();
    this.#client.socket.destroy();
    const words = "client left before its handshake was answered";
    this.#record("clientLost", words, NO_CODES, { backend: null, dials });
  }

  /** Nothing of this upgrade may go on; returns what the client has sent early. */
  #end(): Buffer {
    this.#state = "over";
    this.#connecting = null;
    this.#services.pending.delete(this);
    return this.#early?.take() ?? Buffer.alloc(0);
  }

  /** The record of a handshake that led to no session. */
  #record(
    cause: Cause,
    detail: string,
    client: CloseCodes,
    { backend, dials }: { backend: string | null; dials: number },
  ): void {
    this.#services.onRecord({
      session: this.#id,
      route: this.#route?.name ?? NO_ROUTE,
      backend,
      clientIp: this.#clientIp,
      subprotocol: "",
      cause,
      detail,
      refused: true,
      client,
      upstream: NO_CODES,
      startedAt: this.#startedAt,
      durationMs: Math.round(this.#services.sessionContext.clock.now() - this.#startedAtMs),
      idleMs: 0,
      messages: NOTHING,
      bytes: NOTHING,
      dropped: NOTHING,
      dials,
      resumes: 0,
      retryingMs: 0,
    });
  }
}

/**
 * A copy in one piece. A UUID is concatenated from 20 strings, and a header's part is a slice of the whole
 * head: V8 would keep all of that for as long as the session lives.
 */
function ownCopy(text: string): string {
  return Buffer.from(text, "latin1").toString("latin1");
}

/** With session retry every client message stands alone, so that a fresh upstream can inflate it. */
function withMessagesAlone(connection: Connection): Connection {
  const { deflate } = connection;
  return deflate === null ? connection : { ...connection, deflate: withoutClientContext(deflate) };
}

/** The client's 101 (RFC 6455 §4.2.2), with what the upstream chose and its other headers. */
function switchingProtocols(key: string, connection: Connection): string {
  const { head, subprotocol, deflate } = connection;
  let answer = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptFor(key)}\r\n`;
  if (subprotocol !== "") answer += `Sec-WebSocket-Protocol: ${subprotocol}\r\n`;
  if (deflate !== null) answer += `Sec-WebSocket-Extensions: ${formatDeflate([deflate])}\r\n`;
  return `${answer}${responseHeaderLines(head.headers)}\r\n`;
}

function causeOf(failure: DialFailure): Cause {
  return failure.outcome === "rejected" ? "upstreamRejected" : "upstreamUnreachable";
}

function detailOf(failure: DialFailure): CloseDetail {
  return failure.rejection === null ? {} : { status: failure.rejection.status };
}

const WHICH_CAP: Readonly<Record<FullCap, string>> = {
  listener: "the listener is at its maxConnections",
  route: "the route is at limits.maxConnections",
  client: "the client address is at limits.maxConnectionsPerClient",
  acceptRate: "the listener is at its acceptRate",
};

const WHY_FULL: Readonly<Record<"noRoom" | "timeout", string>> = {
  noRoom: "every backend is at its maxConnections",
  timeout: "every backend stayed at its maxConnections for queue.timeout",
};

const NOTHING = { clientToUpstream: 0, upstreamToClient: 0 };
const NO_CODES: CloseCodes = { sent: null, received: null };
const NO_UPSTREAM = { backend: null, rejection: null };
