// The close policy: the contract's table row by row, every code that can exist, and reasons of any Unicode.
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CAUSES, type Cause, type Close, type Side } from "../../../src/close/causes.ts";
import {
  type CloseDetail,
  type ClosePolicy,
  closesFor,
  cutReason,
  httpStatusFor,
  mayOverride,
  mayTranslate,
  passToClient,
  passToUpstream,
} from "../../../src/close/policy.ts";

const PLAIN = policy({});
const LEGACY = policy({ legacyCodes: true });

function policy(parts: Partial<ClosePolicy>): ClosePolicy {
  return { legacyCodes: false, causes: new Map(), translate: new Map(), ...parts };
}

/** Written out here once more, on purpose, so that the test does not borrow the code's own opinion. */
function legalOnTheWire(code: number): boolean {
  return (
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].includes(code) ||
    (code >= 3000 && code <= 4999)
  );
}

/** What is wrong with a Close that is about to be sent; nothing, if all is well. */
function flaws(close: Close | null): string[] {
  if (close === null) return [];
  const found: string[] = [];
  if (close.code !== 1005 && !legalOnTheWire(close.code)) found.push(`code ${close.code}`);
  if (close.code === 1005 && close.reason !== "") found.push("a reason without a code");
  if (!isWellCut(close.reason)) found.push(`reason ${JSON.stringify(close.reason)}`);
  return found;
}

type Row = [Cause, CloseDetail, client: Close | null, upstream: Close | null];

function c(code: number, reason: string): Close {
  return { code, reason };
}

const TABLE: Row[] = [
  ["clientClosed", {}, null, null],
  ["upstreamClosed", {}, null, null],
  ["clientLost", {}, null, c(1001, "client connection lost")],
  ["clientUnresponsive", {}, c(1001, "no pong in time"), c(1001, "client sent no pong in time")],
  ["upstreamLost", {}, c(1014, "upstream connection lost"), null],
  [
    "upstreamUnresponsive",
    {},
    c(1014, "upstream sent no pong in time"),
    c(1001, "no pong in time"),
  ],
  ["upstreamUnreachable", {}, c(1013, "upstream is unreachable"), null],
  ["upstreamRejected", { status: 400 }, c(1008, "upstream answered 400"), null],
  ["upstreamRejected", { status: 401 }, c(1008, "upstream answered 401"), null],
  ["upstreamRejected", { status: 403 }, c(1008, "upstream answered 403"), null],
  ["upstreamRejected", { status: 426 }, c(1008, "upstream answered 426"), null],
  ["upstreamRejected", { status: 429 }, c(1013, "upstream answered 429"), null],
  ["upstreamRejected", { status: 503 }, c(1013, "upstream answered 503"), null],
  ["upstreamRejected", { status: 200 }, c(1014, "upstream answered 200"), null],
  ["upstreamRejected", { status: 302 }, c(1014, "upstream answered 302"), null],
  ["upstreamRejected", { status: 500 }, c(1014, "upstream answered 500"), null],
  ["upstreamRejected", { status: null }, c(1014, "upstream did not answer with a valid 101"), null],
  ["upstreamRejected", {}, c(1014, "upstream did not answer with a valid 101"), null],
  ["noBackend", {}, c(1013, "no backend is available"), null],
  ["capacity", {}, c(1013, "at capacity"), null],
  ["retryExhausted", {}, c(1013, "upstream did not come back"), null],
  ["draining", {}, c(1012, "gateway is shutting down"), c(1001, "gateway is shutting down")],
  ["backendDraining", {}, c(1012, "backend is being drained"), c(1001, "backend is being drained")],
  ["clientProtocolError", {}, c(1002, "protocol error"), c(1001, "client broke the protocol")],
  ["upstreamProtocolError", {}, c(1014, "upstream broke the protocol"), c(1002, "protocol error")],
  [
    "messageTooBig",
    { offender: "client" },
    c(1009, "message is too big"),
    c(1001, "client sent a message that is too big"),
  ],
  [
    "messageTooBig",
    { offender: "upstream" },
    c(1009, "message is too big"),
    c(1009, "message is too big"),
  ],
  ["rateLimited", {}, c(1008, "too many messages"), c(1001, "client sent too many messages")],
  ["slowConsumer", {}, c(1008, "takes data too slowly"), c(1001, "client takes data too slowly")],
  ["idle", {}, c(1001, "idle for too long"), c(1001, "idle for too long")],
  [
    "maxAge",
    {},
    c(1012, "maximum connection age reached"),
    c(1001, "maximum connection age reached"),
  ],
  ["unauthorized", {}, c(1008, "not authenticated"), null],
  ["forbidden", {}, c(1008, "not allowed"), null],
  [
    "authExpired",
    {},
    c(1008, "authentication has expired"),
    c(1001, "client's authentication has expired"),
  ],
  ["adminClosed", {}, c(1012, "closed by an administrator"), c(1001, "closed by an administrator")],
  [
    "internalError",
    {},
    c(1011, "internal error in the gateway"),
    c(1011, "internal error in the gateway"),
  ],
];

