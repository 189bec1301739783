/** A record with plausible values, for tests that care about a few fields only. */
import type { SessionRecord } from "../../../src/session/record.ts";

export function aRecord(changes: Partial<SessionRecord> = {}): SessionRecord {
  return {
    session: "s-1",
    route: "chat",
    backend: "ws://127.0.0.1:9001",
    clientIp: "192.0.2.7",
    subprotocol: "",
    cause: "clientClosed",
    detail: "",
    refused: false,
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
    startedAt: 1_700_000_000_000,
    durationMs: 1500,
    idleMs: 20,
    messages: { clientToUpstream: 3, upstreamToClient: 4 },
    bytes: { clientToUpstream: 30, upstreamToClient: 40 },
    dropped: { clientToUpstream: 0, upstreamToClient: 0 },
    dials: 1,
    resumes: 0,
    retryingMs: 0,
    ...changes,
  };
}
