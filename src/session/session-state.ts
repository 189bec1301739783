/**
 * The life of a session, as one pure function. I/O only carries out the effects; relayed frames never
 * pass through here.
 *
 *             Close from the client
 *   open ──────────────────────────────▶ awaitingUpstream   upstream data still reaches the client
 *    │                                        │
 *    │ Close from the upstream,               │ the upstream's Close or its end,
 *    │ a side lost, a rule broken,            │ or close.timeout: the client gets its echo
 *    │ a verdict of the gateway               │
 *    ▼                                        │
 *   closing ◀─────────────────────────────────┘   both legs have had their last frame
 *    ▲
 *    │ a Close from the client or its loss, retry gave up, a verdict
 *    │
 *   retrying ──────────────▶ open   with session retry: the upstream was lost and may be replaced
 *    ▲        a new upstream   │
 *    │                         │ another upstream stands by, and no message is under way
 *    │ the old upstream's      ▼
 *    └──────────────────── moving   the old upstream has been told; what it still sends is relayed
 *      Close, its end, or close.timeout
 *    │
 *    │ both sockets closed (at the latest destroyed by the deadline)
 *    ▼
 *   closed
 */
import type { Cause, Side } from "../close/causes.ts";

export type SessionState =
  | "open"
  | "moving"
  | "retrying"
  | "awaitingUpstream"
  | "closing"
  | "closed";

export type SessionEvent =
  /** A Close frame arrived. */
  | { readonly type: "closeReceived"; readonly side: Side }
  /** TCP ended or broke, or nothing more can be read, without a Close that was due. */
  | { readonly type: "ended"; readonly side: Side }
  /** A peer broke a rule, or the gateway ends the session. */
  | { readonly type: "verdict"; readonly cause: Cause }
  | { readonly type: "deadline" }
  /** The upstream is lost, and another one may take over. */
  | { readonly type: "upstreamLost" }
  | { readonly type: "resumed" }
  /** Another upstream stands by to take over. */
  | { readonly type: "leave" }
  /** Nothing more is waited for from the upstream that is being left. */
  | { readonly type: "left" }
  /** The last socket has closed. */
  | { readonly type: "socketsClosed" };

export type SessionEffect =
  /** The session has its cause from here on, and looks for no other upstream any more. */
  | { readonly do: "settle"; readonly cause: Cause }
  /** Pass the Close of this side on to the other. */
  | { readonly do: "passOn"; readonly from: Side }
  /** Answer the Close of this side with its own code. */
  | { readonly do: "echo"; readonly to: Side }
  /** Send both legs what the close policy has for the settled cause. */
  | { readonly do: "closeBoth" }
  /** From now on forward nothing in this direction; what still comes counts as dropped. */
  | { readonly do: "discardFrom"; readonly side: Side }
  /** Send what still waits, then close the socket; the peer's answer no longer matters. */
  | { readonly do: "destroySoon"; readonly side: Side }
  | { readonly do: "destroy"; readonly side: Side }
  | { readonly do: "startDeadline" }
  /** Take leave of the upstream; from now on keep what the client sends. */
  | { readonly do: "leaveUpstream" }
  /** Hold the client and find another upstream. */
  | { readonly do: "hold" }
  | { readonly do: "finish" };

export interface Transition {
  readonly state: SessionState;
  readonly effects: readonly SessionEffect[];
}

export function transition(state: SessionState, event: SessionEvent): Transition {
  switch (state) {
    case "open":
      return fromOpen(event);
    case "moving":
      return fromMoving(event);
    case "retrying":
      return fromRetrying(event);
    case "awaitingUpstream":
      return fromAwaitingUpstream(event);
    case "closing":
      return fromClosing(event);
    case "closed":
      return { state, effects: [] };
  }
}

/** Both legs are read on, or their Close and TCP end would never be seen. */
const DISCARD_BOTH: readonly SessionEffect[] = [
  { do: "discardFrom", side: "client" },
  { do: "discardFrom", side: "upstream" },
];

function fromOpen(event: SessionEvent): Transition {
  switch (event.type) {
    case "closeReceived":
      if (event.side === "client") {
        return {
          state: "awaitingUpstream",
          effects: [
            { do: "settle", cause: "clientClosed" },
            { do: "passOn", from: "client" },
            { do: "startDeadline" },
          ],
        };
      }
      return {
        state: "closing",
        effects: [
          { do: "settle", cause: "upstreamClosed" },
          { do: "echo", to: "upstream" },
          { do: "passOn", from: "upstream" },
          ...DISCARD_BOTH,
          { do: "startDeadline" },
        ],
      };
    case "ended":
      return closingBy(event.side === "client" ? "clientLost" : "upstreamLost", event.side);
    case "verdict":
      return closingBy(event.cause, SILENT_SIDE.get(event.cause) ?? null);
    case "upstreamLost":
      return { state: "retrying", effects: [{ do: "hold" }] };
    case "leave":
      return { state: "moving", effects: [{ do: "leaveUpstream" }, { do: "startDeadline" }] };
    case "resumed":
    case "left":
    case "deadline":
      return { state: "open", effects: [] };
    case "socketsClosed":
      return { state: "closed", effects: [{ do: "finish" }] };
  }
}

