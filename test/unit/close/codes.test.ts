// The registry of close codes: complete, consistent with the wire and with the default close table.
import { describe, expect, it } from "vitest";
import { CAUSES, isSendable } from "../../../src/close/causes.ts";
import { CODES, causesSending, codeInfo, explainShort } from "../../../src/close/codes.ts";
import { compareCodes } from "../../../src/close/comparisons.ts";
import { IDLE_LIMITS } from "../../../src/close/idle-limits.ts";
import { isLegalOnTheWire } from "../../../src/wire/close-payload.ts";

const ALL = Array.from({ length: 65536 }, (_, code) => code);

describe("the registry", () => {
  it("knows 1000 to 1015, 3000 to 3999 and 4000 to 4999, and nothing else", () => {
    const known = ALL.filter((code) => codeInfo(code) !== null);
    const expected = ALL.filter(
      (code) => (code >= 1000 && code <= 1015) || (code >= 3000 && code <= 4999),
    );
    expect(known).toEqual(expected);
    for (const odd of [-1, 1000.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(codeInfo(odd)).toBeNull();
    }
  });

  it.each([
    [1000, "Normal Closure"],
    [1001, "Going Away"],
    [1002, "Protocol error"],
    [1003, "Unsupported Data"],
    [1004, "Reserved"],
    [1005, "No Status Rcvd"],
    [1006, "Abnormal Closure"],
    [1007, "Invalid frame payload data"],
    [1008, "Policy Violation"],
    [1009, "Message Too Big"],
    [1010, "Mandatory Ext."],
    [1011, "Internal Error"],
    [1012, "Service Restart"],
    [1013, "Try Again Later"],
    [1014, "Bad Gateway"],
    [1015, "TLS handshake"],
    [3000, "Unauthorized"],
    [3001, "Registered codes"],
    [3003, "Forbidden"],
    [3008, "Timeout"],
    [3999, "Registered codes"],
    [4000, "Private use"],
    [4999, "Private use"],
  ])("calls %i %s", (code, name) => {
    expect(codeInfo(code)?.name).toBe(name);
  });

  it("says something about each code in every respect, in whole sentences", () => {
    for (const info of CODES) {
      for (const text of [
        info.meaning,
        info.seen,
        info.client,
        info.ops,
        info.gateway,
        info.short,
      ]) {
        expect(text).toMatch(/^["A-Z`].*[.]$/);
      }
      expect(info.use).toMatch(/^[a-z].*[^.]$/);
      expect(info.short.length).toBeLessThanOrEqual(140);
    }
  });

  it("says never to send exactly those codes that must not be sent", () => {
    for (const info of CODES) {
      expect(info.use.startsWith("never")).toBe(!isSendable(info.first));
      expect(isSendable(info.last)).toBe(isSendable(info.first));
    }
  });
});

describe("isSendable", () => {
  it("agrees with what the relay takes for legal on the wire", () => {
    expect(ALL.filter(isSendable)).toEqual(ALL.filter(isLegalOnTheWire));
  });

  it("allows 1000-1003, 1007-1014 and 3000-4999 only", () => {
    expect(ALL.filter(isSendable)).toEqual(
      ALL.filter(
        (code) =>
          (code >= 1000 && code <= 1003) ||
          (code >= 1007 && code <= 1014) ||
          (code >= 3000 && code <= 4999),
      ),
    );
    expect([-1, 1000.5, Number.NaN].some(isSendable)).toBe(false);
  });
});

describe("causesSending", () => {
  it("reads the default close table for the client's leg", () => {
    expect(causesSending(1001)).toEqual(["clientUnresponsive", "idle"]);
    expect(causesSending(1002)).toEqual(["clientProtocolError"]);
    expect(causesSending(1008)).toEqual([
      "upstreamRejected",
      "rateLimited",
      "slowConsumer",
      "unauthorized",
      "forbidden",
      "authExpired",
    ]);
    expect(causesSending(1009)).toEqual(["messageTooBig"]);
    expect(causesSending(1011)).toEqual(["internalError"]);
    expect(causesSending(1012)).toEqual(["draining", "backendDraining", "maxAge", "adminClosed"]);
    expect(causesSending(1013)).toEqual([
      "upstreamUnreachable",
      "upstreamRejected",
      "noBackend",
      "capacity",
      "retryExhausted",
    ]);
    expect(causesSending(1014)).toEqual([
      "upstreamLost",
      "upstreamUnresponsive",
      "upstreamRejected",
      "upstreamProtocolError",
    ]);
  });

  it("reads it for the upstream's leg too", () => {
    expect(causesSending(1002, "upstream")).toEqual(["upstreamProtocolError"]);
    expect(causesSending(1009, "upstream")).toEqual(["messageTooBig"]);
    expect(causesSending(1011, "upstream")).toEqual(["internalError"]);
    expect(causesSending(1001, "upstream")).toContain("clientLost");
  });

  it("finds every cause that makes a Close, and none for a code that is only passed on", () => {
    const found = new Set(
      ALL.flatMap((code) => [...causesSending(code), ...causesSending(code, "upstream")]),
    );
    expect(CAUSES.filter((cause) => !found.has(cause))).toEqual(["clientClosed", "upstreamClosed"]);
    for (const code of [1000, 1003, 1004, 1005, 1006, 1007, 1010, 1015, 3000, 4000]) {
      expect(causesSending(code)).toEqual([]);
    }
  });
});

describe("explainShort", () => {
  it("says one or two sentences about any number", () => {
    expect(explainShort(1006)).toContain("without a Close frame");
    expect(explainShort(4321)).toContain("application");
    expect(explainShort(999)).toBe("999 is not an assigned close code; nothing may send it.");
  });
});

describe("comparisons", () => {
  it("exist for every pair of assigned codes, the same in either order", () => {
    const codes = CODES.map(({ first, last }) => (first === 3000 && last === 3999 ? 3001 : first));
    for (const first of codes) {
      for (const second of codes) {
        const comparison = compareCodes(first, second);
        expect(comparison?.differ.length).toBeGreaterThan(20);
        expect(comparison?.use.length).toBeGreaterThan(20);
        expect(comparison).toEqual(compareCodes(second, first));
      }
    }
    expect(compareCodes(1000, 999)).toBeNull();
  });

  it("are made from the registry where nobody wrote one", () => {
    expect(compareCodes(1008, 4000)).toEqual({
      differ:
        "Connecting again: after 1008 it is of no use until something has changed; after 4000 it is up to the application that sent it. Who can act: with 1008 the client; with 4000 the authors of the application.",
      use: "Send 1008 when a rule of yours was broken, and no code of its own says it better (1003, 1009, 3000, 3003). Send 4000 for whatever your own client and server agree on.",
    });
    expect(compareCodes(1009, 1015)?.differ).toContain(
      "1009 is said by the other end, in a Close frame; 1015 never is on the wire",
    );
    expect(compareCodes(1004, 1015)?.differ).toContain("Neither is ever on the wire.");
  });
});

describe("the idle limits", () => {
  it("are all above the default heartbeat of 25 s", () => {
    const units: Record<string, number> = { s: 1, min: 60 };
    for (const { limit } of IDLE_LIMITS) {
      const [, amount, unit] = /^(\d+) (s|min)$/.exec(limit) ?? [];
      const seconds = amount && unit ? Number(amount) * (units[unit] ?? 0) : Infinity;
      expect(seconds).toBeGreaterThan(25);
    }
  });
});
