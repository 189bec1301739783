/** Reads the payload of a received Close frame (RFC 6455 §5.5.1, §7.4). */
import { isUtf8 } from "node:buffer";
import type { Close } from "../close/causes.ts";

/** The Close, or the rule that its payload breaks. */
export type ParsedClose = Close | { readonly violation: string };

export function parseClosePayload(payload: Buffer): ParsedClose {
  if (payload.length === 0) return { code: 1005, reason: "" };
  if (payload.length === 1) return { violation: "Close payload of 1 byte" };
  const code = payload.readUInt16BE(0);
  if (!isLegalOnTheWire(code))
    return { violation: `Close code ${code} is not allowed on the wire` };
  const reason = payload.subarray(2);
  if (!isUtf8(reason)) return { violation: "Close reason is not UTF-8" };
  return { code, reason: reason.toString("utf8") };
}

/**
 * RFC 6455 §7.4.1 and the IANA registry; 1004-1006 and 1015 are reserved, the rest unassigned. The close
 * policy has its own, as neither folder imports the other; a test holds them together.
 */
export function isLegalOnTheWire(code: number): boolean {
  return (
    (code >= 1000 && code <= 1003) ||
    (code >= 1007 && code <= 1014) ||
    (code >= 3000 && code <= 4999)
  );
}
