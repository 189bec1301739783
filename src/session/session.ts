/**
 * A session: one client, one upstream, or with session retry several, one after the other. Carries out
 * what `session-state.ts` decides, has the wheel's turns, and writes the record at the end. What flows
 * through it is `flow.ts`, and goes past the state machine.
 */
import type { Cause, Close, Side } from "../close/causes.ts";
import { type CloseDetail, closesFor } from "../close/policy.ts";
import type { Backend } from "../upstream/backend.ts";
import type { Connected } from "../upstream/connect.ts";
import type { TrialOutcome } from "../upstream/ejection.ts";
import type { Violation } from "../wire/relay.ts";
import { ClosingDeadline } from "./closing-deadline.ts";
import { Ending } from "./ending.ts";
import { Flow, type FlowOwner, UNPIN_CHECK_MS } from "./flow.ts";
import type { Leg } from "./leg.ts";
import type { BothWays } from "./record.ts";
import { causeOf } from "./session-links.ts";
import type { SessionContext, SessionParts } from "./session-parts.ts";
import { recordOf } from "./session-record.ts";
import { type GaveUp, type Loss, type RetryHost, SessionRetry } from "./session-retry.ts";
import {
  type SessionEffect,
  type SessionEvent,
  type SessionState,
  transition,
} from "./session-state.ts";
import type { UpstreamLink } from "./upstream-link.ts";
import type { WheelEntry } from "./wheel.ts";

const NEVER = Number.POSITIVE_INFINITY;

export class Session implements FlowOwner, RetryHost, WheelEntry {
  readonly id: string;
  readonly startedAt: number;
  readonly route: string;
  readonly clientIp: string;
  readonly subprotocol: string;
  /** The last upstream's URL. */
  backend: string;
  readonly #parts: SessionParts;
  readonly #context: SessionContext;
  readonly #flow: Flow;
  readonly #retry: SessionRetry | null;
  readonly #ending: Ending;
  readonly #deadline: ClosingDeadline;
  #state: SessionState = "open";

  constructor(parts: SessionParts, context: SessionContext) {
    const { route, redial } = parts;
    this.id = parts.id;
    this.startedAt = parts.startedAt;
    this.route = route.name;
    this.clientIp = parts.clientIp;
    this.subprotocol = parts.subprotocol;
    this.backend = parts.upstream.slot.backend.url;
    this.#parts = parts;
    this.#context = context;
    this.#flow = new Flow(this, parts, context);
    this.#ending = new Ending(route.close);
    this.#deadline = new ClosingDeadline(this.#flow.client, route);
    const { session } = route.retry;
    const isRetried = session !== null && redial !== null;
    this.#retry = isRetried ? new SessionRetry(this, this.#flow, parts, session, redial) : null;
    this.#flow.retry = this.#retry;
  }

  get state(): SessionState {
    return this.#state;
  }

  get phase(): FlowOwner["phase"] {
    switch (this.#state) {
      case "open":
      case "moving":
      case "retrying":
        return "live";
      case "awaitingUpstream":
      case "closing":
      case "closed":
        return this.#state;
    }
  }

  get messages(): BothWays {
    return this.#flow.traffic.messages;
  }

  get bytes(): BothWays {
    return this.#flow.traffic.bytes;
  }

  /** The backend that serves it; null: it looks for one. */
  get served(): Backend | null {
    return this.#flow.link?.slot.backend ?? null;
  }

  /** Since the last byte from either side. */
  get idleMs(): number {
    return this.#context.clock.now() - this.#flow.lastReadAt;
  }

  /** Begins to relay, with the bytes that came before both legs were ready. */
  start(earlyFromClient: Buffer, earlyFromUpstream: Buffer): void {
    this.#context.observer.sessionOpened(this.route);
    this.wake();
    this.#flow.start(earlyFromClient, earlyFromUpstream);
  }

  /** Ends the session with a cause of the gateway's own. Does nothing if it is ending already. */
  end(cause: Cause, detail: CloseDetail = {}): void {
    if (this.phase !== "live") return;
    this.#ending.detail = detail;
    this.#dispatch({ type: "verdict", cause });
  }

