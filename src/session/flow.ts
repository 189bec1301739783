/**
 * What flows through a session: the client's leg and the current upstream's, a relay each way,
 * back-pressure between them, and pings. The data path (`legRead` to `Leg.write`) goes through here
 * only; what ends a leg goes on to the session.
 */
import type { Close } from "../close/causes.ts";
import { makeFrame, OPCODE_PING, OPCODE_PONG, OPCODE_TEXT } from "../wire/frame.ts";
import type { FrameRelay, Violation } from "../wire/relay.ts";
import type { Slab } from "../wire/slab.ts";
import type { RelayOwner } from "./forwarder.ts";
import { NO_PING } from "./heartbeat.ts";
import { Leg, type LegOwner } from "./leg.ts";
import { newLink, relayFromClient } from "./session-links.ts";
import type { SessionContext, SessionParts, UpstreamParts } from "./session-parts.ts";
import type { SessionRetry } from "./session-retry.ts";
import { Traffic } from "./traffic.ts";
import type { UpstreamLink } from "./upstream-link.ts";
import { Watch } from "./watch.ts";

const NEVER = Number.POSITIVE_INFINITY;
/** How soon after the last byte has left the memory that it lay in is given back. */
export const UNPIN_CHECK_MS = 500;

/** What the flow tells its session. */
export interface FlowOwner {
  /** `live`: neither ending nor ended. `closing`: both sides are read for their Close only. */
  readonly phase: "live" | "awaitingUpstream" | "closing" | "closed";
  closeReceived(leg: Leg, close: Close): void;
  violated(leg: Leg, violation: Violation): void;
  legEnded(leg: Leg, detail: string): void;
  legGone(leg: Leg): void;
  /** A read has been relayed while another upstream stands by. */
  standbyMayTakeOver(): void;
  /** Something is due sooner than the wheel knows; `at`: this soon. */
  wake(at?: number): void;
  bug(error: unknown): void;
}

export class Flow implements LegOwner, RelayOwner {
  readonly client: Leg;
  readonly fromClient: FrameRelay;
  readonly watch: Watch;
  readonly traffic: Traffic;
  /** null: the upstream is lost, and another one is being dialled. */
  link: UpstreamLink | null;
  /** The last upstream leg, even if it is given up. */
  upstream: Leg;
  /** null: the route has no session retry. */
  retry: SessionRetry | null = null;
  readonly #owner: FlowOwner;
  readonly #parts: SessionParts;
  readonly #context: SessionContext;
  /** The last ping of a client that takes nothing, to be answered once it does. */
  #unansweredPing: Buffer | null = null;

  constructor(owner: FlowOwner, parts: SessionParts, context: SessionContext) {
    const { clock, random, highWaterMarkBytes } = context;
    this.#owner = owner;
    this.#parts = parts;
    this.#context = context;
    this.client = new Leg("client", parts.client, this, highWaterMarkBytes, clock);
    this.fromClient = relayFromClient(this, this.client, parts, context);
    this.watch = new Watch(this.client, parts.route, clock.now(), random);
    this.traffic = new Traffic(this.fromClient);
    this.link = newLink(this, this.client, parts.upstream, 0, parts, context);
    this.upstream = this.link.leg;
    this.traffic.begin(this.link.relay);
  }

  get lastReadAt(): number {
    return Math.max(this.client.lastReadAt, this.upstream.lastReadAt);
  }

  /** Neither side is inside a message. */
  get isBetweenMessages(): boolean {
    return this.link?.relay.midMessage !== true && !this.fromClient.midMessage;
  }

