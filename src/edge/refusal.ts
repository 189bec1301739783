/**
 * How a client is turned away. `close`: the handshake is accepted and answered with a Close, which is
 * the only refusal that a browser can read; here the gateway is a WebSocket endpoint, and `ws` serves
 * it. `http`: a status, and the backend's own answer where there is one.
 */
import type { IncomingMessage } from "node:http";
import { type WebSocket, WebSocketServer } from "ws";
import type { Cause } from "../close/causes.ts";
import { type CloseDetail, closesFor, httpStatusFor } from "../close/policy.ts";
import type { RetryAfter } from "../close/retry-after.ts";
import type { Policies } from "../config/config.ts";
import type { Clock } from "../session/clock.ts";
import type { CloseCodes, SessionObserver } from "../session/record.ts";
import type { Rejection } from "../upstream/rejection.ts";
import type { ClientSocket } from "./client-socket.ts";
import { textAnswer, writeAnswer } from "./http-answer.ts";
import { responseHeaderLines } from "./request-headers.ts";

export interface Refused {
  readonly request: IncomingMessage;
  readonly client: ClientSocket;
  /** What the client has sent behind its request so far. */
  readonly early: Buffer;
  readonly policies: Policies;
  readonly cause: Cause;
  readonly detail: CloseDetail;
  /** The backend's answer, where it was one that led to the refusal. */
  readonly rejection: Rejection | null;
}

/**
 * Clients that wait for their refusal by Close, or have got it and have not closed yet. Beyond this they
 * get the cheaper HTTP answer: a flood must not hold more sockets than the sessions do.
 */
export const MAX_LINGERING = 10_000;
/**
 * Refusals in one turn of the event loop; the next ones wait for the next turn. A herd comes in waves of
 * thousands, which in one turn would hold up every session; answered bit by bit it also comes back so.
 */
export const REFUSALS_PER_TURN = 20;
/** A refused client has nothing to say; what it sends is dropped, and this much at most is held. */
const MAX_PAYLOAD_BYTES = 64 * 1024;

/** Causes whose refusal tells the client when to come back. */
const TEMPORARY: ReadonlySet<Cause> = new Set<Cause>([
  "capacity",
  "noBackend",
  "upstreamUnreachable",
  "retryExhausted",
  "draining",
]);

export class Refuser {
  readonly #retryAfter: RetryAfter;
  readonly #observer: SessionObserver;
  readonly #clock: Clock;
  readonly #maxLingering: number;
  /** By close timeout: `ws` has it as a setting of the server. */
  readonly #servers = new Map<number, WebSocketServer>();
  readonly #lingering = new Set<WebSocket>();
  /** In the order in which they came. */
  readonly #waiting = new Set<() => void>();
  #leftInTurn = REFUSALS_PER_TURN;
  #onSettled: (() => void) | null = null;

  constructor(options: {
    readonly retryAfter: RetryAfter;
    readonly observer: SessionObserver;
    readonly clock: Clock;
    readonly maxLingering?: number;
  }) {
    this.#retryAfter = options.retryAfter;
    this.#observer = options.observer;
    this.#clock = options.clock;
    this.#maxLingering = options.maxLingering ?? MAX_LINGERING;
  }

  /** Clients that are being refused by Close; at most `maxLingering`. */
  get lingering(): number {
    return this.#lingering.size + this.#waiting.size;
  }

  /** Turns the client away. `done` is called once, with the Close codes, when it is over. */
  refuse(refused: Refused, done: (codes: CloseCodes) => void): void {
    refused.client.detach();
    if (refused.policies.refuse === "http" || this.lingering >= this.#maxLingering) {
      this.#refuseByHttp(refused, this.#detailOf(refused));
      done(NO_CODES);
    } else {
      this.#waiting.add(() => this.#refuseByClose(refused, this.#detailOf(refused), done));
      this.#refuseWaiting();
    }
  }