const ORDERLY: Cause[] = ["draining", "backendDraining", "idle", "maxAge", "adminClosed"];
const WITH_RETRY_AFTER: Cause[] = [
  "capacity",
  "noBackend",
  "upstreamUnreachable",
  "retryExhausted",
  "draining",
];

describe("the default close table", () => {
  it("has a row for every cause", () => {
    expect(new Set(TABLE.map(([cause]) => cause))).toEqual(new Set(CAUSES));
  });

  it.each(TABLE)(
    "closes %s %j with %j towards the client and %j towards the upstream",
    (cause, detail, client, upstream) => {
      expect(closesFor(cause, PLAIN, detail)).toEqual({ client, upstream });
    },
  );

  it("keeps its default reasons short and without a semicolon, which sets off retry-after", () => {
    for (const [, , ...closes] of TABLE) {
      for (const close of closes) {
        if (close === null) continue;
        expect(close.reason).not.toContain(";");
        expect(close.reason.length).toBeLessThanOrEqual(48);
      }
    }
  });
});

describe("a detail's reason", () => {
  it("replaces the default reason on both legs", () => {
    expect(closesFor("adminClosed", PLAIN, { reason: "moved to cluster b" })).toEqual({
      client: c(1012, "moved to cluster b"),
      upstream: c(1001, "moved to cluster b"),
    });
  });

  it("tells the leg that is not to blame for a protocol error who is", () => {
    expect(closesFor("clientProtocolError", PLAIN, { reason: "reserved opcode 3" })).toEqual({
      client: c(1002, "reserved opcode 3"),
      upstream: c(1001, "client broke the protocol: reserved opcode 3"),
    });
    expect(closesFor("upstreamProtocolError", PLAIN, { reason: "masked frame" })).toEqual({
      client: c(1014, "upstream broke the protocol: masked frame"),
      upstream: c(1002, "masked frame"),
    });
  });

  it("gives way to the operator's reason towards the client", () => {
    const configured = policy({ causes: new Map([["adminClosed", { reason: "back at noon" }]]) });
    expect(closesFor("adminClosed", configured, { reason: "moved" })).toEqual({
      client: c(1012, "back at noon"),
      upstream: c(1001, "moved"),
    });
  });
});

