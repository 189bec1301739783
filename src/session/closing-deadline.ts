/**
 * How long a session that is closing waits for its sockets, and for whom it waits longer: a client that
 * is destroyed before it has come to its Close sees 1006.
 */
import type { Cause } from "../close/causes.ts";
import type { RouteConfig } from "../config/config.ts";
import type { Leg } from "./leg.ts";
import { isSilent } from "./session-state.ts";

const NEVER = Number.POSITIVE_INFINITY;
const LONG_AGO = Number.NEGATIVE_INFINITY;

export class ClosingDeadline {
  readonly #client: Leg;
  readonly #closeTimeoutMs: number;
  /** What a client that is behind gets: as much as it had while the session was open. */
  readonly #patienceMs: number;
  /** Whether the client has shown that it does not answer. */
  #isSilent = false;
  #startedAt = NEVER;
  /** What the client had taken when it was last looked at, and when it last took some. */
  #takenAtLook = 0;
  #tookAt = LONG_AGO;
  /** When to ask `isOver`; Infinity: there is no deadline. */
  at = NEVER;

  constructor(client: Leg, { close, limits }: Pick<RouteConfig, "close" | "limits">) {
    this.#client = client;
    this.#closeTimeoutMs = close.timeoutMs;
    this.#patienceMs = limits.slowConsumerTimeoutMs;
  }

  /** From now on both legs have `close.timeout`. */
  start(now: number, cause: Cause): void {
    this.at = now + this.#closeTimeoutMs;
    this.#startedAt = now;
    this.#isSilent = isSilent("client", cause);
    this.#takenAtLook = this.#client.takenBytes;
    const isBehind = this.#client.waitingBytes > 0 && this.#client.sentCode !== null;
    this.#tookAt = isBehind && !this.#isSilent ? now : LONG_AGO;
  }

  /**
   * Whether the wait is over, at the deadline. As long as the client takes something now and then it is
   * not. The last look counts too, as what has left user space may still wait in the kernel.
   */
  isOver(now: number): boolean {
    if (this.#client.state !== "gone") {
      const taken = this.#client.takenBytes;
      if (taken > this.#takenAtLook) this.#tookAt = now;
      this.#takenAtLook = taken;
      const since = this.#isTalking ? Math.max(this.#tookAt, this.#startedAt) : this.#tookAt;
      const patientUntil = since + this.#patienceMs;
      if (now < patientUntil) {
        this.at = Math.min(patientUntil, now + this.#closeTimeoutMs);
        return false;
      }
    }
    this.at = NEVER;
    return true;
  }

  /**
   * A client that still sends but has not answered its Close is behind, too. What it has yet to read
   * lies in the kernel, which would answer its next byte with a reset if the socket were destroyed.
   */
  get #isTalking(): boolean {
    const { state, lastReadAt } = this.#client;
    return state === "closeSent" && lastReadAt > this.#startedAt && !this.#isSilent;
  }
}
