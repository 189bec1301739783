/**
 * One dial: TCP, upgrade request, answer, verdict. Ends exactly once, with a verified leg or a failure
 * that says whether another backend may be tried.
 *
 *   connecting ──▶ awaitingHead ──101, verified──▶ done (connected)
 *       │              ├──────── any other answer ──▶ done (rejected), or awaitingBody first
 *       └──────────────┴──────── error, end, timeout, abort ──▶ done (failed)
 */

import {
  endOfHead,
  MAX_HEAD_BYTES,
  parseResponseHead,
  type ResponseHead,
} from "../wire/response-head.ts";
import type { Backend } from "./backend.ts";
import { PatientTimeout } from "./patient-timeout.ts";
import { type Rejection, readRejection } from "./rejection.ts";
import { CONNECTED_TO_ITSELF, isSelfConnection } from "./self-connection.ts";
import {
  type Agreement,
  newKey,
  serializeRequest,
  type UpgradeRequest,
  verifyAnswer,
} from "./upgrade-request.ts";
import { type Holder, KEEP, type ReadBuffers, UpstreamSocket } from "./upstream-socket.ts";

/** A verified upstream leg, paused, before its first frame. */
export interface Connection extends Agreement {
  readonly upstream: UpstreamSocket;
  readonly head: ResponseHead;
  /** Bytes that came behind the head of the 101; at most 64 KiB, the size of one read. */
  readonly early: Buffer;
}

/** `outcome` is the metrics' word for it. */
export interface DialFailure {
  readonly outcome: "refused" | "timeout" | "tls" | "dns" | "reset" | "rejected" | "aborted";
  /** For people: which error or answer it was. */
  readonly detail: string;
  /** Another backend, or this one later, may do better. */
  readonly retryable: boolean;
  /** Set when the backend answered with a status other than 101. */
  readonly rejection: Rejection | null;
  /** It was our own resources that ran out: no word on the backend. */
  readonly local?: true;
}

export type DialResult = { readonly connection: Connection } | { readonly failure: DialFailure };

export interface DialOptions {
  readonly timeoutMs: number;
  readonly readBuffers: ReadBuffers;
  /** A refusal will show the backend's own answer: read its body, too. */
  readonly wantsBody: boolean;
}

/** RFC 9110 §15.6: the backend, or a proxy before it, cannot serve just now. */
const RETRYABLE_STATUS: ReadonlySet<number> = new Set([502, 503, 504]);

type State = "connecting" | "awaitingHead" | "awaitingBody" | "done";

export class Dial {
  readonly #request: UpgradeRequest;
  readonly #options: DialOptions;
  readonly #done: (result: DialResult) => void;
  readonly #upstream: UpstreamSocket;
  readonly #key = newKey();
  readonly #timeout: PatientTimeout;
  #state: State = "connecting";
  #head: Buffer = EMPTY;
  /** While awaiting the body: ends the reading of it. */
  #cutBody: (() => void) | null = null;

