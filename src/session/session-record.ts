/** The record of a session that has ended, from the parts that know. */
import type { Ending } from "./ending.ts";
import type { Leg } from "./leg.ts";
import type { SessionRecord } from "./record.ts";
import type { SessionParts } from "./session-parts.ts";
import type { Traffic } from "./traffic.ts";

/** `upstream`: the last one. `connecting`: over all of them. */
export function recordOf(
  parts: SessionParts,
  client: Leg,
  upstream: Leg,
  ending: Ending,
  traffic: Traffic,
  connecting: Pick<SessionRecord, "backend" | "dials" | "resumes" | "retryingMs">,
): SessionRecord {
  const { id, route, clientIp, subprotocol, startedAt, startedAtMs } = parts;
  const lastReadAt = Math.max(client.lastReadAt, upstream.lastReadAt);
  return {
    session: id,
    route: route.name,
    clientIp,
    subprotocol,
    cause: ending.cause,
    detail: ending.note,
    refused: false,
    client: { sent: client.sentCode, received: client.receivedCode },
    upstream: { sent: upstream.sentCode, received: upstream.receivedCode },
    startedAt,
    durationMs: Math.round(ending.atMs - startedAtMs),
    idleMs: Math.round(Math.max(0, ending.atMs - lastReadAt)),
    messages: traffic.messages,
    bytes: traffic.bytes,
    dropped: traffic.dropped,
    ...connecting,
  };
}
