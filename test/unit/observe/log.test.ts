import { describe, expect, it } from "vitest";
import { CAUSES } from "../../../src/close/causes.ts";
import { createLogger, logRecord, recordLevel, recordLine } from "../../../src/observe/log.ts";
import { aRecord } from "./records.ts";

function lines() {
  const written: string[] = [];
  return { written, write: (line: string) => void written.push(line) };
}

describe("recordLine", () => {
  it("has exactly the documented fields for an ordinary end", () => {
    expect(recordLine(aRecord())).toEqual({
      session: "s-1",
      route: "chat",
      backend: "ws://127.0.0.1:9001",
      clientIp: "192.0.2.7",
      subprotocol: "",
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
      durationMs: 1500,
      idleMs: 20,
      messages: { clientToUpstream: 3, upstreamToClient: 4 },
      bytes: { clientToUpstream: 30, upstreamToClient: 40 },
      dials: 1,
      resumes: 0,
    });
  });

  it("adds detail, dropped and refused only where they say something", () => {
    const line = recordLine(
      aRecord({
        detail: "dial timed out",
        refused: true,
        dropped: { clientToUpstream: 0, upstreamToClient: 2 },
      }),
    );
    expect(line).toMatchObject({
      detail: "dial timed out",
      refused: true,
      dropped: { clientToUpstream: 0, upstreamToClient: 2 },
    });
    expect(Object.keys(line)).toHaveLength(17);
  });

  it("says how long the client was without an upstream, if it was", () => {
    expect(recordLine(aRecord())).not.toHaveProperty("retryingMs");
    expect(recordLine(aRecord({ resumes: 2, retryingMs: 350 }))).toMatchObject({
      resumes: 2,
      retryingMs: 350,
    });
  });
});

describe("recordLevel", () => {
  it("warns of what the upstream or the gateway's limits caused, and of nothing that clients do", () => {
    expect(CAUSES.filter((cause) => recordLevel(cause) === "warn")).toEqual([
      "upstreamLost",
      "upstreamUnresponsive",
      "upstreamUnreachable",
      "upstreamRejected",
      "noBackend",
      "capacity",
      "retryExhausted",
      "upstreamProtocolError",
    ]);
  });

  it("calls a bug of ours an error", () => {
    expect(CAUSES.filter((cause) => recordLevel(cause) === "error")).toEqual(["internalError"]);
  });
});

describe("createLogger", () => {
  it("writes one JSON line per session with ISO time, the level as a word and no process noise", () => {
    const out = lines();
    logRecord(createLogger({ level: "info", format: "json" }, out), aRecord({ cause: "capacity" }));
    expect(out.written).toHaveLength(1);
    const line: Record<string, unknown> = JSON.parse(out.written[0] ?? "");
    expect(line["level"]).toBe("warn");
    expect(line["time"]).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
    expect(line["msg"]).toBe("session ended");
    expect(line).not.toHaveProperty("pid");
    expect(line).not.toHaveProperty("hostname");
  });

  it("says that a refused session was refused", () => {
    const out = lines();
    logRecord(createLogger({ level: "info", format: "json" }, out), aRecord({ refused: true }));
    expect(out.written[0]).toContain('"msg":"session refused"');
  });

  it("keeps text of a client on its own line", () => {
    const out = lines();
    logRecord(
      createLogger({ level: "info", format: "json" }, out),
      aRecord({ subprotocol: 'a\n{"level":"fatal"}' }),
    );
    expect(out.written.join("").trimEnd()).not.toContain("\n");
  });

  it("leaves out what is below the level", () => {
    const out = lines();
    const logger = createLogger({ level: "warn", format: "json" }, out);
    logRecord(logger, aRecord());
    logRecord(logger, aRecord({ cause: "upstreamLost" }));
    expect(out.written).toHaveLength(1);
  });

  it("prints one readable line per record in pretty format", () => {
    const out = lines();
    const logger = createLogger({ level: "info", format: "pretty" }, out);
    logRecord(logger, aRecord({ subprotocol: "a\n\u001b[31m" }));
    expect(out.written).toHaveLength(1);
    expect(out.written[0]).toMatch(/^\[\d\d:\d\d:\d\d\.\d{3}\] INFO: session ended \{.+\}\n$/);
    expect(out.written[0]).not.toContain("\u001b");
  });
});
