import { describe, expect, it } from "vitest";
import { CAUSES } from "../../../src/close/causes.ts";
import { DIAL_OUTCOMES, Metrics, type MetricsOptions } from "../../../src/observe/metrics.ts";
import { aRecord } from "./records.ts";

const BACKEND = "ws://127.0.0.1:9001";

function metrics(options: Partial<MetricsOptions> = {}): Metrics {
  return new Metrics({
    version: "1.2.3",
    routes: [{ name: "chat" }],
    pools: [{ name: "main", backends: [{ url: BACKEND }], health: {} }],
    live: { sessionsByRoute: () => [], backends: () => [], queues: () => [] },
    processMetrics: false,
    ...options,
  });
}

const byName = (a: string, b: string) => a.localeCompare(b);

async function series(subject: Metrics): Promise<Map<string, number>> {
  const { text } = await subject.scrape();
  const found = new Map<string, number>();
  for (const line of text.split("\n")) {
    const split = line.lastIndexOf(" ");
    if (line !== "" && !line.startsWith("#")) {
      found.set(line.slice(0, split), Number(line.slice(split + 1)));
    }
  }
  return found;
}

describe("Metrics", () => {
  it("exposes every documented metric with its exact name, type and labels", async () => {
    const subject = metrics({
      live: {
        sessionsByRoute: () => [["chat", 1]],
        backends: () => [
          { pool: "main", backend: BACKEND, connections: 1, up: true, ejected: false },
        ],
        queues: () => [["main", 3]],
      },
    });
    subject.closeFrame("client", "sent", 1014);
    subject.ejected("main", BACKEND);
    subject.probed("main", BACKEND, true);
    subject.waited("main", 0.5, "served");
    const { text, contentType } = await subject.scrape();
    expect(contentType).toBe("text/plain; version=0.0.4; charset=utf-8");
    const shapes = new Map<string, string>();
    for (const [, name, type] of text.matchAll(/^# TYPE (\S+) (\S+)$/gm)) {
      const sample = new RegExp(`^${name}(?:_bucket)?\\{(.*)\\} `, "m").exec(text);
      const labels = [...(sample?.[1] ?? "").matchAll(/(\w+)="/g)].map(([, label]) =>
        String(label),
      );
      shapes.set(name ?? "", `${type} ${labels.toSorted(byName).join(",")}`);
    }
    expect(Object.fromEntries(shapes)).toEqual({
      softclose_sessions_active: "gauge route",
      softclose_sessions_total: "counter route",
      softclose_session_ends_total: "counter cause,route",
      softclose_refusals_total: "counter cause,route",
      softclose_config_reloads_total: "counter outcome",
      softclose_close_frames_total: "counter code,direction,side",
      softclose_absorbed_drops_total: "counter outcome,route",
      softclose_resumes_total: "counter outcome,route",
      softclose_resume_gap_seconds: "histogram le,route",
      softclose_dials_total: "counter backend,outcome,pool",
      softclose_backend_connections: "gauge backend,pool",
      softclose_backend_up: "gauge backend,pool",
      softclose_backend_ejected: "gauge backend,pool",
      softclose_ejections_total: "counter backend,pool",
      softclose_probes_total: "counter backend,outcome,pool",
      softclose_queue_length: "gauge pool",
      softclose_queue_wait_seconds: "histogram le,outcome,pool",
      softclose_relayed_bytes_total: "counter direction,route",
      softclose_relayed_messages_total: "counter direction,route",
      softclose_dropped_messages_total: "counter direction,route",
      softclose_heartbeat_rtt_seconds: "histogram le,side",
      softclose_session_duration_seconds: "histogram le,route",
      softclose_build_info: "gauge node,version",
    });
  });

  it("adds process metrics unless told not to", async () => {
    const { text } = await metrics({ processMetrics: true }).scrape();
    expect(text).toContain("process_resident_memory_bytes");
    expect(text).toContain("nodejs_eventloop_lag_seconds");
  });

  it("starts every series of a configured name at 0, so that rate() sees the first event", async () => {
    const found = await series(metrics());
    for (const cause of CAUSES) {
      expect(found.get(`softclose_session_ends_total{route="chat",cause="${cause}"}`)).toBe(0);
      expect(found.get(`softclose_refusals_total{route="chat",cause="${cause}"}`)).toBe(0);
    }
    for (const outcome of DIAL_OUTCOMES) {
      const labels = `pool="main",backend="${BACKEND}",outcome="${outcome}"`;
      expect(found.get(`softclose_dials_total{${labels}}`)).toBe(0);
    }
    expect(found.get('softclose_sessions_total{route="chat"}')).toBe(0);
    for (const outcome of ["closed", "resumed"]) {
      const labels = `route="chat",outcome="${outcome}"`;
      expect(found.get(`softclose_absorbed_drops_total{${labels}}`)).toBe(0);
    }
    for (const outcome of ["resumed", "impossible", "exhausted", "ended"]) {
      expect(found.get(`softclose_resumes_total{route="chat",outcome="${outcome}"}`)).toBe(0);
    }
    expect(found.get('softclose_resume_gap_seconds_count{route="chat"}')).toBe(0);
  });

  it("counts a session from its opening to its end", async () => {
    const subject = metrics();
    subject.sessionOpened("chat");
    subject.sessionEnded(aRecord({ durationMs: 2000 }));
    const found = await series(subject);
    expect(found.get('softclose_sessions_total{route="chat"}')).toBe(1);
    expect(found.get('softclose_session_ends_total{route="chat",cause="clientClosed"}')).toBe(1);
    expect(found.get('softclose_session_duration_seconds_count{route="chat"}')).toBe(1);
    expect(found.get('softclose_session_duration_seconds_sum{route="chat"}')).toBe(2);
  });

  it("counts a refused session as a refusal and as nothing else", async () => {
    const subject = metrics();
    subject.sessionEnded(aRecord({ refused: true, cause: "capacity" }));
    subject.refused(aRecord({ refused: true, cause: "capacity" }));
    const found = await series(subject);
    expect(found.get('softclose_refusals_total{route="chat",cause="capacity"}')).toBe(2);
    expect(found.get('softclose_session_ends_total{route="chat",cause="capacity"}')).toBe(0);
    expect(found.get('softclose_session_duration_seconds_count{route="chat"}')).toBe(0);
  });

  it("counts a drop as absorbed only if the client was sent a Close for it", async () => {
    const subject = metrics();
    const told = { sent: 1014, received: null };
    subject.sessionEnded(aRecord({ cause: "upstreamLost", client: told }));
    subject.sessionEnded(aRecord({ cause: "upstreamUnresponsive", client: told }));
    subject.sessionEnded(
      aRecord({ cause: "upstreamLost", client: { sent: null, received: null } }),
    );
    subject.sessionEnded(aRecord({ cause: "upstreamClosed", client: told }));
    const found = await series(subject);
    expect(found.get('softclose_absorbed_drops_total{route="chat",outcome="closed"}')).toBe(2);
  });

  it("counts a resume as an absorbed drop, with the time that it took", async () => {
    const subject = metrics();
    subject.resumed("chat", 0.25);
    subject.resumed("chat", 1.5);
    const found = await series(subject);
    expect(found.get('softclose_resumes_total{route="chat",outcome="resumed"}')).toBe(2);
    expect(found.get('softclose_absorbed_drops_total{route="chat",outcome="resumed"}')).toBe(2);
    expect(found.get('softclose_absorbed_drops_total{route="chat",outcome="closed"}')).toBe(0);
    expect(found.get('softclose_resume_gap_seconds_count{route="chat"}')).toBe(2);
    expect(found.get('softclose_resume_gap_seconds_sum{route="chat"}')).toBe(1.75);
    expect(found.get('softclose_resume_gap_seconds_bucket{le="0.25",route="chat"}')).toBe(1);
  });

  it("counts what came of a loss without a resume, and no drop until the client is told", async () => {
    const subject = metrics();
    for (const outcome of ["impossible", "exhausted", "ended"] as const) {
      subject.resumeEnded("chat", outcome);
    }
    const before = await series(subject);
    for (const outcome of ["impossible", "exhausted", "ended"]) {
      expect(before.get(`softclose_resumes_total{route="chat",outcome="${outcome}"}`)).toBe(1);
    }
    expect(before.get('softclose_resume_gap_seconds_count{route="chat"}')).toBe(0);
    expect(before.get('softclose_absorbed_drops_total{route="chat",outcome="closed"}')).toBe(0);
    const told = { sent: 1013, received: null };
    subject.sessionEnded(aRecord({ cause: "retryExhausted", client: told }));
    const after = await series(subject);
    expect(after.get('softclose_absorbed_drops_total{route="chat",outcome="closed"}')).toBe(1);
  });

  it("counts a move as such, and as no drop and no time without an upstream", async () => {
    const subject = metrics();
    subject.moved("chat");
    const found = await series(subject);
    expect(found.get('softclose_resumes_total{route="chat",outcome="moved"}')).toBe(1);
    expect(found.get('softclose_resumes_total{route="chat",outcome="resumed"}')).toBe(0);
    expect(found.get('softclose_absorbed_drops_total{route="chat",outcome="resumed"}')).toBe(0);
    expect(found.get('softclose_resume_gap_seconds_count{route="chat"}')).toBe(0);
  });

  it("counts ejections, probes, waits and reloads by what came of them", async () => {
    const subject = metrics();
    const backend = `pool="main",backend="${BACKEND}"`;
    subject.ejected("main", BACKEND);
    subject.probed("main", BACKEND, true);
    subject.probed("main", BACKEND, false);
    subject.waited("main", 0.5, "served");
    subject.waited("main", 5, "timeout");
    subject.reloaded("applied");
    const found = await series(subject);
    expect(found.get(`softclose_ejections_total{${backend}}`)).toBe(1);
    expect(found.get(`softclose_probes_total{${backend},outcome="good"}`)).toBe(1);
    expect(found.get(`softclose_probes_total{${backend},outcome="bad"}`)).toBe(1);
    const wait = "softclose_queue_wait_seconds";
    expect(found.get(`${wait}_sum{pool="main",outcome="served"}`)).toBe(0.5);
    expect(found.get(`${wait}_count{pool="main",outcome="timeout"}`)).toBe(1);
    expect(found.get('softclose_config_reloads_total{outcome="applied"}')).toBe(1);
    expect(found.get('softclose_config_reloads_total{outcome="invalid"}')).toBe(0);
  });

  it("adds traffic up by route and direction", async () => {
    const subject = metrics();
    const messages = { clientToUpstream: 1, upstreamToClient: 2 };
    const bytes = { clientToUpstream: 10, upstreamToClient: 20 };
    subject.relayed("chat", messages, bytes);
    subject.relayed("chat", messages, bytes);
    subject.sessionEnded(aRecord({ dropped: { clientToUpstream: 5, upstreamToClient: 0 } }));
    const found = await series(subject);
    const of = (name: string, direction: string) =>
      found.get(`softclose_${name}_total{route="chat",direction="${direction}"}`);
    expect(of("relayed_messages", "clientToUpstream")).toBe(2);
    expect(of("relayed_messages", "upstreamToClient")).toBe(4);
    expect(of("relayed_bytes", "clientToUpstream")).toBe(20);
    expect(of("relayed_bytes", "upstreamToClient")).toBe(40);
    expect(of("dropped_messages", "clientToUpstream")).toBe(5);
    expect(of("dropped_messages", "upstreamToClient")).toBe(0);
  });

  it("observes heartbeats by side and dials by outcome", async () => {
    const subject = metrics();
    subject.heartbeatRtt("client", 0.02);
    subject.dialEnded("main", BACKEND, "refused");
    const found = await series(subject);
    expect(found.get('softclose_heartbeat_rtt_seconds_count{side="client"}')).toBe(1);
    expect(found.get('softclose_heartbeat_rtt_seconds_count{side="upstream"}')).toBe(0);
    expect(
      found.get(`softclose_dials_total{pool="main",backend="${BACKEND}",outcome="refused"}`),
    ).toBe(1);
  });

  it("keeps the close codes of a hostile peer in 19 series per side and direction", async () => {
    const subject = metrics();
    for (let code = 0; code <= 65_535; code++) subject.closeFrame("client", "received", code);
    const found = [...(await series(subject)).keys()].filter((key) =>
      key.startsWith("softclose_close_frames_total"),
    );
    const codes = found.map((key) => /code="([^"]+)"/.exec(key)?.[1] ?? "").toSorted(byName);
    expect(codes).toEqual(
      [
        ...Array.from({ length: 16 }, (_, n) => String(1000 + n)),
        "3000-3999",
        "4000-4999",
        "other",
      ].toSorted(byName),
    );
  });

  it("reads live state at each scrape, and forgets what has left the configuration", async () => {
    let backends = [
      { pool: "main", backend: "ws://a", connections: 2, up: true, ejected: false },
      { pool: "main", backend: "ws://b", connections: 0, up: false, ejected: true },
    ];
    const subject = metrics({
      live: { sessionsByRoute: () => [["chat", 2]], backends: () => backends, queues: () => [] },
    });
    const first = await series(subject);
    expect(first.get('softclose_sessions_active{route="chat"}')).toBe(2);
    expect(first.get('softclose_backend_connections{pool="main",backend="ws://a"}')).toBe(2);
    expect(first.get('softclose_backend_up{pool="main",backend="ws://a"}')).toBe(1);
    expect(first.get('softclose_backend_up{pool="main",backend="ws://b"}')).toBe(0);
    expect(first.get('softclose_backend_ejected{pool="main",backend="ws://a"}')).toBe(0);
    expect(first.get('softclose_backend_ejected{pool="main",backend="ws://b"}')).toBe(1);
    backends = backends.slice(0, 1);
    const second = await series(subject);
    expect(second.has('softclose_backend_up{pool="main",backend="ws://b"}')).toBe(false);
  });

  it("lets live sessions hand in their counters before a scrape", async () => {
    const subject = metrics();
    subject.beforeScrape(() =>
      subject.relayed(
        "chat",
        { clientToUpstream: 7, upstreamToClient: 0 },
        { clientToUpstream: 0, upstreamToClient: 0 },
      ),
    );
    const found = await series(subject);
    expect(
      found.get('softclose_relayed_messages_total{route="chat",direction="clientToUpstream"}'),
    ).toBe(7);
  });

  it("says which version runs on which Node", async () => {
    const found = await series(metrics());
    expect(found.get(`softclose_build_info{version="1.2.3",node="${process.version}"}`)).toBe(1);
  });

  it("keeps two gateways in one process apart", async () => {
    const [one, two] = [metrics(), metrics()];
    one.sessionOpened("chat");
    expect((await series(two)).get('softclose_sessions_total{route="chat"}')).toBe(0);
  });

  it("keeps what has left the configuration until the next reload, and as long as it is used", async () => {
    const busy = { route: 0, backend: 0 };
    const subject = metrics({
      live: {
        sessionsByRoute: () => [["chat", busy.route]],
        backends: () => [
          { pool: "main", backend: BACKEND, connections: busy.backend, up: false, ejected: false },
        ],
        queues: () => [],
      },
    });
    const seen = async (): Promise<string[]> =>
      [...(await series(subject)).keys()].filter(
        (name) =>
          !/_active|_backend_(up|connections|ejected)/.test(name) &&
          (name.includes('route="chat"') || name.includes(BACKEND)),
      );
    const others = [{ name: "next" }];
    subject.dialEnded("main", BACKEND, "connected");
    subject.sessionEnded(aRecord({ route: "chat" }));
    expect((await seen()).length).toBeGreaterThan(50);
    const before = await seen();
    subject.expect(others, []);
    expect(await seen()).toEqual(before);
    Object.assign(busy, { route: 1, backend: 1 });
    subject.expect(others, []);
    expect(await seen()).toEqual(before);
    Object.assign(busy, { route: 0, backend: 0 });
    subject.expect(others, []);
    expect(await seen()).toEqual([]);
    // What comes back starts anew, and is kept.
    subject.expect([{ name: "chat" }], []);
    subject.expect([{ name: "chat" }], []);
    expect((await series(subject)).get('softclose_sessions_total{route="chat"}')).toBe(0);
  });

  it("keeps what histograms have counted over reloads", async () => {
    const subject = metrics();
    subject.sessionEnded(aRecord({ durationMs: 2000 }));
    subject.resumed("chat", 1);
    subject.waited("main", 0.5, "served");
    const counts = async () =>
      [...(await series(subject))].filter(
        ([name, value]) => name.includes("_seconds_count") && value > 0,
      );
    const before = await counts();
    expect(before).toHaveLength(3);
    const pool = { name: "main", backends: [{ url: BACKEND }], health: {} };
    for (let reload = 0; reload < 3; reload += 1) subject.expect([{ name: "chat" }], [pool]);
    expect(await counts()).toEqual(before);
    for (let reload = 0; reload < 2; reload += 1) subject.expect([], []);
    expect(await counts()).toEqual([]);
  });

  it("forgets nothing that is back before the next reload", async () => {
    const subject = metrics();
    subject.sessionOpened("chat");
    subject.expect([], []);
    subject.expect([{ name: "chat" }], []);
    subject.expect([{ name: "chat" }], []);
    expect((await series(subject)).get('softclose_sessions_total{route="chat"}')).toBe(1);
  });
});
