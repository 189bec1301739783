/** The session's state machine: each transition by hand, and what holds for every sequence of events. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { CAUSES, type Cause } from "../../../src/close/causes.ts";
import {
  isSilent,
  type SessionEffect,
  type SessionEvent,
  type SessionState,
  transition,
} from "../../../src/session/session-state.ts";

/** An effect in one word or two: `echo client`. */
function brief(effect: SessionEffect): string {
  switch (effect.do) {
    case "settle":
      return `settle ${effect.cause}`;
    case "passOn":
      return `passOn ${effect.from}`;
    case "echo":
      return `echo ${effect.to}`;
    case "discardFrom":
    case "destroySoon":
    case "destroy":
      return `${effect.do} ${effect.side}`;
    case "closeBoth":
    case "startDeadline":
    case "hold":
    case "leaveUpstream":
    case "finish":
      return effect.do;
  }
}

const DISCARD = ["discardFrom client", "discardFrom upstream"];
const FROM_CLIENT: SessionEvent = { type: "closeReceived", side: "client" };
const FROM_UPSTREAM: SessionEvent = { type: "closeReceived", side: "upstream" };
const CLIENT_ENDED: SessionEvent = { type: "ended", side: "client" };
const UPSTREAM_ENDED: SessionEvent = { type: "ended", side: "upstream" };
const DEADLINE: SessionEvent = { type: "deadline" };
const SOCKETS_CLOSED: SessionEvent = { type: "socketsClosed" };
const VERDICT: SessionEvent = { type: "verdict", cause: "idle" };
const UPSTREAM_LOST: SessionEvent = { type: "upstreamLost" };
const RESUMED: SessionEvent = { type: "resumed" };

describe("every event in every state", () => {
  const STATES = ["open", "retrying", "awaitingUpstream", "closing", "closed"] as const;
  /** The state after each event, in the order of STATES. */
  const NEXT = new Map<SessionEvent, readonly SessionState[]>([
    [FROM_CLIENT, ["awaitingUpstream", "closing", "closing", "closing", "closed"]],
    [FROM_UPSTREAM, ["closing", "retrying", "closing", "closing", "closed"]],
    [CLIENT_ENDED, ["closing", "closing", "closing", "closing", "closed"]],
    [UPSTREAM_ENDED, ["closing", "retrying", "closing", "closing", "closed"]],
    ...CAUSES.map(
      (cause) =>
        [
          { type: "verdict", cause },
          ["closing", "closing", "closing", "closing", "closed"],
        ] as const,
    ),
    [DEADLINE, ["open", "retrying", "closing", "closing", "closed"]],
    [UPSTREAM_LOST, ["retrying", "retrying", "awaitingUpstream", "closing", "closed"]],
    [RESUMED, ["open", "open", "awaitingUpstream", "closing", "closed"]],
    [SOCKETS_CLOSED, ["closed", "closed", "closed", "closed", "closed"]],
  ]);
  const rows = Array.from(NEXT).flatMap(([event, states]) =>
    states.map((next, index) => ({ event, from: STATES[index] ?? "closed", next })),
  );
  const titled = rows.map((row) => [`${row.from}, ${label(row.event)}: ${row.next}`, row] as const);

  it.each(titled)("%s", (_title, { event, from, next }) => {
    expect(briefly(from, event).state).toBe(next);
  });
});

function label(event: SessionEvent): string {
  const { type, ...more } = event;
  return [type, ...Object.values(more)].join(" ");
}

describe("an open session", () => {
  it.each<[string, SessionEvent, SessionState, string[]]>([
    [
      "passes the client's Close on and waits for the upstream",
      FROM_CLIENT,
      "awaitingUpstream",
      ["settle clientClosed", "passOn client", "startDeadline"],
    ],
    [
      "echoes the upstream's Close at once and passes it on",
      FROM_UPSTREAM,
      "closing",
      ["settle upstreamClosed", "echo upstream", "passOn upstream", ...DISCARD, "startDeadline"],
    ],
    [
      "closes when the client is lost, without waiting for it",
      CLIENT_ENDED,
      "closing",
      ["settle clientLost", "closeBoth", ...DISCARD, "destroySoon client", "startDeadline"],
    ],
    [
      "closes when the upstream is lost, without waiting for it",
      UPSTREAM_ENDED,
      "closing",
      ["settle upstreamLost", "closeBoth", ...DISCARD, "destroySoon upstream", "startDeadline"],
    ],
    [
      "closes by a verdict and waits for both",
      VERDICT,
      "closing",
      ["settle idle", "closeBoth", ...DISCARD, "startDeadline"],
    ],
    [
      "does not wait for a client that answers no pings",
      { type: "verdict", cause: "clientUnresponsive" },
      "closing",
      ["settle clientUnresponsive", "closeBoth", ...DISCARD, "destroySoon client", "startDeadline"],
    ],
    [
      "does not wait for a client that takes nothing",
      { type: "verdict", cause: "slowConsumer" },
      "closing",
      ["settle slowConsumer", "closeBoth", ...DISCARD, "destroySoon client", "startDeadline"],
    ],
    [
      "does not wait for an upstream that answers no pings",
      { type: "verdict", cause: "upstreamUnresponsive" },
      "closing",
      [
        "settle upstreamUnresponsive",
        "closeBoth",
        ...DISCARD,
        "destroySoon upstream",
        "startDeadline",
      ],
    ],
    ["has no deadline", DEADLINE, "open", []],
    ["is over with its sockets", SOCKETS_CLOSED, "closed", ["finish"]],
  ])("%s", (_title, event, state, effects) => {
    expect(briefly("open", event)).toEqual({ state, effects });
  });
});