describe("close.causes", () => {
  it("replaces the code, the reason or both", () => {
    expect(overridden({ code: 1012 }).client).toEqual(c(1012, "upstream connection lost"));
    expect(overridden({ reason: "gone" }).client).toEqual(c(1014, "gone"));
    expect(overridden({ code: 4001, reason: "" }).client).toEqual(c(4001, ""));
    expect(overridden({}).client).toEqual(c(1014, "upstream connection lost"));
  });

  it("means the upstream's Close where the client gets none", () => {
    const configured = policy({
      causes: new Map([["clientLost", { code: 4002, reason: "gone" }]]),
    });
    expect(closesFor("clientLost", configured, {})).toEqual({
      client: null,
      upstream: c(4002, "gone"),
    });
  });

  it("yields only legal codes, and no 1000 for an abnormal end, whatever code is configured", () => {
    const wrong: string[] = [];
    for (let code = 0; code <= 65535; code++) {
      const causes = new Map(CAUSES.map((cause) => [cause, { code }]));
      for (const [cause, detail] of TABLE) {
        const { client, upstream } = closesFor(cause, policy({ causes }), detail);
        for (const sent of [client?.code, upstream?.code]) {
          if (sent === undefined) continue;
          if (!legalOnTheWire(sent)) wrong.push(`${cause}: ${sent}`);
          if (sent === 1000 && !ORDERLY.includes(cause)) wrong.push(`${cause}: 1000`);
        }
      }
    }
    expect(wrong).toEqual([]);
  });

  it("is followed by the legacy codes, whatever code is configured", () => {
    const sent = new Set<number>();
    for (let code = 990; code <= 5010; code++) {
      const causes = new Map(CAUSES.map((cause) => [cause, { code }]));
      for (const [cause, detail] of TABLE) {
        const { client } = closesFor(cause, policy({ causes, legacyCodes: true }), detail);
        if (client !== null) sent.add(client.code);
      }
    }
    expect([...sent].filter((code) => !legalOnTheWire(code))).toEqual([]);
    expect([...sent].filter((code) => code >= 1012 && code <= 1014)).toEqual([]);
  });

  it("may call an orderly end 1000, but no other", () => {
    expect(CAUSES.filter((cause) => mayOverride(cause, 1000)).toSorted()).toEqual(
      ORDERLY.toSorted(),
    );
    expect(
      closesFor("idle", policy({ causes: new Map([["idle", { code: 1000 }]]) }), {}).client,
    ).toEqual(c(1000, "idle for too long"));
    expect(mayOverride("upstreamLost", 1012)).toBe(true);
    expect(mayOverride("upstreamLost", 1006)).toBe(false);
  });
});

describe("retry-after in a reason", () => {
  it.each(CAUSES)("is there for %s exactly when the contract says so", (cause) => {
    const { client, upstream } = closesFor(cause, PLAIN, { retryAfterS: 17, status: 503 });
    expect(client?.reason.endsWith("; retry-after=17") ?? false).toBe(
      WITH_RETRY_AFTER.includes(cause),
    );
    expect(upstream?.reason ?? "").not.toContain("retry-after");
  });

  it("is left out where no time was drawn", () => {
    expect(closesFor("capacity", PLAIN, {}).client?.reason).toBe("at capacity");
    expect(closesFor("capacity", PLAIN, { retryAfterS: Number.NaN }).client?.reason).toBe(
      "at capacity",
    );
  });

  it("stays when the operator sets code and reason, and with legacy codes", () => {
    const causes = new Map([["capacity", { code: 4008, reason: "full" }]] as const);
    expect(closesFor("capacity", policy({ causes }), { retryAfterS: 3 }).client).toEqual(
      c(4008, "full; retry-after=3"),
    );
    expect(closesFor("noBackend", LEGACY, { retryAfterS: 0 }).client).toEqual(
      c(1001, "no backend is available; retry-after=0"),
    );
  });

  it("survives the cut at 123 bytes, at any length of the words before it", () => {
    fc.assert(
      fc.property(anyReason(), fc.nat({ max: 100_000 }), (reason, seconds) => {
        const causes = new Map([["capacity", { reason }]] as const);
        const sent = closesFor("capacity", policy({ causes }), { retryAfterS: seconds }).client;
        const suffix = `; retry-after=${seconds}`;
        expect(sent?.reason.endsWith(suffix)).toBe(true);
        const words = sent?.reason.slice(0, -suffix.length) ?? "";
        expect(wellFormed(reason).startsWith(words)).toBe(true);
        expect(flaws(sent)).toEqual([]);
        expect(isFilled(words, wellFormed(reason), 123 - suffix.length)).toBe(true);
      }),
    );
  });
});

