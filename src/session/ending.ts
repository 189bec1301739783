/** How a session ends: its cause, the Closes that came, and the Closes that follow from both. */
import type { Cause, Close, Side } from "../close/causes.ts";
import {
  type CloseDetail,
  type ClosePolicy,
  closesFor,
  type LegCloses,
  passToClient,
  passToUpstream,
} from "../close/policy.ts";

export class Ending {
  readonly #policy: ClosePolicy;
  /** Until the session settles it. */
  cause: Cause = "internalError";
  /** On the context's clock: when the cause was settled. */
  atMs = 0;
  /** What the Close says beside the cause. */
  detail: CloseDetail = {};
  /** For the record: which rule or error it was. */
  note = "";
  #fromClient: Close = EMPTY_CLOSE;
  #fromUpstream: Close = EMPTY_CLOSE;

  constructor(policy: ClosePolicy) {
    this.#policy = policy;
  }

  settle(cause: Cause, now: number): void {
    this.cause = cause;
    this.atMs = now;
  }

  received(side: Side, close: Close): void {
    if (side === "client") this.#fromClient = close;
    else this.#fromUpstream = close;
  }

  /** The Close that answers the one from this side. */
  echoTo(side: Side): Close {
    return side === "client" ? this.#fromClient : this.#fromUpstream;
  }

  /** What the other side is told of the Close from this one. */
  passedOnFrom(side: Side): Close {
    return side === "client"
      ? passToUpstream(this.#fromClient)
      : passToClient(this.#fromUpstream, this.#policy);
  }

  /** The gateway's own Closes for the settled cause. */
  get closes(): LegCloses {
    return closesFor(this.cause, this.#policy, this.detail);
  }
}

const EMPTY_CLOSE: Close = { code: 1005, reason: "" };