  /** As many as this turn of the event loop allows. */
  #refuseWaiting(): void {
    for (const refuse of this.#waiting) {
      if (this.#leftInTurn === 0) return;
      // The first of a turn asks for the next one.
      if (this.#leftInTurn === REFUSALS_PER_TURN) {
        setImmediate(() => {
          this.#leftInTurn = REFUSALS_PER_TURN;
          this.#refuseWaiting();
        });
      }
      this.#leftInTurn -= 1;
      this.#waiting.delete(refuse);
      refuse();
    }
  }

  #detailOf(refused: Refused): CloseDetail {
    const { cause, policies } = refused;
    return TEMPORARY.has(cause)
      ? {
          ...refused.detail,
          retryAfterS: this.#retryAfter.turnAway(policies.retryAfter, this.#clock.now()),
        }
      : refused.detail;
  }

  /** Resolves when no refused client lingers, at the latest after `timeoutMs`. */
  settled(timeoutMs: number): Promise<void> {
    if (this.lingering === 0 || timeoutMs <= 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      this.#onSettled = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Ends what still lingers. */
  close(): void {
    for (const refuse of this.#waiting) {
      this.#waiting.delete(refuse);
      refuse();
    }
    for (const socket of this.#lingering) socket.terminate();
  }

  #refuseByClose(refused: Refused, detail: CloseDetail, done: (codes: CloseCodes) => void): void {
    const { request, client, early, policies, cause } = refused;
    const close = closesFor(cause, policies.close, detail).client;
    if (!client.socket.readable || !client.socket.writable) {
      // Gone already; `ws` would drop it without a word.
      client.socket.destroy();
      done(NO_CODES);
      this.#checkSettled();
      return;
    }
    // The 101 and the Close leave together: one system call here, one packet, one event there.
    client.socket.cork();
    this.#server(policies.close.timeoutMs).handleUpgrade(
      request,
      client.socket,
      early,
      (socket) => {
        this.#lingering.add(socket);
        // Paused since its early bytes were taken.
        client.socket.resume();
        let received: number | null = null;
        // Its error is the client's own protocol error; `close` follows.
        socket.on("error", () => undefined);
        socket.on("close", (code) => {
          this.#lingering.delete(socket);
          this.#checkSettled();
          if (code !== ABNORMAL) {
            received = code;
            this.#observer.closeFrame("client", "received", code);
          }
          done({ sent: close?.code ?? null, received });
        });
        if (close === null) {
          socket.terminate();
          return;
        }
        this.#observer.closeFrame("client", "sent", close.code);
        socket.close(close.code, close.reason);
      },
    );
    client.socket.uncork();
  }

  #checkSettled(): void {
    if (this.lingering === 0) this.#onSettled?.();
  }

  #refuseByHttp({ client, cause, rejection, policies }: Refused, detail: CloseDetail): void {
    const status = httpStatusFor(cause, rejection?.status ?? null);
    if (cause === "upstreamRejected" && rejection !== null && rejection.status === status) {
      const headerLines = responseHeaderLines(rejection.headers);
      writeAnswer(client.socket, { status, headerLines, body: rejection.body });
      return;
    }
    const { client: close } = closesFor(cause, policies.close, detail);
    const { retryAfterS } = detail;
    const headers = retryAfterS === undefined ? {} : { "Retry-After": String(retryAfterS) };
    writeAnswer(client.socket, textAnswer(status, close?.reason ?? cause, headers));
  }

  #server(closeTimeoutMs: number): WebSocketServer {
    let server = this.#servers.get(closeTimeoutMs);
    if (server === undefined) {
      const options = {
        noServer: true,
        clientTracking: false,
        perMessageDeflate: false,
        maxPayload: MAX_PAYLOAD_BYTES,
        closeTimeout: closeTimeoutMs,
        // Browsers and `ws` report 1006 if they offered subprotocols and got none.
        handleProtocols: (offered: Set<string>): string | false => {
          const [first] = offered;
          return first ?? false;
        },
      };
      server = new WebSocketServer(options);
      this.#servers.set(closeTimeoutMs, server);
    }
    return server;
  }
}

const NO_CODES: CloseCodes = { sent: null, received: null };
/** What `ws` reports when no Close came. */
const ABNORMAL = 1006;