  /** Ends the session because the gateway shuts down, with a time at which to come back. */
  drain(): void {
    if (this.phase === "live") this.end("draining", { retryAfterS: this.#retryAfterS() });
  }

  /** Leaves its backend: for another one where session retry allows it, else it ends. */
  move(): void {
    const { link } = this.#flow;
    if (this.#retry?.moves !== true) {
      this.end("backendDraining");
    } else if (this.#state === "open" && link !== null) {
      this.#retry.prepare(link.slot.backend, this.#context.clock.now());
    }
  }

  /**
   * Closes both sockets at once, whatever is still on the way. Only a client that has closed gets its echo:
   * without it, it would see 1006.
   */
  destroy(): void {
    if (this.#state === "awaitingUpstream") this.#dispatch({ type: "deadline" });
    this.#flow.destroy();
    this.#retry?.retired.destroy();
  }

  /** Hands the traffic since the last call to the observer. */
  reportTraffic(): void {
    const { messages, bytes } = this.#flow.traffic.takeNew();
    this.#context.observer.relayed(this.route, messages, bytes);
  }

  legEnded(leg: Leg, detail: string): void {
    if (leg.side === "upstream" && this.#hold("lost")) return;
    const isEnd = leg.side === "client" ? this.phase === "live" : this.#state === "open";
    // Behind what keeps session retry from replacing it, if something does.
    if (isEnd) this.#ending.note = noteOf(this.#ending.note, detail);
    if (leg.side === "upstream") this.#endIfTorn(detail);
    this.#dispatch({ type: "ended", side: leg.side });
  }

  legGone(leg: Leg): void {
    if (leg.side === "upstream") {
      if (this.#hold("lost")) return;
      this.#endIfTorn();
      this.#flow.link?.slot.release();
    }
    // Destroyed from outside, without an event before: the other side has to learn of it.
    this.#dispatch({ type: "ended", side: leg.side });
    const { client, link } = this.#flow;
    const upstreamIsGone = link === null || link.leg.state === "gone";
    if (client.state === "gone" && upstreamIsGone) this.#dispatch({ type: "socketsClosed" });
  }

  /** The wheel's turn. */
  check(now: number): number {
    try {
      this.#flow.client.unpinIfSent();
      this.#flow.link?.leg.unpinIfSent();
      if (this.phase === "live") this.#look(now);
      if (now >= this.#deadline.at) this.#deadlineReached(now);
    } catch (error) {
      this.bug(error);
    }
    return this.#nextCheck();
  }

  wake(at = NEVER): void {
    this.#context.wheel.schedule(this, Math.min(this.#nextCheck(), at));
  }

  closeReceived(leg: Leg, close: Close): void {
    this.#context.observer.closeFrame(leg.side, "received", close.code);
    leg.closeReceived(close);
    this.#ending.received(leg.side, close);
    if (leg.side === "client") {
      // What stands by takes over first: it gets what the client has sent, and the Close.
      if (this.#state === "moving" && !this.#isTorn) this.#dispatch({ type: "left" });
      this.#retry?.clientCloses();
    } else if (this.#state === "moving") {
      this.#endIfTorn();
    } else if (this.#hold(close.code)) {
      return;
    }
    this.#dispatch({ type: "closeReceived", side: leg.side });
  }

  violated(leg: Leg, violation: Violation): void {
    // Nothing after a violation can be read; in a closing session that is the end of this leg's part.
    if (this.phase !== "live") {
      this.#dispatch({ type: "ended", side: leg.side });
      return;
    }
    this.#ending.note = violation.detail;
    // Which rule was broken is news to the peer; a limit is named by the default reasons.
    const reason = violation.kind === "protocol" ? { reason: violation.detail } : {};
    this.end(causeOf(violation, leg.side), { offender: leg.side, ...reason });
    leg.readNoMore();
  }

  takeOver({ slot, connection }: Connected): void {
    const retry = this.#retry;
    if (retry === null) return;
    const { clock, observer } = this.#context;
    const { upstream, early } = connection;
    const resumption = retry.resume(clock.now(), this.messages.upstreamToClient);
    const { swallow, gapMs, notice, isMove } = resumption;
    this.#flow.attach({ slot, socket: upstream }, swallow);
    this.backend = slot.backend.url;
    this.#dispatch({ type: "resumed" });
    if (isMove) observer.moved(this.route);
    else observer.resumed(this.route, gapMs / 1000);
    retry.bringUpToDate();
    if (notice !== "") this.#flow.tellClient(notice);
    this.#flow.readUpstream(early);
    this.wake();
    // Its drain began while it was being dialled.
    if (slot.backend.draining) this.move();
  }

  gaveUp({ cause, detail, note }: GaveUp): void {
    if (this.#state === "open") {
      // Nothing else was found: it stays where it is if that is in service again.
      const { served } = this;
      if (served?.draining !== true && served?.isUp !== false) return;
      this.#ending.note = note;
      this.end("backendDraining");
      return;
    }
    this.#ending.note = note;
    const isExhausted = cause === "retryExhausted";
    this.#context.observer.resumeEnded(this.route, isExhausted ? "exhausted" : "impossible");
    this.end(cause, isExhausted ? { retryAfterS: this.#retryAfterS() } : detail);
  }

  standsBy(): void {
    this.standbyMayTakeOver();
    this.wake();
  }

  standbyMayTakeOver(): void {
    const mayLeave = this.#state === "open" && this.#retry?.mayLeave === true;
    if (mayLeave && this.#flow.isBetweenMessages) this.#dispatch({ type: "leave" });
  }

  bug(error: unknown): void {
    this.#context.onBug(error);
    if (this.phase === "live") this.end("internalError");
    else this.destroy();
  }

  #retryAfterS(): number {
    const { retryAfter, clock } = this.#context;
    return retryAfter.turnAway(this.#parts.route.retryAfter, clock.now());
  }

  /** Keeps the client and looks for another upstream; false: this loss ends the session. */
  #hold(loss: Loss): boolean {
    const retry = this.#retry;
    const { link } = this.#flow;
    if (this.#state !== "open" || retry === null || link === null) return false;
    const verdict = retry.judge(loss, link.relay.midMessage);
    if (verdict === "end") return false;
    link.slot.judge(isBackendsFault(loss) ? "bad" : "good");
    if (verdict !== "wait") {
      this.#ending.detail = { reason: verdict };
      this.#ending.note = verdict;
      this.#context.observer.resumeEnded(this.route, "impossible");
      return false;
    }
    const close = retry.farewell(loss, this.#ending.echoTo("upstream"));
    if (close !== null) this.#sendClose(link.leg, close);
    // One that has closed by itself ends TCP by itself, too.
    if (typeof loss === "string") link.leg.destroySoon();
    this.#dispatch({ type: "upstreamLost" });
    return true;
  }

  /** The upstream that is being left has begun a message to the client and not ended it. */
  get #isTorn(): boolean {
    return this.#state === "moving" && this.#flow.link?.relay.midMessage === true;
  }

  /** What the upstream that is being left has to say is on its way, and there is time for it. */
  #isStillTold(now: number): boolean {
    const { client, link } = this.#flow;
    if (link === null || this.#retry?.isStuck(now) !== false) return false;
    const isSending = link.leg.lastReadAt > now - this.#parts.route.close.timeoutMs;
    return client.blocked || (this.#isTorn && isSending);
  }

  /** Nothing more comes from the upstream: a client with part of a message cannot go to the next one. */
  #endIfTorn(note = ""): void {
    if (!this.#isTorn) return;
    this.#ending.note = noteOf("mid-message", note);
    this.#context.observer.resumeEnded(this.route, "impossible");
    this.end("upstreamLost", { reason: "mid-message" });
  }

  /** The upstream is given up; the client stays, and what it sends is kept. */
  #letGo(link: UpstreamLink, retry: SessionRetry): void {
    const now = this.#context.clock.now();
    this.#deadline.at = NEVER;
    this.#flow.detach();
    retry.retired.add(link, this.#context.wheel, now + this.#parts.route.close.timeoutMs);
    retry.begin(link.slot.backend, now);
    this.wake();
  }

  /** The upstream is told; what it still sends is relayed until its Close. */
  #leaveUpstream(retry: SessionRetry): void {
    const { upstream } = closesFor("backendDraining", this.#parts.route.close, {});
    retry.lastPing();
    if (upstream !== null) this.#sendClose(this.#flow.link?.leg, upstream);
    retry.hold(this.#context.clock.now());
    this.#flow.hold();
  }

  #dispatch(event: SessionEvent): void {
    const { state, effects } = transition(this.#state, event);
    this.#state = state;
    for (const effect of effects) this.#carryOut(effect);
  }

  #carryOut(effect: SessionEffect): void {
    switch (effect.do) {
      case "settle":
        this.#settle(effect.cause);
        break;
      case "passOn":
        this.#sendClose(
          this.#leg(effect.from === "client" ? "upstream" : "client"),
          this.#ending.passedOnFrom(effect.from),
        );
        break;
      case "echo":
        this.#sendClose(this.#leg(effect.to), this.#ending.echoTo(effect.to));
        break;
      case "closeBoth": {
        const { closes } = this.#ending;
        if (closes.client !== null) this.#sendClose(this.#flow.client, closes.client);
        if (closes.upstream !== null) this.#sendClose(this.#flow.link?.leg, closes.upstream);
        break;
      }
      case "discardFrom":
        this.#flow.discardFrom(effect.side);
        break;
      case "destroySoon":
        this.#leg(effect.side)?.destroySoon();
        break;
      case "destroy":
        this.#leg(effect.side)?.destroy();
        break;
      case "startDeadline":
        this.#deadline.start(this.#context.clock.now(), this.#ending.cause);
        this.wake();
        break;
      case "hold":
        if (this.#flow.link !== null && this.#retry !== null) {
          this.#letGo(this.#flow.link, this.#retry);
        }
        break;
      case "leaveUpstream":
        if (this.#retry !== null) this.#leaveUpstream(this.#retry);
        break;
      case "finish":
        this.#finish();
        break;
    }
  }

  #settle(cause: Cause): void {
    const now = this.#context.clock.now();
    this.#ending.settle(cause, now);
    this.#flow.link?.slot.judge(this.#judgement(cause));
    if (this.#retry?.abort(now) === true) this.#context.observer.resumeEnded(this.route, "ended");
  }

  /** What an end says of the backend. */
  #judgement(cause: Cause): TrialOutcome {
    if (cause === "upstreamLost" || cause === "upstreamUnresponsive") return "bad";
    // Garbage is no failure to count, and no proof of health either.
    if (cause === "upstreamProtocolError") return "abandoned";
    if (cause === "upstreamClosed") {
      return isBackendsFault(this.#flow.upstream.receivedCode ?? 0) ? "bad" : "good";
    }
    // The client's end, or the gateway's, proves nothing unless the backend has done something before.
    return this.messages.upstreamToClient > 0 ? "good" : "abandoned";
  }

  #sendClose(leg: Leg | undefined, close: Close): void {
    if (leg?.sendClose(close)) this.#context.observer.closeFrame(leg.side, "sent", close.code);
  }

  #leg(side: Side): Leg | undefined {
    return side === "client" ? this.#flow.client : this.#flow.link?.leg;
  }

  #deadlineReached(now: number): void {
    if (this.#state === "closing" && !this.#deadline.isOver(now)) {
      this.#flow.link?.leg.destroy();
      return;
    }
    if (this.#state === "moving" && this.#isStillTold(now)) {
      this.#deadline.start(now, this.#ending.cause);
      return;
    }
    this.#deadline.at = NEVER;
    this.#endIfTorn();
    this.#dispatch({ type: "deadline" });
  }

  #look(now: number): void {
    const { watch, link } = this.#flow;
    const due = watch.due(now, link);
    if ("end" in due) {
      this.#endOrHold(due.end);
      return;
    }
    if (due.pingClient) this.#flow.pingClient();
    if (due.pingUpstream || now >= (this.#retry?.pingAt ?? NEVER)) {
      const ping = this.#flow.pingUpstream();
      if (due.pingUpstream) link?.heartbeat.pinged(now, ping);
    }
    // While the client is blocked it is not read: what it has answered may lie in the kernel.
    const isMute = !this.#flow.client.blocked && this.#retry?.isMute(now) === true;
    if (isMute) this.#endOrHold("upstreamUnresponsive");
    const isStuck = this.#state === "open" && this.#retry?.isStuck(now) === true;
    if (isStuck) this.end("backendDraining");
  }

  #endOrHold(cause: Cause): void {
    const isUpstreams = cause === "upstreamUnresponsive";
    if (isUpstreams && this.#state === "moving" && !this.#isTorn) this.#dispatch({ type: "left" });
    else if (!isUpstreams || !this.#hold("unresponsive")) this.end(cause, this.#ending.detail);
  }

  #nextCheck(): number {
    const { client, link } = this.#flow;
    if (!client.pins && link?.leg.pins !== true) return this.#nextDue();
    return Math.min(this.#nextDue(), this.#context.clock.now() + UNPIN_CHECK_MS);
  }

  /** When a heartbeat, a limit or the deadline is due. */
  #nextDue(): number {
    switch (this.phase) {
      case "closed":
        return NEVER;
      case "live": {
        const at = this.#flow.watch.nextAt(this.#context.clock.now(), this.#flow.link);
        return Math.min(at, this.#retry?.nextAt ?? NEVER, this.#deadline.at);
      }
      case "awaitingUpstream":
      case "closing":
        return this.#deadline.at;
    }
  }

  #finish(): void {
    this.#context.wheel.remove(this);
    this.#retry?.abort(this.#context.clock.now());
    this.#retry?.retired.destroy();
    this.reportTraffic();
    const { client, upstream, traffic } = this.#flow;
    const record = recordOf(this.#parts, client, upstream, this.#ending, traffic, {
      backend: this.backend,
      dials: this.#parts.dials + (this.#retry?.dials ?? 0),
      resumes: this.#retry?.resumes ?? 0,
      retryingMs: Math.round(this.#retry?.waitedMs ?? 0),
    });
    this.#parts.onClosed(this, record);
  }
}

/** What speaks against a backend: a loss, or a Close that owns up to an error or a lost upstream of its own. */
function isBackendsFault(loss: Loss): boolean {
  return loss === "lost" || loss === "unresponsive" || loss === 1011 || loss === 1014;
}

/** For the record: what was in the way, if something was, and how it showed. */
function noteOf(obstacle: string, detail: string): string {
  return [obstacle, detail].filter((part) => part !== "").join(": ");
}
