/**
 * The close policy, pure: which Close goes out on which leg, for a Close that came in and for an end
 * that the gateway itself decides. Whatever it is given, what it returns is legal on the wire.
 */
import { type Cause, type Close, isSendable, type Side } from "./causes.ts";
import {
  addresseeOf,
  type CloseDetail,
  carriesRetryAfter,
  defaultCloses,
  isAbnormal,
  type LegCloses,
} from "./default-closes.ts";
import { cutReason, MAX_REASON_BYTES } from "./reason.ts";

export { type CloseDetail, httpStatusFor, type LegCloses } from "./default-closes.ts";
export { cutReason } from "./reason.ts";

/** What an operator can set about closing; the `close` section of the configuration satisfies it. */
export interface ClosePolicy {
  /** Towards clients 1012 and 1013 become 1001, and 1014 becomes 1011. */
  readonly legacyCodes: boolean;
  readonly causes: ReadonlyMap<Cause, { readonly code?: number; readonly reason?: string }>;
  /** Upstream code (1005: empty Close) to client code. */
  readonly translate: ReadonlyMap<number, number>;
}

/** The upstream's Close as the client gets it. Code 1005: an empty Close, without a payload. */
export function passToClient(received: Close, policy: ClosePolicy): Close {
  if (!isPassable(received.code)) {
    // The relay answers such a Close with 1002 and never passes it; this is the last guard.
    return toClient(1014, "upstream sent an illegal close code", policy);
  }
  const translated = policy.translate.get(received.code);
  const code =
    translated !== undefined && mayTranslate(received.code, translated)
      ? translated
      : received.code;
  return toClient(code, received.code === NO_STATUS ? "" : received.reason, policy);
}

/** The client's Close as the upstream gets it. Code 1005: an empty Close, without a payload. */
export function passToUpstream(received: Close): Close {
  if (!isPassable(received.code)) {
    return { code: 1001, reason: "client sent an illegal close code" };
  }
  return legal(received.code, received.reason);
}

/** The Closes that the gateway makes for a cause; null: that leg gets none, or one that is passed on. */
export function closesFor(cause: Cause, policy: ClosePolicy, detail: CloseDetail): LegCloses {
  const defaults = defaultCloses(cause, detail);
  const client = explained(defaults.client, "client", cause, detail);
  const upstream = explained(defaults.upstream, "upstream", cause, detail);
  if (client === null) {
    // Only clientLost: the upstream's Close is the one that the operator can have meant.
    return { client: null, upstream: upstream && overridden(upstream, cause, policy) };
  }
  const told = overridden(client, cause, policy);
  return {
    client: toClient(told.code, told.reason, policy, retryAfterSuffix(cause, detail)),
    upstream,
  };
}

/** Whether `close.causes` may give this cause this code: legal on the wire, and no lie. */
export function mayOverride(cause: Cause, code: number): boolean {
  return isSendable(code) && !(code === 1000 && isAbnormal(cause));
}

/**
 * Whether `close.translate` may turn an upstream's code into this one. What tells of a failure never
 * becomes 1000; 1001, an empty Close and an application's own codes may.
 */
export function mayTranslate(from: number, to: number): boolean {
  if (!isPassable(from) || !isSendable(to)) return false;
  return to !== 1000 || from <= 1001 || from === NO_STATUS || from >= 3000;
}

/** RFC 6455 §7.4.1: stands for a Close without a code; it is never written. */
const NO_STATUS = 1005;

function isPassable(code: number): boolean {
  return code === NO_STATUS || isSendable(code);
}

/** The default Close with what the detail knows better; an operator's reason comes later and wins. */
function explained(close: Close | null, leg: Side, cause: Cause, detail: CloseDetail) {
  if (close === null || detail.reason === undefined)
    return close && legal(close.code, close.reason);
  const addressee = addresseeOf(cause);
  const reason =
    addressee === null || addressee === leg ? detail.reason : `${close.reason}: ${detail.reason}`;
  return legal(close.code, reason);
}

function overridden(close: Close, cause: Cause, policy: ClosePolicy): Close {
  const override = policy.causes.get(cause);
  const code = override?.code;
  return legal(
    code !== undefined && mayOverride(cause, code) ? code : close.code,
    override?.reason ?? close.reason,
  );
}

function retryAfterSuffix(cause: Cause, detail: CloseDetail): string {
  const seconds = detail.retryAfterS;
  if (seconds === undefined || !carriesRetryAfter(cause)) return "";
  return Number.isSafeInteger(seconds) && seconds >= 0 ? `; retry-after=${seconds}` : "";
}

/** Every Close towards a client goes through here, so `legacyCodes` holds for all of them. */
function toClient(code: number, reason: string, policy: ClosePolicy, suffix = ""): Close {
  const known = policy.legacyCodes ? legacyCode(code) : code;
  if (known === NO_STATUS) return legal(NO_STATUS, "");
  // The suffix is for programs and must survive: the words before it give way.
  return { code: known, reason: cutReason(reason, MAX_REASON_BYTES - suffix.length) + suffix };
}

function legacyCode(code: number): number {
  if (code === 1012 || code === 1013) return 1001;
  return code === 1014 ? 1011 : code;
}

function legal(code: number, reason: string): Close {
  return { code, reason: code === NO_STATUS ? "" : cutReason(reason) };
}
