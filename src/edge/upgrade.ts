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
import type { SessionTable } from "../session/session-table.ts";
import type { Slot } from "../upstream/backend.ts";
import { type ConnectDependencies, Connecting, type ConnectResult } from "../upstream/connect.ts";
import type { Connection, DialFailure } from "../upstream/dial.ts";
import type { Pool } from "../upstream/pool.ts";
import type { Rejection } from "../upstream/rejection.ts";
import { acceptFor } from "../upstream/upgrade-request.ts";
import { formatDeflate } from "../wire/deflate.ts";
import { type Admission, type FullCap, Ticket } from "./admission.ts";
import { ClientSocket } from "./client-socket.ts";
import { EarlyBytes } from "./early-bytes.ts";
import type { ForwardedReader } from "./forwarded.ts";
import { type ClientHandshake, checkHandshake } from "./handshake-check.ts";
import { textAnswer, writeAnswer } from "./http-answer.ts";
import type { Refuser } from "./refusal.ts";
import { responseHeaderLines, upgradeHeaderLines } from "./request-headers.ts";
import type { Router } from "./router.ts";

/** What all upgrades of a gateway share. */
export interface UpgradeServices {
  readonly router: Router;
  readonly pools: ReadonlyMap<string, Pool>;
  readonly admission: Admission;
  readonly refuser: Refuser;
  /** What holds where no route does. */
  readonly policies: Policies;
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
    const { router, admission, pending, isDraining } = this.#services;
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
    const route = router.find(handshake.host, handshake.target);
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

  #connect(handshake: ClientHandshake, route: RouteConfig, headerLines: string): void {
    const { pools, connect } = this.#services;
    const pool = pools.get(route.pool);
    if (pool === undefined) throw new Error(`pool ${route.pool} is not there`);
    const { target, subprotocols, offers } = handshake;
    const { retry, limits, refuse } = route;
    this.#connecting = new Connecting(
      pool,
      { target, headerLines, subprotocols, offers },
      {
        attempts: retry.connect.attempts,
        timeoutMs: Math.min(retry.connect.timeoutMs, limits.handshakeTimeoutMs),
        backoff: retry.backoff,
        wantsBody: refuse === "http",
      },
      connect,
      (result) => this.#connected(result, handshake, route),
    );
    this.#connecting.start();
  }

  #connected(result: ConnectResult, handshake: ClientHandshake, route: RouteConfig): void {
    if (this.#state === "over") {
      if (result.kind === "connected") discard(result);
      return;
    }
    switch (result.kind) {
      case "connected":
        this.#open(result, handshake, route);
        break;
      case "full":
        this.#refuse("capacity", {}, "every backend is at its maxConnections");
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
  ): void {
    const { sessions, sessionContext, onRecord } = this.#services;
    const { connection, slot, dials } = result;
    const ticket = this.#ticket;
    const early = this.#end();
    const client = this.#client;
    client.socket.write(switchingProtocols(handshake.key, connection), "latin1");
    const session = new Session(
      {
        id: this.#id,
        route,
        clientIp: this.#clientIp,
        backend: slot.backend.url,
        subprotocol: ownCopy(connection.subprotocol),
        deflate: connection.deflate !== null,
        client,
        upstream: connection.upstream,
        dials,
        startedAt: this.#startedAt,
        startedAtMs: this.#startedAtMs,
        releaseSlot: () => slot.release(),
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
    const policies = this.#route ?? this.#services.policies;
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

/** A connection that nobody waits for any more. */
function discard({ connection, slot }: { connection: Connection; slot: Slot }): void {
  const { socket } = connection.upstream;
  // Its end is no news to anybody; without a listener an error would end the process.
  socket.on("error", () => undefined);
  socket.on("close", () => slot.release());
  socket.destroy();
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
};

const NOTHING = { clientToUpstream: 0, upstreamToClient: 0 };
const NO_CODES: CloseCodes = { sent: null, received: null };
const NO_UPSTREAM = { backend: null, rejection: null };
