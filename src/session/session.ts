/**
 * A session: one client leg, one upstream leg, a relay in each direction. Carries out what
 * `session-state.ts` decides, watches heartbeats and limits on the wheel's turns, and writes the record
 * at the end. The data path (`legRead` to `Leg.write`) goes past the state machine.
 */
import type { Cause, Close, Side } from "../close/causes.ts";
import { type CloseDetail, closesFor, passToClient, passToUpstream } from "../close/policy.ts";
import { makeFrame, OPCODE_PING, OPCODE_TEXT } from "../wire/frame.ts";
import { type Direction, FrameRelay, type RelaySink, type Violation } from "../wire/relay.ts";
import type { Slab } from "../wire/slab.ts";
import { ClosingDeadline } from "./closing-deadline.ts";
import type { Heartbeat } from "./heartbeat.ts";
import { Leg, type LegOwner } from "./leg.ts";
import { MessageRate } from "./message-rate.ts";
import type { BothWays, SessionRecord } from "./record.ts";
import type { SessionContext, SessionParts } from "./session-parts.ts";
import {
  type SessionEffect,
  type SessionEvent,
  type SessionState,
  transition,
} from "./session-state.ts";
import { Watch } from "./watch.ts";
import type { WheelEntry } from "./wheel.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** How soon after the last byte has left the memory that it lay in is given back. */
const UNPIN_CHECK_MS = 500;

export class Session implements LegOwner, WheelEntry {
  readonly id: string;
  readonly startedAt: number;
  readonly #parts: SessionParts;
  readonly #context: SessionContext;
  readonly #client: Leg;
  readonly #upstream: Leg;
  readonly #clientToUpstream: FrameRelay;
  readonly #upstreamToClient: FrameRelay;
  readonly #watch: Watch;
  readonly #deadline: ClosingDeadline;

  #state: SessionState = "open";
  #cause: Cause = "internalError";
  #detail: CloseDetail = {};
  /** For the record: which rule or error it was. */
  #endDetail = "";
  #endedAtMs = 0;
  #clientClose: Close | null = null;
  #upstreamClose: Close | null = null;
  #reported: { messages: BothWays; bytes: BothWays } = { messages: NOTHING, bytes: NOTHING };

  constructor(parts: SessionParts, context: SessionContext) {
    const { route } = parts;
    const { clock, random, highWaterMarkBytes } = context;
    const now = clock.now();
    this.id = parts.id;
    this.startedAt = parts.startedAt;
    this.#parts = parts;
    this.#context = context;
    this.#client = new Leg("client", parts.client, this, highWaterMarkBytes, clock);
    this.#upstream = new Leg("upstream", parts.upstream, this, highWaterMarkBytes, clock);
    this.#clientToUpstream = this.#relay("clientToUpstream");
    this.#upstreamToClient = this.#relay("upstreamToClient");
    this.#watch = new Watch(this.#client, this.#upstream, route, now, random);
    this.#deadline = new ClosingDeadline(this.#client, route);
  }

  get route(): string {
    return this.#parts.route.name;
  }

  get backend(): string {
    return this.#parts.backend;
  }

  get clientIp(): string {
    return this.#parts.clientIp;
  }

  get subprotocol(): string {
    return this.#parts.subprotocol;
  }

  get state(): SessionState {
    return this.#state;
  }

  get messages(): BothWays {
    return {
      clientToUpstream: this.#clientToUpstream.messages,
      upstreamToClient: this.#upstreamToClient.messages,
    };
  }

  get bytes(): BothWays {
    return {
      clientToUpstream: this.#clientToUpstream.bytes,
      upstreamToClient: this.#upstreamToClient.bytes,
    };
  }

  /** Since the last byte from either side. */
  get idleMs(): number {
    return this.#context.clock.now() - Math.max(this.#client.lastReadAt, this.#upstream.lastReadAt);
  }