describe("a session that leaves its upstream for another one", () => {
  it.each<[string, SessionEvent, SessionState, string[]]>([
    ["goes on with what stands by after the upstream's Close", FROM_UPSTREAM, "retrying", ["hold"]],
    ["goes on with what stands by after the upstream's end", UPSTREAM_ENDED, "retrying", ["hold"]],
    ["goes on with what stands by at the deadline", DEADLINE, "retrying", ["hold"]],
    ["goes on with what stands by when it is told to", { type: "left" }, "retrying", ["hold"]],
    [
      "answers the client's Close itself",
      FROM_CLIENT,
      "closing",
      ["settle clientClosed", "echo client", ...DISCARD, "startDeadline"],
    ],
    [
      "closes when the client is lost",
      CLIENT_ENDED,
      "closing",
      ["settle clientLost", "closeBoth", ...DISCARD, "destroySoon client", "startDeadline"],
    ],
    [
      "closes after a verdict",
      VERDICT,
      "closing",
      ["settle idle", "closeBoth", ...DISCARD, "startDeadline"],
    ],
    ["does not leave twice", { type: "leave" }, "moving", []],
    ["is over with its sockets", SOCKETS_CLOSED, "closed", ["finish"]],
  ])("%s", (_title, event, state, effects) => {
    expect(briefly("moving", event)).toEqual({ state, effects });
  });

  it("begins with an open one", () => {
    const leaving = { state: "moving", effects: ["leaveUpstream", "startDeadline"] };
    expect(briefly("open", { type: "leave" })).toEqual(leaving);
    for (const state of ["retrying", "awaitingUpstream", "closing", "closed"] as const) {
      expect(briefly(state, { type: "leave" })).toEqual({ state, effects: [] });
    }
  });
});

describe("a session that looks for another upstream", () => {
  it.each<[string, SessionEvent, SessionState, string[]]>([
    [
      "answers the client's Close itself and dials no more",
      FROM_CLIENT,
      "closing",
      ["settle clientClosed", "echo client", ...DISCARD, "startDeadline"],
    ],
    [
      "dials no more when the client is lost",
      CLIENT_ENDED,
      "closing",
      ["settle clientLost", "closeBoth", ...DISCARD, "destroySoon client", "startDeadline"],
    ],
    [
      "dials no more after a verdict",
      VERDICT,
      "closing",
      ["settle idle", "closeBoth", ...DISCARD, "startDeadline"],
    ],
    ["has nothing to do with the end of the lost upstream", UPSTREAM_ENDED, "retrying", []],
    ["is not lost twice", { type: "upstreamLost" }, "retrying", []],
    ["has no deadline of the state machine's", DEADLINE, "retrying", []],
    ["is open again with a new upstream", { type: "resumed" }, "open", []],
    ["has nothing to do with a Close of the lost upstream", FROM_UPSTREAM, "retrying", []],
    ["is over with its sockets", SOCKETS_CLOSED, "closed", ["finish"]],
  ])("%s", (_title, event, state, effects) => {
    expect(briefly("retrying", event)).toEqual({ state, effects });
  });
});

describe("a session that waits for the upstream's Close", () => {
  const echoed = ["echo client", ...DISCARD, "startDeadline"];

  it.each<[string, SessionEvent, SessionState, string[]]>([
    ["echoes when it comes", FROM_UPSTREAM, "closing", echoed],
    [
      "echoes when the upstream ends instead",
      UPSTREAM_ENDED,
      "closing",
      ["destroySoon upstream", ...echoed],
    ],
    ["echoes at the deadline", DEADLINE, "closing", ["destroy upstream", ...echoed]],
    ["echoes by a verdict", VERDICT, "closing", ["destroy upstream", ...echoed]],
    [
      "echoes to a client that has ended its half, and waits for it no longer",
      CLIENT_ENDED,
      "closing",
      ["echo client", "destroySoon client", ...DISCARD, "startDeadline"],
    ],
    ["is over with its sockets", SOCKETS_CLOSED, "closed", ["finish"]],
  ])("%s", (_title, event, state, effects) => {
    expect(briefly("awaitingUpstream", event)).toEqual({ state, effects });
  });
});