  constructor(
    backend: Backend,
    request: UpgradeRequest,
    options: DialOptions,
    done: (result: DialResult) => void,
  ) {
    this.#request = request;
    this.#options = options;
    this.#done = done;
    this.#upstream = new UpstreamSocket(backend.host, backend.port, options.readBuffers);
    this.#upstream.receiver = this;
    const { socket } = this.#upstream;
    socket.on("connect", this.#onConnect);
    socket.on("error", this.#onError);
    socket.on("end", this.#onEnd);
    // Queued until the connection stands.
    socket.write(serializeRequest(request, this.#key), "latin1");
    this.#timeout = new PatientTimeout(options.timeoutMs, () => this.#onTimeout());
  }

  /** The client left. */
  abort(): void {
    this.#fail("aborted", "client left", false);
  }

  /** Bytes of the answer: kept until it is complete, and what follows it goes to the session. */
  received(chunk: Buffer): Holder {
    if (this.#state !== "done") this.#read(chunk);
    return KEEP;
  }

  #read(chunk: Buffer): void {
    this.#head = this.#head.length === 0 ? chunk : Buffer.concat([this.#head, chunk]);
    while (this.#state === "awaitingHead") {
      const end = endOfHead(this.#head);
      if (end === -1 ? this.#head.length >= MAX_HEAD_BYTES : end > MAX_HEAD_BYTES) {
        this.#reject(`answer head larger than ${MAX_HEAD_BYTES} bytes`);
        return;
      }
      if (end === -1) return;
      const head = parseResponseHead(this.#head.subarray(0, end));
      if (typeof head === "string") {
        this.#reject(`answer is not HTTP/1.1: ${head}`);
        return;
      }
      const rest = this.#head.subarray(end);
      if (head.status >= 200) {
        this.#answered(head);
        return;
      }
      if (head.status === 101) {
        this.#verify(head, rest);
        return;
      }
      // RFC 9110 §15.2: informational answers precede the real one.
      this.#head = rest;
    }
  }

  #verify(head: ResponseHead, early: Buffer): void {
    const agreement = verifyAnswer(head, this.#request, this.#key);
    if (typeof agreement === "string") {
      this.#reject(agreement);
      return;
    }
    const { socket } = this.#upstream;
    socket.pause();
    this.#end();
    // All of them: one that stays would keep this dial, and the whole handshake, for the session's life.
    socket.removeListener("connect", this.#onConnect);
    socket.removeListener("error", this.#onError);
    socket.removeListener("end", this.#onEnd);
    this.#upstream.receiver = null;
    this.#done({ connection: { ...agreement, upstream: this.#upstream, head, early } });
  }

  /** A status other than 101: final, unless a backend that is only busy. */
  #answered(head: ResponseHead): void {
    const detail = `upstream answered ${head.status}`;
    const retryable = RETRYABLE_STATUS.has(head.status);
    if (!this.#options.wantsBody) {
      const rejection = { status: head.status, headers: head.headers, body: EMPTY };
      this.#finish({ outcome: "rejected", detail, retryable, rejection });
      return;
    }
    this.#state = "awaitingBody";
    const { socket } = this.#upstream;
    socket.removeListener("end", this.#onEnd);
    this.#cutBody = readRejection(this.#upstream, head, this.#head, (rejection) => {
      if (this.#state === "done") return;
      this.#finish({ outcome: "rejected", detail, retryable, rejection });
    });
  }

  /** A 101 or an answer that cannot be trusted. */
  #reject(detail: string): void {
    this.#finish({ outcome: "rejected", detail, retryable: false, rejection: null });
  }

  #fail(outcome: DialFailure["outcome"], detail: string, retryable: boolean): void {
    if (this.#state === "done") return;
    this.#finish({ outcome, detail, retryable, rejection: null });
  }

  #finish(failure: DialFailure): void {
    this.#end();
    this.#upstream.receiver = null;
    this.#upstream.socket.destroy();
    this.#done({ failure });
  }

  #end(): void {
    this.#state = "done";
    this.#timeout.clear();
    this.#head = EMPTY;
  }

  #onTimeout(): void {
    if (this.#cutBody !== null) {
      // The verdict stands, however little has come of the body.
      this.#cutBody();
      return;
    }
    const waited = this.#state === "connecting" ? "no connection" : "no answer to the handshake";
    this.#fail("timeout", `${waited} within ${this.#options.timeoutMs} ms`, true);
  }

  readonly #onConnect = (): void => {
    this.#state = "awaitingHead";
    if (isSelfConnection(this.#upstream.socket)) this.#fail("refused", CONNECTED_TO_ITSELF, true);
  };

  readonly #onEnd = (): void => {
    this.#fail("reset", "upstream closed the connection during the handshake", true);
  };

  readonly #onError = (error: NodeJS.ErrnoException): void => {
    if (this.#cutBody !== null) {
      this.#cutBody();
      return;
    }
    if (this.#state === "done") return;
    const code = error.code ?? error.name;
    this.#finish({
      outcome: outcomeOf(error),
      detail: `${code} during the handshake`,
      retryable: true,
      rejection: null,
      ...(OURS.has(code) ? { local: true } : {}),
    });
  };
}

/** Descriptors, ports or memory of this machine. */
const OURS: ReadonlySet<string> = new Set([
  "EMFILE",
  "ENFILE",
  "EADDRNOTAVAIL",
  "ENOBUFS",
  "ENOMEM",
]);

function outcomeOf(error: NodeJS.ErrnoException): DialFailure["outcome"] {
  if (error.syscall === "getaddrinfo") return "dns";
  if (error.code === "ETIMEDOUT") return "timeout";
  // Also while connecting: it was accepted first.
  if (error.code === "ECONNRESET") return "reset";
  return error.syscall === "connect" ? "refused" : "reset";
}

const EMPTY = Buffer.alloc(0);
