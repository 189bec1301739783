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
 *    │
 *    │ both sockets closed (at the latest destroyed by the deadline)
 *    ▼
 *   closed
 */
import type { Cause, Side } from "../close/causes.ts";

export type SessionState = "open" | "awaitingUpstream" | "closing" | "closed";

export type SessionEvent =
  /** A Close frame arrived. */
  | { readonly type: "closeReceived"; readonly side: Side }
  /** TCP ended or broke, or nothing more can be read, without a Close that was due. */
  | { readonly type: "ended"; readonly side: Side }
  /** A peer broke a rule, or the gateway ends the session. */
  | { readonly type: "verdict"; readonly cause: Cause }
  | { readonly type: "deadline" }
  /** The last socket has closed. */
  | { readonly type: "socketsClosed" };

export type SessionEffect =
  /** The session has its cause from here on. */
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
  | { readonly do: "finish" };

export interface Transition {
  readonly state: SessionState;
  readonly effects: readonly SessionEffect[];
}

export function transition(state: SessionState, event: SessionEvent): Transition {
  switch (state) {
    case "open":
      return fromOpen(event);
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
    case "socketsClosed":
      return { state: "closed", effects: [{ do: "finish" }] };
  }
}

function fromClosing(event: SessionEvent): Transition {
  switch (event.type) {
    case "closeReceived":
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