describe("a closing session", () => {
  it.each<[string, SessionEvent, SessionState, string[]]>([
    ["leaves the client's answer to its leg", FROM_CLIENT, "closing", []],
    ["leaves the upstream's answer to its leg", FROM_UPSTREAM, "closing", []],
    ["keeps its cause whatever else bites", VERDICT, "closing", []],
    ["ends the client's socket with it", CLIENT_ENDED, "closing", ["destroySoon client"]],
    ["ends the upstream's socket with it", UPSTREAM_ENDED, "closing", ["destroySoon upstream"]],
    [
      "destroys what is left at the deadline",
      DEADLINE,
      "closing",
      ["destroy client", "destroy upstream"],
    ],
    ["is over with its sockets", SOCKETS_CLOSED, "closed", ["finish"]],
  ])("%s", (_title, event, state, effects) => {
    expect(briefly("closing", event)).toEqual({ state, effects });
  });
});

describe("every sequence of events", () => {
  const side = fc.constantFrom("client" as const, "upstream" as const);
  const anyEvent: fc.Arbitrary<SessionEvent> = fc.oneof(
    fc.record({ type: fc.constant("closeReceived" as const), side }),
    fc.record({ type: fc.constant("ended" as const), side }),
    fc.record({
      type: fc.constant("verdict" as const),
      cause: fc.constantFrom<Cause>(...CAUSES),
    }),
    fc.constant(DEADLINE),
    fc.constant(UPSTREAM_LOST),
    fc.constant(RESUMED),
    fc.constant(SOCKETS_CLOSED),
  );

  it("settles on one cause at most, before anything else happens", () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 12 }), (events) => {
        // Looking for another upstream may come first, and its end; neither is news to anybody.
        const all = run(events)
          .effects.flat()
          .filter((effect) => effect !== "hold");
        const settled = all.filter((effect) => effect.startsWith("settle"));
        expect(settled).toEqual(all.slice(0, 1).filter((effect) => effect !== "finish"));
      }),
    );
  });

  it("holds the client again only after a resume", () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 12 }), (events) => {
        let state: SessionState = "open";
        for (const event of events) {
          const next = transition(state, event);
          const effects = next.effects.map(brief);
          expect(effects.includes("hold")).toBe(state === "open" && next.state === "retrying");
          ({ state } = next);
        }
      }),
    );
  });

  it("gives each leg one occasion for a Close at most", () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 12 }), (events) => {
        const all = run(events).effects.flat();
        expect(count(all, "closeBoth", "passOn upstream", "echo client")).toBeLessThanOrEqual(1);
        expect(count(all, "closeBoth", "passOn client", "echo upstream")).toBeLessThanOrEqual(1);
      }),
    );
  });

  it("finishes once, with the sockets, and does nothing after that", () => {
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 12 }), (events) => {
        const { state, effects } = run([...events, SOCKETS_CLOSED]);
        expect(state).toBe("closed");
        const first = events.findIndex(({ type }) => type === "socketsClosed");
        const at = first === -1 ? events.length : first;
        expect(effects[at]).toEqual(["finish"]);
        expect(effects.slice(at + 1).flat()).toEqual([]);
        expect(count(effects.flat(), "finish")).toBe(1);
      }),
    );
  });

  it("never leaves an ending session without a deadline or unread legs", () => {
    const closing = [...DISCARD, "startDeadline"];
    fc.assert(
      fc.property(fc.array(anyEvent, { maxLength: 12 }), (events) => {
        const { state, effects } = run(events);
        const all = effects.flat();
        const needed = {
          open: [],
          moving: ["startDeadline"],
          retrying: [],
          awaitingUpstream: ["startDeadline"],
          closing,
          closed: ["finish"],
        };
        expect(needed[state].filter((effect) => !all.includes(effect))).toEqual([]);
      }),
    );
  });
});

it("knows which side is silent for which cause", () => {
  const silent = CAUSES.flatMap((cause) =>
    (["client", "upstream"] as const)
      .filter((side) => isSilent(side, cause))
      .map((side) => `${cause} ${side}`),
  );
  expect(silent).toEqual([
    "clientUnresponsive client",
    "upstreamUnresponsive upstream",
    "slowConsumer client",
  ]);
});

function briefly(from: SessionState, event: SessionEvent): { state: string; effects: string[] } {
  const { state, effects } = transition(from, event);
  return { state, effects: effects.map(brief) };
}

/** Effects of each event, until the session is closed and for all events behind it. */
function run(events: readonly SessionEvent[]): { state: SessionState; effects: string[][] } {
  let state: SessionState = "open";
  const effects: string[][] = [];
  for (const event of events) {
    const next = transition(state, event);
    state = next.state;
    effects.push(next.effects.map(brief));
  }
  return { state, effects };
}

function count(effects: readonly string[], ...wanted: readonly string[]): number {
  return effects.filter((effect) => wanted.includes(effect)).length;
}