  /** Begins to relay, with the bytes that came before both legs were ready. */
  start(earlyFromClient: Buffer, earlyFromUpstream: Buffer): void {
    if (earlyFromClient.length > 0) this.legRead(this.client, earlyFromClient);
    this.readUpstream(earlyFromUpstream);
    // A leg that the early bytes have blocked keeps the other one paused.
    if (this.#mayReadClient()) this.client.resume();
  }

  /** A new upstream takes over; its first `swallow` messages do not reach the client. */
  attach(upstream: UpstreamParts, swallow: number): void {
    this.link = newLink(this, this.client, upstream, swallow, this.#parts, this.#context);
    this.upstream = this.link.leg;
    this.traffic.begin(this.link.relay);
    this.watch.relayedAt = this.#context.clock.now();
  }

  /** Reads from the upstream from here on; `early`: what came before. */
  readUpstream(early: Buffer): void {
    const { link } = this;
    if (link === null) return;
    if (early.length > 0) this.legRead(link.leg, early);
    // That may have ended it, too.
    if (this.link !== link) return;
    if (this.client.blocked) link.heartbeat.standStill(this.#context.clock.now());
    else link.leg.resume();
  }

  /** What the client sends is kept from here on, and its pings are answered. */
  hold(): void {
    this.traffic.hold();
    this.fromClient.answerPings = true;
    this.regulateClient();
  }

  /** The upstream is given up. */
  detach(): void {
    this.traffic.end();
    this.link = null;
    this.hold();
  }

  /** The upstream has got everything that it had missed. */
  caughtUp(): void {
    this.traffic.caughtUp();
    this.fromClient.answerPings = false;
    this.regulateClient();
  }

  destroy(): void {
    this.client.destroy();
    this.link?.leg.destroy();
  }

  /** Goes on reading for the peer's Close and TCP end; unread bytes would turn our FIN into a reset. */
  discardFrom(side: "client" | "upstream"): void {
    if (side === "client") {
      this.fromClient.discard();
      this.client.resume();
    } else {
      this.link?.relay.discard();
      this.link?.leg.resume();
    }
  }

  legRead(leg: Leg, chunk: Buffer): Leg | null {
    const fromClient = leg === this.client;
    const { retry } = this;
    try {
      if (fromClient) this.fromClient.push(chunk);
      else this.link?.relay.push(chunk);
      if (retry !== null) {
        if (fromClient) this.#keepUp(retry);
        if (retry.mayLeave) this.#owner.standbyMayTakeOver();
      }
    } catch (error) {
      this.#owner.bug(error);
    }
    // The relay copies what it holds; what the kernel has not taken yet still lies in the chunk.
    const to = fromClient ? this.link?.leg : this.client;
    if (to === undefined || to.waitingBytes === 0) return null;
    // What the chunk lies in is pinned after this.
    this.#owner.wake(this.#context.clock.now() + UNPIN_CHECK_MS);
    return to;
  }

  legBlocked(leg: Leg): void {
    const { phase } = this.#owner;
    if (phase === "closing" || phase === "closed") return;
    if (leg === this.client) {
      const now = this.#context.clock.now();
      // A ping to a client that takes nothing cannot arrive; limits.slowConsumerTimeout judges it.
      this.watch.clientHeartbeat.standStill(now);
      this.link?.leg.pause();
      this.link?.heartbeat.standStill(now);
    }
    this.regulateClient();
    this.#owner.wake();
  }

  legDrained(leg: Leg): void {
    if (leg === this.client) {
      const now = this.#context.clock.now();
      this.link?.leg.resume();
      this.link?.heartbeat.goOn(now, this.link.leg.lastReadAt);
      this.retry?.clientTakes(now);
      if (this.#unansweredPing !== null) this.pingReceived(this.#unansweredPing);
    }
    this.regulateClient();
  }

  legEnded(leg: Leg, detail: string): void {
    this.#owner.legEnded(leg, detail);
  }

  legGone(leg: Leg): void {
    this.#owner.legGone(leg);
  }

  relayed(at: number): void {
    this.watch.relayedAt = at;
  }

  passedOn(): void {
    // After a whole read is too late for a peer that sends without a pause.
    if (this.retry?.mayLeave === true) this.#owner.standbyMayTakeOver();
  }

  toUpstream(frames: Buffer, slab: Slab | null): void {
    if (this.retry?.keep(frames, slab, this.fromClient) === false) return;
    this.link?.leg.write(frames, slab);
  }

  toUpstreamInTwo(header: Buffer, payload: Buffer, slab: Slab | null): void {
    if (this.retry?.keepInTwo(header, payload, this.fromClient) === false) return;
    this.link?.leg.writeInTwo(header, payload, slab);
  }

  closeReceived(leg: Leg, close: Close): void {
    this.#owner.closeReceived(leg, close);
  }

  violated(leg: Leg, violation: Violation): void {
    this.#owner.violated(leg, violation);
  }

  pingReceived(payload: Buffer): void {
    // RFC 6455 §5.5.3 lets us answer only the last; pongs must not pile up for one that takes none.
    this.#unansweredPing = this.client.blocked ? payload : null;
    if (this.#unansweredPing === null) this.client.write(makeFrame(OPCODE_PONG, payload, false));
  }

  pongReceived(leg: Leg, payload: Buffer): boolean {
    const { pingMark, observer, clock } = this.#context;
    if (!pingMark.matches(payload)) return false;
    const fromClient = leg === this.client;
    const heartbeat = fromClient ? this.watch.clientHeartbeat : this.link?.heartbeat;
    const ping = pingMark.numberOf(payload);
    const rttMs = heartbeat?.ponged(clock.now(), ping) ?? null;
    if (rttMs !== null) observer.heartbeatRtt(leg.side, rttMs / 1000);
    if (!fromClient && this.retry !== null) {
      this.retry.ponged(ping);
      // If the log is still full no read from the client would ask for the next one.
      if (clock.now() >= this.retry.pingAt) this.pingUpstream();
      this.regulateClient();
      // What was sent since the ping that has been answered is to be confirmed next.
      if (this.retry.nextAt < NEVER) this.#owner.wake();
    }
    return true;
  }

  swallowed(): void {
    if (this.#owner.phase === "live") this.retry?.answered();
  }

  writeToUpstream(frames: Buffer): void {
    this.link?.leg.write(frames);
  }

  /** Returns the ping's number. */
  pingUpstream(): number {
    const { pingMark, clock } = this.#context;
    const payload = pingMark.payload();
    const ping = pingMark.numberOf(payload);
    this.link?.leg.write(makeFrame(OPCODE_PING, payload, true));
    this.retry?.pinged(ping, clock.now());
    return ping;
  }

  /** A ping, or the text that stands for one. */
  pingClient(): void {
    const { pingMark, clock } = this.#context;
    const { payload, text } = this.#parts.route.heartbeat.client;
    let ping = NO_PING;
    if (payload === "ping") {
      const mark = pingMark.payload();
      ping = pingMark.numberOf(mark);
      this.client.write(makeFrame(OPCODE_PING, mark, false));
    } else if (this.link?.relay.midMessage !== true) {
      // Inside a fragmented message no other message may begin; its own bytes keep hops awake.
      this.tellClient(text);
    }
    this.watch.clientHeartbeat.pinged(clock.now(), ping);
  }

  /** A text message of the gateway's own. */
  tellClient(text: string): void {
    this.client.write(makeFrame(OPCODE_TEXT, Buffer.from(text), false));
  }

  /** Reads from the client, or does not, and lets its heartbeat's time run only where it can answer. */
  regulateClient(): void {
    const now = this.#context.clock.now();
    // An ending session reads on, or the client's Close would never be seen.
    if (this.#owner.phase === "closing" || this.#mayReadClient()) {
      this.client.resume();
      // The deadline stands still as long as the client is not read, or not reached.
      if (!this.client.blocked) this.watch.clientHeartbeat.goOn(now, this.client.lastReadAt);
    } else {
      this.client.pause();
      this.watch.clientHeartbeat.standStill(now);
    }
  }

  #mayReadClient(): boolean {
    if (this.link?.leg.blocked === true) return false;
    return this.retry?.isFull !== true;
  }

  /** After a read from the client: the log may be full, or a ping be due that confirms. */
  #keepUp(retry: SessionRetry): void {
    if (this.#owner.phase !== "live") return;
    if (this.#context.clock.now() >= retry.pingAt) this.pingUpstream();
    if (!this.#mayReadClient()) this.regulateClient();
    if (retry.nextAt < NEVER) this.#owner.wake();
  }
}
