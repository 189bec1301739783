/** A GatewayView that remembers what it was asked. */
import type {
  DrainedBackend,
  GatewayStatus,
  GatewayView,
  PlanAnswer,
  ReloadReport,
  SessionSummary,
} from "../../../src/admin/gateway-view.ts";
import { aRecord } from "../observe/records.ts";

const BACKEND = "ws://127.0.0.1:9001";

export class FakeView implements GatewayView {
  isReady = true;
  readonly live = new Set(["s-1"]);
  readonly limits: number[] = [];
  /** Mutations, in order. */
  readonly asked: string[] = [];
  reloadReport: ReloadReport = { outcome: "unchanged", problems: [] };
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
      lastReload: null,
      routes: [{ name: "chat", sessions: this.live.size }],
      pools: [
        {
          name: "main",
          queued: 0,
          backends: [
            {
              url: "ws://127.0.0.1:9001",
              connections: 1,
              maxConnections: 2,
              weight: 1,
              up: true,
              ejected: false,
              draining: false,
              probe: null,
            },
          ],
        },
      ],
      absorbedDrops: { closed: 3, resumed: 4 },
      leaving: [],
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

  drainBackend(url: string): DrainedBackend | null {
    this.asked.push(`drain ${url}`);
    return url === BACKEND ? { sessions: 3 } : null;
  }

  undrainBackend(url: string): boolean {
    this.asked.push(`undrain ${url}`);
    return url === BACKEND;
  }

  reload(): Promise<ReloadReport> {
    this.asked.push("reload");
    return Promise.resolve(this.reloadReport);
  }

  plan(text: string): PlanAnswer {
    this.asked.push(`plan ${text}`);
    return { problems: ["FILE:1:1 nothing is right"] };
  }

  metrics() {
    if (this.failMetrics) return Promise.reject(new Error("boom at /secret/path"));
    return Promise.resolve({ contentType: "text/plain; version=0.0.4", text: "softclose_x 1\n" });
  }
}