describe("a Close that is passed on", () => {
  it("is legal for every code, both ways, and never turns into 1000", () => {
    const wrong: string[] = [];
    for (let code = 0; code <= 65535; code++) {
      for (const passed of [
        passToClient(c(code, "why"), PLAIN),
        passToClient(c(code, "why"), LEGACY),
        passToUpstream(c(code, "why")),
      ]) {
        wrong.push(...flaws(passed));
        if (passed.code === 1000 && code !== 1000) wrong.push(`${code} became 1000`);
        if (passed.code === 1005 && code !== 1005) wrong.push(`${code} became empty`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it("is unchanged where it is legal", () => {
    for (let code = 0; code <= 65535; code++) {
      if (!legalOnTheWire(code)) continue;
      expect(passToClient(c(code, "wärum"), PLAIN)).toEqual(c(code, "wärum"));
      expect(passToUpstream(c(code, "wärum"))).toEqual(c(code, "wärum"));
    }
  });

  it("stays empty when it was empty, and carries no reason then", () => {
    expect(passToClient(c(1005, ""), PLAIN)).toEqual(c(1005, ""));
    expect(passToClient(c(1005, "smuggled"), LEGACY)).toEqual(c(1005, ""));
    expect(passToUpstream(c(1005, "smuggled"))).toEqual(c(1005, ""));
  });

  it("replaces a code that must not be sent by one that names the culprit", () => {
    for (const code of [
      0,
      999,
      1004,
      1006,
      1015,
      1016,
      2999,
      5000,
      65535,
      -1,
      1000.5,
      Number.NaN,
    ]) {
      expect(passToClient(c(code, "x"), PLAIN)).toEqual(
        c(1014, "upstream sent an illegal close code"),
      );
      expect(passToClient(c(code, "x"), LEGACY)).toEqual(
        c(1011, "upstream sent an illegal close code"),
      );
      expect(passToUpstream(c(code, "x"))).toEqual(c(1001, "client sent an illegal close code"));
    }
  });

  it("gets the client's code from close.translate and keeps its reason", () => {
    const translated = policy({
      translate: new Map([
        [1011, 1012],
        [1005, 1000],
        [4000, 1000],
      ]),
    });
    expect(passToClient(c(1011, "oops"), translated)).toEqual(c(1012, "oops"));
    expect(passToClient(c(1005, ""), translated)).toEqual(c(1000, ""));
    expect(passToClient(c(4000, "done"), translated)).toEqual(c(1000, "done"));
    expect(passToClient(c(1013, "busy"), translated)).toEqual(c(1013, "busy"));
  });

  it("is translated before the legacy codes apply", () => {
    const translate = new Map([
      [1011, 1012],
      [4001, 1014],
      [1013, 4013],
    ]);
    const both = policy({ legacyCodes: true, translate });
    expect(passToClient(c(1011, "oops"), both).code).toBe(1001);
    expect(passToClient(c(4001, "oops"), both).code).toBe(1011);
    expect(passToClient(c(1013, "oops"), both).code).toBe(4013);
    expect(passToClient(c(1012, "oops"), both).code).toBe(1001);
    expect(passToClient(c(1014, "oops"), both).code).toBe(1011);
  });

  it("ignores a translation to a code that must not be sent", () => {
    for (let to = 0; to <= 65535; to++) {
      if (legalOnTheWire(to)) continue;
      const translate = new Map([
        [1011, to],
        [1005, to],
      ]);
      expect(passToClient(c(1011, "oops"), policy({ translate }))).toEqual(c(1011, "oops"));
      expect(passToClient(c(1005, ""), policy({ translate }))).toEqual(c(1005, ""));
    }
  });

  it("never calls a failure 1000, even if it is translated to it", () => {
    for (const from of [1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]) {
      expect(mayTranslate(from, 1000)).toBe(false);
      expect(passToClient(c(from, "no"), policy({ translate: new Map([[from, 1000]]) })).code).toBe(
        from,
      );
    }
    for (const from of [1000, 1001, 1005, 3000, 4999]) expect(mayTranslate(from, 1000)).toBe(true);
    for (const from of [0, 1004, 1006, 1015, 2999, 5000])
      expect(mayTranslate(from, 1012)).toBe(false);
  });
});

describe("reasons of any Unicode", () => {
  it("are cut at 123 bytes on a code point, as a prefix, with nothing to spare", () => {
    fc.assert(
      fc.property(anyReason(), (reason) => {
        const kept = cutReason(reason);
        expect(isWellCut(kept)).toBe(true);
        expect(wellFormed(reason).startsWith(kept)).toBe(true);
        expect(isFilled(kept, wellFormed(reason), 123)).toBe(true);
        expect(cutReason(kept)).toBe(kept);
      }),
      { numRuns: 1000 },
    );
  });

  it.each(["a", "é", "€", "😀", "\ud800", "\udc00"])(
    "are cut right at each offset of %j",
    (character) => {
      for (let before = 110; before <= 125; before++) {
        const reason = "x".repeat(before) + character.repeat(5);
        expect(isWellCut(cutReason(reason))).toBe(true);
        expect(isFilled(cutReason(reason), wellFormed(reason), 123)).toBe(true);
      }
    },
  );

  it("respect a smaller limit, down to nothing", () => {
    expect(cutReason("häuser", 1)).toBe("h");
    expect(cutReason("häuser", 2)).toBe("h");
    expect(cutReason("häuser", 3)).toBe("hä");
    expect(cutReason("häuser", 0)).toBe("");
    expect(cutReason("häuser", -5)).toBe("");
  });

  it("are legal from every function that makes or passes a Close", () => {
    fc.assert(
      fc.property(
        anyReason(),
        anyReason(),
        fc.constantFrom(...CAUSES),
        fc.constantFrom<Side>("client", "upstream"),
        fc.integer({ min: 990, max: 5010 }),
        fc.boolean(),
        (reason, configured, cause, offender, code, legacyCodes) => {
          const causes = new Map([[cause, { code, reason: configured }]]);
          const any = policy({ legacyCodes, causes, translate: new Map([[code, 1012]]) });
          const made = [
            closesFor(cause, any, { offender, reason, retryAfterS: 60 }),
            closesFor(cause, policy({ legacyCodes }), { offender, reason }),
          ];
          const all = made.flatMap(({ client, upstream }) => [client, upstream]);
          all.push(passToClient(c(code, reason), any), passToUpstream(c(code, reason)));
          expect(all.flatMap(flaws)).toEqual([]);
        },
      ),
    );
  });
});

describe("the status of a refusal over HTTP", () => {
  it.each<[Cause, number | null, number]>([
    ["capacity", null, 503],
    ["noBackend", null, 503],
    ["draining", null, 503],
    ["retryExhausted", null, 503],
    ["upstreamUnreachable", null, 503],
    ["upstreamRejected", 401, 401],
    ["upstreamRejected", 403, 403],
    ["upstreamRejected", 404, 404],
    ["upstreamRejected", 429, 429],
    ["upstreamRejected", 503, 503],
    ["upstreamRejected", 302, 302],
    ["upstreamRejected", 200, 502],
    ["upstreamRejected", 101, 502],
    ["upstreamRejected", 100, 502],
    ["upstreamRejected", 999, 502],
    ["upstreamRejected", null, 502],
    ["unauthorized", null, 401],
    ["forbidden", null, 403],
    ["clientProtocolError", null, 400],
    ["upstreamProtocolError", null, 502],
    ["internalError", null, 500],
    ["idle", null, 500],
  ])("of %s (upstream: %j) is %i", (cause, status, expected) => {
    expect(httpStatusFor(cause, status)).toBe(expected);
  });
});

/** Any UTF-16, lone surrogates included; long enough to be cut, and wide characters are frequent. */
function anyReason(): fc.Arbitrary<string> {
  const unit = fc.oneof(
    fc.constantFrom("a", "é", "€", "😀", "\ud83d", "\ude00", "\0", "\uffff"),
    fc.string({ unit: "binary", minLength: 1, maxLength: 1 }),
    fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)),
  );
  return fc.array(unit, { maxLength: 150 }).map((units) => units.join(""));
}

/** What any UTF-8 encoder makes of a string: lone surrogates become U+FFFD. */
function wellFormed(reason: string): string {
  return Buffer.from(reason, "utf8").toString("utf8");
}

/** Short enough, and what a strict decoder reads is what was meant. */
function isWellCut(reason: string): boolean {
  const bytes = Buffer.from(reason, "utf8");
  return bytes.length <= 123 && bytes.toString("utf8") === reason;
}

/** The cut took no more than it had to: the next character would not have fitted. */
function isFilled(kept: string, whole: string, limit: number): boolean {
  const [next] = whole.slice(kept.length);
  return next === undefined || Buffer.byteLength(kept + next) > limit;
}

function overridden(override: { code?: number; reason?: string }) {
  return closesFor("upstreamLost", policy({ causes: new Map([["upstreamLost", override]]) }), {});
}