/** Whose answer is not waited for: it has shown that it does not answer. */
export function isSilent(side: Side, cause: Cause): boolean {
  return SILENT_SIDE.get(cause) === side;
}

const SILENT_SIDE: ReadonlyMap<Cause, Side> = new Map<Cause, Side>([
  ["clientUnresponsive", "client"],
  ["slowConsumer", "client"],
  ["upstreamUnresponsive", "upstream"],
]);

function closingBy(cause: Cause, silent: Side | null): Transition {
  return {
    state: "closing",
    effects: [
      { do: "settle", cause },
      { do: "closeBoth" },
      ...DISCARD_BOTH,
      ...(silent === null ? [] : [{ do: "destroySoon", side: silent } as const]),
      { do: "startDeadline" },
    ],
  };
}

function fromMoving(event: SessionEvent): Transition {
  switch (event.type) {
    case "closeReceived":
      return event.side === "client" ? CLIENT_CLOSED : LEFT;
    case "ended":
      return event.side === "client" ? closingBy("clientLost", "client") : LEFT;
    case "deadline":
    case "left":
    case "upstreamLost":
      return LEFT;
    case "verdict":
      return closingBy(event.cause, SILENT_SIDE.get(event.cause) ?? null);
    case "leave":
    case "resumed":
      return { state: "moving", effects: [] };
    case "socketsClosed":
      return { state: "closed", effects: [{ do: "finish" }] };
  }
}

/** The client has closed while there is no upstream that could be told. */
const CLIENT_CLOSED: Transition = {
  state: "closing",
  effects: [
    { do: "settle", cause: "clientClosed" },
    { do: "echo", to: "client" },
    ...DISCARD_BOTH,
    { do: "startDeadline" },
  ],
};

/** The next upstream stands by, so that this does not last. */
const LEFT: Transition = { state: "retrying", effects: [{ do: "hold" }] };

function fromRetrying(event: SessionEvent): Transition {
  switch (event.type) {
    case "closeReceived":
      // As with `ended`: an upstream that is given up has no say.
      return event.side === "client" ? CLIENT_CLOSED : { state: "retrying", effects: [] };
    case "ended":
      // A lost upstream is not the session's any more; only the client can end here.
      return event.side === "upstream"
        ? { state: "retrying", effects: [] }
        : closingBy("clientLost", "client");
    case "verdict":
      return closingBy(event.cause, SILENT_SIDE.get(event.cause) ?? null);
    case "resumed":
      return { state: "open", effects: [] };
    case "upstreamLost":
    case "leave":
    case "left":
    case "deadline":
      return { state: "retrying", effects: [] };
    case "socketsClosed":
      return { state: "closed", effects: [{ do: "finish" }] };
  }
}

function fromAwaitingUpstream(event: SessionEvent): Transition {
  switch (event.type) {
    case "closeReceived":
      return {
        state: "closing",
        effects: [{ do: "echo", to: "client" }, ...DISCARD_BOTH, { do: "startDeadline" }],
      };
    case "ended":
      if (event.side === "client") {
        return {
          state: "closing",
          effects: [
            // One that has only ended its own half still reads.
            { do: "echo", to: "client" },
            { do: "destroySoon", side: "client" },
            ...DISCARD_BOTH,
            { do: "startDeadline" },
          ],
        };
      }
      return {
        state: "closing",
        effects: [
          { do: "destroySoon", side: "upstream" },
          { do: "echo", to: "client" },
          ...DISCARD_BOTH,
          { do: "startDeadline" },
        ],
      };
    case "verdict":
    case "deadline":
      // The cause stands: the client has closed. Whatever else bites only ends the waiting.
      return {
        state: "closing",
        effects: [
          { do: "destroy", side: "upstream" },
          { do: "echo", to: "client" },
          ...DISCARD_BOTH,
          { do: "startDeadline" },
        ],
      };
    case "upstreamLost":
    case "leave":
    case "left":
    case "resumed":
      return { state: "awaitingUpstream", effects: [] };
    case "socketsClosed":
      return { state: "closed", effects: [{ do: "finish" }] };
  }
}

function fromClosing(event: SessionEvent): Transition {
  switch (event.type) {
    case "closeReceived":
    case "upstreamLost":
    case "leave":
    case "left":
    case "resumed":
    case "verdict":
      // The answer to our Close is the leg's own affair; a second verdict changes nothing.
      return { state: "closing", effects: [] };
    case "ended":
      return { state: "closing", effects: [{ do: "destroySoon", side: event.side }] };
    case "deadline":
      return {
        state: "closing",
        effects: [
          { do: "destroy", side: "client" },
          { do: "destroy", side: "upstream" },
        ],
      };
    case "socketsClosed":
      return { state: "closed", effects: [{ do: "finish" }] };
  }
}
