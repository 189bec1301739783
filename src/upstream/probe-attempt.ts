/**
 * One probe from its first SYN to its verdict: owns the one socket and the one timer that a probe has,
 * and ends exactly once. What is said over the socket is the business of probe-http.ts and the like.
 *
 *   running ──▶ leaving (the verdict stands, the goodbye is waited for) ──▶ done
 *      └────────────── end, error, timeout, abort ──────────────────────────▲
 */
import { connect, type Socket } from "node:net";
import { PatientTimeout } from "./patient-timeout.ts";
import { CONNECTED_TO_ITSELF, isSelfConnection } from "./self-connection.ts";

/** What is probed; a `Backend` is one. */
export interface ProbeTarget {
  /** `ws://host:port`; its host is what the backend reads in the Host header. */
  readonly url: string;
  /** What is dialled; without brackets for IPv6. */
  readonly host: string;
  readonly port: number;
}

export interface ProbeResult {
  readonly good: boolean;
  /** For people: what the backend did. */
  readonly detail: string;
}

/** Names the probe in the backend's own log. */
export const PROBE_USER_AGENT = "softclose-health";

/**
 * Runs `start` as a probe. Never rejects, and settles within `timeoutMs` (in which this process runs) plus
 * the wait of `leave`, or at once when `signal` is aborted; the socket is destroyed by then.
 */
export function runProbe(
  target: ProbeTarget,
  timeoutMs: number,
  signal: AbortSignal,
  start: (attempt: ProbeAttempt) => void,
): Promise<ProbeResult> {
  return new Promise((resolve) => {
    if (signal.aborted) {
      resolve(ABORTED);
      return;
    }
    const attempt = new ProbeAttempt(target, timeoutMs, signal, resolve);
    try {
      start(attempt);
    } catch (error) {
      attempt.fail(describe(error));
    }
  });
}

export class ProbeAttempt {
  readonly target: ProbeTarget;
  readonly #timeoutMs: number;
  readonly #signal: AbortSignal;
  readonly #resolve: (result: ProbeResult) => void;
  #state: "running" | "leaving" | "done" = "running";
  #verdict: ProbeResult = ABORTED;
  #awaited = "connection";
  #timeout: PatientTimeout;
  #socket: Socket | null = null;
  #release: (() => void) | null = null;

  constructor(
    target: ProbeTarget,
    timeoutMs: number,
    signal: AbortSignal,
    resolve: (result: ProbeResult) => void,
  ) {
    this.target = target;
    this.#timeoutMs = timeoutMs;
    this.#signal = signal;
    this.#resolve = resolve;
    this.#timeout = new PatientTimeout(timeoutMs, this.#onTimeout);
    signal.addEventListener("abort", this.#onAbort);
  }

  /**
   * Begins to connect. Null: this attempt has had its socket; a probe says what one connection was
   * good for. Whoever gets the socket may write to it and read it, but only the attempt ends it.
   */
  openSocket(): Socket | null {
    if (this.#socket !== null || this.#state !== "running") return null;
    const socket = connect({ host: this.target.host, port: this.target.port, noDelay: true });
    this.#socket = socket;
    let connected = false;
    socket.on("connect", () => {
      connected = true;
      if (isSelfConnection(socket)) this.fail(CONNECTED_TO_ITSELF);
    });
    // First of all listeners: what the system says is plainer than what a protocol's client makes of it.
    // That client ends the socket with errors of its own, too, and reports those itself.
    socket.on("error", (error: NodeJS.ErrnoException) => {
      if (!connected || error.syscall !== undefined) this.fail(describe(error));
    });
    socket.on("close", () => {
      if (this.#state === "leaving") this.#finish();
    });
    return socket;
  }

  /** What is waited for from now on: the words for a timeout. */
  awaits(what: string): void {
    this.#awaited = what;
  }

  /** Frees what stands on top of the socket; called once, when the attempt is done. */
  onDone(release: () => void): void {
    if (this.#state === "done") release();
    else this.#release = release;
  }

  succeed(detail: string): void {
    this.#end({ good: true, detail });
  }

  fail(detail: string): void {
    this.#end({ good: false, detail });
  }

  /** The verdict is good, and the backend has up to `waitMs` to close the connection in good order. */
  leave(detail: string, waitMs: number): void {
    if (this.#state !== "running") return;
    this.#state = "leaving";
    this.#verdict = { good: true, detail };
    this.#timeout.clear();
    this.#timeout = new PatientTimeout(waitMs, () => this.#finish());
  }

  #end(verdict: ProbeResult): void {
    if (this.#state !== "running") return;
    this.#verdict = verdict;
    this.#finish();
  }

  #finish(): void {
    if (this.#state === "done") return;
    this.#state = "done";
    this.#timeout.clear();
    this.#signal.removeEventListener("abort", this.#onAbort);
    const release = this.#release;
    this.#release = null;
    release?.();
    this.#socket?.destroy();
    this.#resolve(this.#verdict);
  }

  readonly #onTimeout = (): void => {
    this.fail(`no ${this.#awaited} within ${this.#timeoutMs} ms`);
  };

  readonly #onAbort = (): void => {
    this.#verdict = ABORTED;
    this.#finish();
  };
}

const ABORTED: ProbeResult = { good: false, detail: "aborted" };

/** Longer than any message of the system's; the detail goes into a log line and a page. */
const MAX_DETAIL_CHARS = 200;

/** Short text for people. */
export function describe(error: unknown): string {
  // A host name with several addresses: each was tried, and the first failure speaks for all.
  const one: unknown = error instanceof AggregateError ? error.errors[0] : error;
  if (!(one instanceof Error)) return "failed";
  const { syscall, code, message }: NodeJS.ErrnoException = one;
  const text = syscall !== undefined && code !== undefined ? `${syscall} ${code}` : message;
  return text === "" ? one.name : text.slice(0, MAX_DETAIL_CHARS);
}
