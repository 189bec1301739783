/** A GatewayView that remembers what it was asked. */
import type {
  GatewayStatus,
  GatewayView,
  SessionSummary,
} from "../../../src/admin/gateway-view.ts";
import { aRecord } from "../observe/records.ts";

export class FakeView implements GatewayView {
  isReady = true;
  readonly live = new Set(["s-1"]);
  readonly limits: number[] = [];
  failMetrics = false;

  ready(): boolean {
    return this.isReady;
  }

  status(): GatewayStatus {
    return {
      version: "1.2.3",
      state: this.isReady ? "ready" : "draining",
      startedAt: "2026-01-01T00:00:00.000Z",
      uptimeMs: 1000,
      sessions: this.live.size,
      listeners: [{ name: "public", address: "127.0.0.1:8080" }],
      routes: [{ name: "chat", sessions: this.live.size }],
      pools: [
        {
          name: "main",
          backends: [{ url: "ws://127.0.0.1:9001", connections: 1, maxConnections: 2, weight: 1 }],
        },
      ],
    };
  }

  sessions(limit: number): SessionSummary[] {
    this.limits.push(limit);
    return [...this.live].slice(0, limit).map((session) => ({
      session,
      route: "chat",
      backend: "ws://127.0.0.1:9001",
      clientIp: "192.0.2.7",
      subprotocol: "",
      state: "open",
      startedAt: "2026-01-01T00:00:00.000Z",
      ageMs: 500,
      idleMs: 5,
      messages: { clientToUpstream: 1, upstreamToClient: 1 },
      bytes: { clientToUpstream: 8, upstreamToClient: 4 },
    }));
  }

  closes(limit: number) {
    this.limits.push(limit);
    return [aRecord()].slice(0, limit);
  }

  closeSession(id: string): boolean {
    return this.live.delete(id);
  }

  metrics() {
    if (this.failMetrics) return Promise.reject(new Error("boom at /secret/path"));
    return Promise.resolve({ contentType: "text/plain; version=0.0.4", text: "softclose_x 1\n" });
  }
}