  /** Begins to relay, with the bytes that came before both legs were ready. */
  start(earlyFromClient: Buffer, earlyFromUpstream: Buffer): void {
    this.#context.observer.sessionOpened(this.route);
    this.#context.wheel.schedule(this, this.#nextCheck());
    if (earlyFromClient.length > 0) this.legRead(this.#client, earlyFromClient);
    if (earlyFromUpstream.length > 0) this.legRead(this.#upstream, earlyFromUpstream);
    // A leg that the early bytes have blocked keeps the other one paused.
    if (!this.#upstream.blocked) this.#parts.client.socket.resume();
    if (!this.#client.blocked) this.#parts.upstream.socket.resume();
  }

  /** Ends the session with a cause of the gateway's own. Does nothing if it is ending already. */
  end(cause: Cause, detail: CloseDetail = {}): void {
    if (this.#state !== "open") return;
    this.#detail = detail;
    this.#dispatch({ type: "verdict", cause });
  }

  /** Ends the session because the gateway shuts down, with a time at which to come back. */
  drain(): void {
    if (this.#state !== "open") return;
    const { retryAfter, clock } = this.#context;
    const retryAfterS = retryAfter.turnAway(this.#parts.route.retryAfter, clock.now());
    this.end("draining", { retryAfterS });
  }

  /** Closes both sockets at once, whatever is still on the way. */
  destroy(): void {
    this.#client.destroy();
    this.#upstream.destroy();
  }

  /** Hands the traffic since the last call to the observer. */
  reportTraffic(): void {
    const { messages, bytes } = this;
    const before = this.#reported;
    this.#reported = { messages, bytes };
    this.#context.observer.relayed(
      this.route,
      difference(messages, before.messages),
      difference(bytes, before.bytes),
    );
  }

  legRead(leg: Leg, chunk: Buffer): Leg | null {
    const fromClient = leg === this.#client;
    try {
      (fromClient ? this.#clientToUpstream : this.#upstreamToClient).push(chunk);
    } catch (error) {
      this.#bug(error);
    }
    // The relay copies what it holds; what the kernel has not taken yet still lies in the chunk.
    const to = fromClient ? this.#upstream : this.#client;
    if (to.waitingBytes === 0) return null;
    // What the chunk lies in is pinned after this.
    const now = this.#context.clock.now();
    this.#context.wheel.schedule(this, Math.min(this.#nextDue(), now + UNPIN_CHECK_MS));
    return to;
  }

  legBlocked(leg: Leg): void {
    if (this.#state === "closing" || this.#state === "closed") return;
    const other = this.#other(leg);
    const now = this.#context.clock.now();
    other.pause();
    this.#heartbeat(other).standStill(now);
    // A ping to a client that takes nothing cannot arrive; limits.slowConsumerTimeout judges it.
    if (leg === this.#client) this.#watch.clientHeartbeat.standStill(now);
    this.#context.wheel.schedule(this, this.#nextCheck());
  }

  legDrained(leg: Leg): void {
    const other = this.#other(leg);
    const now = this.#context.clock.now();
    other.resume();
    if (leg === this.#client) this.#watch.upstreamHeartbeat.goOn(now);
    // The client's stands still as long as either leg is blocked: it is not read, or not reached.
    if (!other.blocked) this.#watch.clientHeartbeat.goOn(now);
  }

  legEnded(leg: Leg, detail: string): void {
    if (this.#state === "open") this.#endDetail = detail;
    this.#dispatch({ type: "ended", side: leg.side });
  }

  legGone(leg: Leg): void {
    if (leg === this.#upstream) this.#parts.releaseSlot();
    // Destroyed from outside, without an event before: the other side has to learn of it.
    this.#dispatch({ type: "ended", side: leg.side });
    if (this.#client.state === "gone" && this.#upstream.state === "gone") {
      this.#dispatch({ type: "socketsClosed" });
    }
  }

  /** The wheel's turn. */
  check(now: number): number {
    try {
      this.#client.unpinIfSent();
      this.#upstream.unpinIfSent();
      if (this.#state === "open") this.#look(now);
      if (now >= this.#deadline.at) this.#deadlineReached(now);
    } catch (error) {
      this.#bug(error);
    }
    return this.#nextCheck();
  }

  /** For the relays: the other side's bytes have moved this session on. */
  relayed(at: number): void {
    this.#watch.relayedAt = at;
  }

  closeReceived(leg: Leg, close: Close): void {
    this.#context.observer.closeFrame(leg.side, "received", close.code);
    leg.closeReceived(close);
    if (leg === this.#client) this.#clientClose = close;
    else this.#upstreamClose = close;
    this.#dispatch({ type: "closeReceived", side: leg.side });
  }

  violated(leg: Leg, violation: Violation): void {
    // Nothing after a violation can be read; in a closing session that is the end of this leg's part.
    if (this.#state !== "open") {
      this.#dispatch({ type: "ended", side: leg.side });
      return;
    }
    this.#endDetail = violation.detail;
    // Which rule was broken is news to the peer; a limit is named by the default reasons.
    const reason = violation.kind === "protocol" ? { reason: violation.detail } : {};
    this.end(causeOf(violation, leg.side), { offender: leg.side, ...reason });
    leg.readNoMore();
  }

  pongReceived(leg: Leg, payload: Buffer): boolean {
    if (!this.#context.pingMark.matches(payload)) return false;
    const rttMs = this.#heartbeat(leg).ponged(this.#context.clock.now());
    if (rttMs !== null) this.#context.observer.heartbeatRtt(leg.side, rttMs / 1000);
    return true;
  }

  #dispatch(event: SessionEvent): void {
    const { state, effects } = transition(this.#state, event);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: SessionEffect): void {
    switch (effect.do) {
      case "settle":
        this.#cause = effect.cause;
        this.#endedAtMs = this.#context.clock.now();
        break;
      case "passOn":
        if (effect.from === "client") {
          this.#sendClose(this.#upstream, passToUpstream(this.#clientClose ?? EMPTY_CLOSE));
        } else {
          const { close } = this.#parts.route;
          this.#sendClose(this.#client, passToClient(this.#upstreamClose ?? EMPTY_CLOSE, close));
        }
        break;
      case "echo":
        if (effect.to === "client") this.#sendClose(this.#client, this.#clientClose ?? EMPTY_CLOSE);
        else this.#sendClose(this.#upstream, this.#upstreamClose ?? EMPTY_CLOSE);
        break;
      case "closeBoth": {
        const closes = closesFor(this.#cause, this.#parts.route.close, this.#detail);
        if (closes.client !== null) this.#sendClose(this.#client, closes.client);
        if (closes.upstream !== null) this.#sendClose(this.#upstream, closes.upstream);
        break;
      }
      case "discardFrom":
        this.#discardFrom(effect.side === "client" ? this.#client : this.#upstream);
        break;
      case "destroySoon":
        (effect.side === "client" ? this.#client : this.#upstream).destroySoon();
        break;
      case "destroy":
        (effect.side === "client" ? this.#client : this.#upstream).destroy();
        break;
      case "startDeadline":
        this.#deadline.start(this.#context.clock.now(), this.#cause);
        this.#context.wheel.schedule(this, this.#nextCheck());
        break;
      case "finish":
        this.#finish();
        break;
    }
  }

  #sendClose(leg: Leg, close: Close): void {
    if (leg.sendClose(close)) this.#context.observer.closeFrame(leg.side, "sent", close.code);
  }

  /** Goes on reading for the peer's Close and TCP end; unread bytes would turn our FIN into a reset. */
  #discardFrom(leg: Leg): void {
    (leg === this.#client ? this.#clientToUpstream : this.#upstreamToClient).discard();
    leg.resume();
  }

  #deadlineReached(now: number): void {
    if (this.#state === "closing" && !this.#deadline.isOver(now)) {
      this.#upstream.destroy();
      return;
    }
    this.#deadline.at = NEVER;
    this.#dispatch({ type: "deadline" });
  }

  #look(now: number): void {
    const due = this.#watch.due(now);
    if ("end" in due) {
      this.end(due.end);
      return;
    }
    if (due.pingClient) this.#ping(this.#client, now);
    if (due.pingUpstream) this.#ping(this.#upstream, now);
  }

  #ping(leg: Leg, now: number): void {
    const { payload, text } = this.#parts.route.heartbeat[leg.side];
    if (payload === "ping") {
      leg.write(makeFrame(OPCODE_PING, this.#context.pingMark.payload(), leg === this.#upstream));
    } else if (!this.#upstreamToClient.midMessage) {
      // Inside a fragmented message no other message may begin; its own bytes keep hops awake.
      leg.write(makeFrame(OPCODE_TEXT, Buffer.from(text), false));
    }
    this.#heartbeat(leg).pinged(now);
  }

  #nextCheck(): number {
    if (!this.#client.pins && !this.#upstream.pins) return this.#nextDue();
    return Math.min(this.#nextDue(), this.#context.clock.now() + UNPIN_CHECK_MS);
  }

  /** When a heartbeat, a limit or the deadline is due. */
  #nextDue(): number {
    switch (this.#state) {
      case "closed":
        return NEVER;
      case "open":
        return this.#watch.nextAt(this.#context.clock.now());
      case "awaitingUpstream":
      case "closing":
        return this.#deadline.at;
    }
  }

  #finish(): void {
    this.#context.wheel.remove(this);
    this.reportTraffic();
    this.#parts.onClosed(this, this.#record());
  }

  #record(): SessionRecord {
    const { id, route, backend, clientIp, subprotocol, dials, startedAt, startedAtMs } =
      this.#parts;
    const lastByteAt = Math.max(this.#client.lastReadAt, this.#upstream.lastReadAt);
    return {
      session: id,
      route: route.name,
      backend,
      clientIp,
      subprotocol,
      cause: this.#cause,
      detail: this.#endDetail,
      refused: false,
      client: { sent: this.#client.sentCode, received: this.#client.receivedCode },
      upstream: { sent: this.#upstream.sentCode, received: this.#upstream.receivedCode },
      startedAt,
      durationMs: Math.round(this.#endedAtMs - startedAtMs),
      idleMs: Math.round(Math.max(0, this.#endedAtMs - lastByteAt)),
      messages: this.messages,
      bytes: this.bytes,
      dropped: {
        clientToUpstream: this.#clientToUpstream.droppedMessages,
        upstreamToClient: this.#upstreamToClient.droppedMessages,
      },
      dials,
      resumes: 0,
    };
  }

  #bug(error: unknown): void {
    this.#context.onBug(error);
    if (this.#state === "open") this.end("internalError");
    else this.destroy();
  }

  #relay(direction: Direction): FrameRelay {
    const { deflate, route } = this.#parts;
    const { maxMessageBytes, messageRate, messageBurst } = route.limits;
    const fromClient = direction === "clientToUpstream";
    const [from, to] = fromClient ? [this.#client, this.#upstream] : [this.#upstream, this.#client];
    const limiter =
      fromClient && messageRate > 0
        ? new MessageRate(messageRate, messageBurst, this.#context.clock)
        : null;
    const { slabs } = this.#context;
    const options = { direction, deflate, maxMessageBytes, limiter, slabs };
    return new FrameRelay(options, new Forwarder(this, from, to));
  }

  #other(leg: Leg): Leg {
    return leg === this.#client ? this.#upstream : this.#client;
  }

  #heartbeat(leg: Leg): Heartbeat {
    return leg === this.#client ? this.#watch.clientHeartbeat : this.#watch.upstreamHeartbeat;
  }
}

/** One direction's output: frames to the other leg, everything else to the session. */
class Forwarder implements RelaySink {
  readonly #session: Session;
  readonly #from: Leg;
  readonly #to: Leg;

  constructor(session: Session, from: Leg, to: Leg) {
    this.#session = session;
    this.#from = from;
    this.#to = to;
  }

  forward(frames: Buffer, slab: Slab | null): void {
    this.#session.relayed(this.#from.lastReadAt);
    this.#to.write(frames, slab);
  }

  forwardFragment(header: Buffer, payload: Buffer, slab: Slab | null): void {
    this.#session.relayed(this.#from.lastReadAt);
    this.#to.writeInTwo(header, payload, slab);
  }

  takePong(payload: Buffer): boolean {
    return this.#session.pongReceived(this.#from, payload);
  }

  closeReceived(close: Close): void {
    this.#session.closeReceived(this.#from, close);
  }

  violated(violation: Violation): void {
    this.#session.violated(this.#from, violation);
  }
}

const NOTHING: BothWays = { clientToUpstream: 0, upstreamToClient: 0 };
const EMPTY_CLOSE: Close = { code: 1005, reason: "" };

function difference(now: BothWays, before: BothWays): BothWays {
  return {
    clientToUpstream: now.clientToUpstream - before.clientToUpstream,
    upstreamToClient: now.upstreamToClient - before.upstreamToClient,
  };
}

function causeOf(violation: Violation, offender: Side): Cause {
  switch (violation.kind) {
    case "protocol":
      return offender === "client" ? "clientProtocolError" : "upstreamProtocolError";
    case "messageTooBig":
      return "messageTooBig";
    case "rateLimited":
      return "rateLimited";
  }
}
