/**
 * Session retry: decides whether an upstream that was lost may be replaced, finds the next one, and
 * brings it up to date. Keeps what that takes of the client's messages. The state machine says when.
 *
 *   upstream lost ──judge──▶ begin ──▶ dials (upstream/connect.ts) ──▶ session attaches the new one
 *                                                                          │
 *             relays as before ◀── caught up ◀── kept frames ◀── replay ◀──┘ bringUpToDate
 *
 * A session whose backend is to be left (`prepare`) dials first: the new connection stands by until no
 * message is under way; then the old upstream is left like one that is lost, but after its last word.
 */
import type { Close } from "../close/causes.ts";
import { type CloseDetail, closesFor } from "../close/policy.ts";
import type { SessionRetryConfig } from "../config/config.ts";
import type { Backend } from "../upstream/backend.ts";
import {
  type ConnectDependencies,
  type Connected,
  Connecting,
  type ConnectResult,
  discardConnection,
} from "../upstream/connect.ts";
import type { Connection } from "../upstream/dial.ts";
import type { Pool } from "../upstream/pool.ts";
import { Standby } from "../upstream/standby.ts";
import type { UpgradeRequest } from "../upstream/upgrade-request.ts";
import { canTakeOver } from "../wire/deflate.ts";
import type { FrameRelay } from "../wire/relay.ts";
import type { Slab } from "../wire/slab.ts";
import { ClientLog } from "./client-log.ts";
import { Confirmation } from "./confirmation.ts";
import { Replay } from "./replay.ts";
import type { SessionParts } from "./session-parts.ts";
import { RetiredLinks } from "./upstream-link.ts";

/** How an upstream leg ended: a kind of loss, or its close code. */
export type Loss = "lost" | "unresponsive" | number;

/** Why resuming is impossible; also the reason that the client is given. */
export type Obstacle = "mid-message" | "buffer" | "subprotocol" | "deflate";

/** What dialling again takes; made by whoever has dialled first. */
export interface Redial {
  /** The pool that serves the route now: a reload may have changed it. */
  readonly pool: () => Pool;
  /** The client's original request. */
  readonly request: UpgradeRequest;
  /** What its pool hashes the session by, if it does. */
  readonly key: string | null;
  readonly dependencies: ConnectDependencies;
}

/** Why the wait for an upstream is over without one. */
export interface GaveUp {
  readonly cause: "retryExhausted" | "upstreamLost" | "upstreamRejected";
  readonly detail: CloseDetail;
  /** For the record. */
  readonly note: string;
}

/** What session retry asks of its session. */
export interface RetryHost {
  /** A new upstream takes over from one that is lost or left. */
  takeOver(connected: Connected): void;
  /** A new upstream stands by: it takes over when `leave` has been called. */
  standsBy(): void;
  /** No upstream took over. */
  gaveUp(why: GaveUp): void;
}

/** The way to the current upstream. */
export interface UpstreamWriter {
  writeToUpstream(frames: Buffer): void;
  pingUpstream(): void;
  /** The upstream has got everything that it had missed: relay on. */
  caughtUp(): void;
}

/** What of a session its retry has to know. */
type RetriedParts = Pick<SessionParts, "route" | "subprotocol" | "deflate">;
type Relayed = Pick<FrameRelay, "unfinishedBytes" | "messages">;

/** How a new upstream begins. */
export interface Resumption {
  /** So many of its first messages do not reach the client. */
  readonly swallow: number;
  /** How long the client has been without an upstream. */
  readonly gapMs: number;
  /** What the client is told; empty: nothing. */
  readonly notice: string;
  readonly isMove: boolean;
}

/**
 * An upstream that lives shorter than this after a resume has not ended the outage: dials and back-off
 * go on counting, so that backends that accept and die cannot keep a session dialling without a pause.
 */
const STABLE_MS = 5_000;
const NEVER = Number.POSITIVE_INFINITY;

export class SessionRetry {
  readonly retired = new RetiredLinks();
  readonly #host: RetryHost;
  readonly #writer: UpstreamWriter;
  readonly #parts: RetriedParts;
  readonly #config: SessionRetryConfig;
  readonly #redial: Redial;
  readonly #log: ClientLog;
  /** null: nothing is sent twice, so nothing has to be confirmed. */
  readonly #confirmation: Confirmation | null;
  /** null: no new upstream is being brought up to date. */
  #replay: Replay | null = null;
  #connecting: Connecting | null = null;
  /** What takes over from an upstream that is about to be left. */
  #standby: Standby | null = null;
  /** When the standby must have taken over. */
  #standbyEndsAt = NEVER;
  #resumedAt = Number.NEGATIVE_INFINITY;
  /** The upstream has read what was sent to it again, or there is nothing that would show it. */
  #isProven = true;
  /** Since when what the client sends is kept only; null: it is written. */
  #waitingSince: number | null = null;
  /** The new upstream was dialled before the old one was left. */
  #isMove = false;
  #rounds = 0;
  #attempts = 0;
  resumes = 0;
  /** Dials in all. */
  dials = 0;
  /** Time without an upstream, in all. */
  waitedMs = 0;

  constructor(
    host: RetryHost,
    writer: UpstreamWriter,
    parts: RetriedParts,
    config: SessionRetryConfig,
    redial: Redial,
  ) {
    this.#host = host;
    this.#writer = writer;
    this.#parts = parts;
    this.#config = config;
    this.#redial = redial;
    this.#log = new ClientLog(config);
    this.#confirmation =
      config.resend === "none" ? null : new Confirmation(this.#log, config.bufferBytes);
  }

  /** Keeps what a next upstream may need of the client's frames; false: they must not be written yet. */
  keep(frames: Buffer, slab: Slab | null, { unfinishedBytes, messages }: Relayed): boolean {
    if (!this.#log.skip(frames.length, unfinishedBytes)) {
      // What lies in a slab is only lent.
      const own = slab === null ? frames : Buffer.from(frames);
      this.#log.append(own, unfinishedBytes, messages);
    }
    return this.#writes;
  }

  /** The same for a frame whose header and payload lie apart. */
  keepInTwo(header: Buffer, payload: Buffer, relay: Relayed): boolean {
    const { unfinishedBytes, messages } = relay;
    if (!this.#log.skip(header.length + payload.length, unfinishedBytes)) {
      this.#log.append(Buffer.concat([header, payload]), unfinishedBytes, messages);
    }
    return this.#writes;
  }

  /** What the client sends is written at once: nothing waits, or goes before it. */
  get #writes(): boolean {
    return this.#waitingSince === null && this.#replay === null;
  }

  /**
   * Nothing more should be read from the client: the log is full of what nobody has confirmed, or of
   * what waits for an upstream, or for one to be brought up to date.
   */
  get isFull(): boolean {
    return this.#log.full && (!this.#writes || this.#confirmation !== null);
  }

  /** Whether sessions are to move when their backend is drained. */
  get moves(): boolean {
    return this.#config.onDrained;
  }

  /** Whether this loss is one to retry, and if so, what makes a resume impossible all the same. */
  judge(loss: Loss, midMessage: boolean): Obstacle | "wait" | "end" {
    const { onLost, onUnresponsive, onCodes } = this.#config;
    const isWanted =
      typeof loss === "number" ? onCodes.has(loss) : loss === "lost" ? onLost : onUnresponsive;
    if (!isWanted && !this.#forestallsMove(loss)) return "end";
    // A client that has part of a message would take the next upstream's first for the rest of it.
    if (midMessage) return "mid-message";
    return this.#log.outgrown ? "buffer" : "wait";
  }

  /** A drained backend has gone before its session could leave it. What it says to the client itself stands. */
  #forestallsMove(loss: Loss): boolean {
    const isLeaving = this.#connecting !== null || this.#standby !== null;
    return isLeaving && (typeof loss === "string" || loss === 1001 || loss === 1012);
  }

  /** The Close that an upstream gets when it is given up; null: none can reach it. */
  farewell(loss: Loss, received: Close): Close | null {
    if (loss === "lost") return null;
    if (loss !== "unresponsive") return received;
    return closesFor("upstreamUnresponsive", this.#parts.route.close, {}).upstream;
  }

  /**
   * Looks for another upstream while this one still serves. The host hears of one that stands by, or
   * that there is none.
   */
  prepare(from: Backend, now: number): void {
    if (this.#connecting !== null || this.#standby !== null) return;
    this.#isMove = true;
    this.#rounds = 0;
    this.#attempts = 0;
    this.#standbyEndsAt = now + this.#config.timeoutMs;
    this.#dial(from, true);
  }

  /**
   * Between two messages a connection that stands by may take over; not before the current upstream has
   * got all that it had missed, or its last word would be taken to confirm what it never got.
   */
  get mayLeave(): boolean {
    return this.#standby !== null && this.#writes;
  }

  /** From here on what the client sends is only kept. */
  hold(now: number): void {
    this.#waitingSince ??= now;
    this.#replay = null;
    this.#log.wait();
  }

  /**
   * The upstream is about to be left: asks whether it has read what was written. Its Close would not
   * prove that, as it may have been under way before.
   */
  lastPing(): void {
    if (this.#confirmation !== null && this.#log.unconfirmed) this.#writer.pingUpstream();
  }

  /**
   * The upstream is gone: what stands by takes over at once, else dials for as long as the configuration
   * allows. The host hears of the end once, unless `abort` comes first.
   */
  begin(lost: Backend, now: number): void {
    const wasStable = this.#isStable(now);
    // It was lost before it could be left.
    if (this.#waitingSince === null) this.#isMove = false;
    this.hold(now);
    this.#confirmation?.reset();
    const connected = this.#standby?.take() ?? null;
    this.#standby = null;
    if (connected !== null) {
      this.#host.takeOver(connected);
      return;
    }
    // Already looking for one: the old upstream was lost before it could be left.
    if (this.#connecting !== null) return;
    this.#isMove = false;
    if (wasStable) {
      this.#rounds = 0;
      this.#attempts = 0;
    }
    this.#dial(lost, wasStable);
  }

  #dial(lost: Backend, atOnce: boolean): void {
    const { pool, request, key, dependencies } = this.#redial;
    const { attempts, timeoutMs } = this.#config;
    const options = {
      attempts: attempts - this.#attempts,
      timeoutMs,
      backoff: this.#parts.route.retry.backoff,
      wantsBody: false,
      key,
      resume: {
        lost,
        dialsPerRound: this.#parts.route.retry.connect.attempts,
        rounds: this.#rounds,
        atOnce,
        objection: (next: Connection) => this.#objection(next),
      },
    };
    const connecting = new Connecting(
      pool(),
      this.#request(request),
      options,
      dependencies,
      (result) => this.#connected(connecting, result),
    );
    this.#connecting = connecting;
    connecting.start();
  }

  /** Looks for no upstream any more; true: the client was waiting for one. */
  abort(now: number): boolean {
    const connecting = this.#connecting;
    const wasWaiting = connecting !== null && this.#waitingSince !== null;
    if (connecting !== null) {
      this.#count(connecting);
      connecting.abort();
    }
    this.#stopWaiting(now);
    this.#standby?.discard();
    this.#standby = null;
    return wasWaiting;
  }

  /** A new upstream takes over; `delivered`: messages of upstreams that the client has got so far. */
  resume(now: number, delivered: number): Resumption {
    const gapMs = now - (this.#waitingSince ?? now);
    this.#stopWaiting(now);
    this.resumes += 1;
    // A move is no outage, and does not prolong one.
    if (!this.#isMove) {
      this.#resumedAt = now;
      this.#isProven = this.#confirmation === null;
    }
    const { replaySwallow, timeoutMs, notify } = this.#config;
    const swallow = Math.min(replaySwallow, delivered);
    this.#replay = new Replay(this.#log, swallow, now + timeoutMs);
    const notice = notify
      .replaceAll("{attempts}", String(this.#attempts))
      .replaceAll("{downMs}", String(Math.round(gapMs)));
    return { swallow, gapMs, notice, isMove: this.#isMove };
  }

  /** Writes what the new upstream may get by now of what it has missed. */
  bringUpToDate(): void {
    const replay = this.#replay;
    if (replay === null) return;
    this.#write(replay.next());
    if (replay.isOver) this.#catchUp();
  }

  /** The new upstream has sent a message that is swallowed. */
  answered(): void {
    this.#replay?.answered();
    this.bringUpToDate();
  }

  /** The client closes: what it has sent before goes first, without waiting for answers. */
  clientCloses(): void {
    if (this.#replay === null) return;
    this.#write(this.#replay.rest());
    this.#catchUp();
  }

  /** When to ask `isMute` or `isStuck`, or to ping; Infinity: not at all. */
  get nextAt(): number {
    const at = Math.min(this.#muteAt, this.pingAt);
    return this.#standby === null ? at : Math.min(at, this.#standbyEndsAt);
  }

  /** A connection has stood by for too long: a message never ended. */
  isStuck(now: number): boolean {
    return this.#standby !== null && now >= this.#standbyEndsAt;
  }

  /** When a ping should confirm what the upstream has read. */
  get pingAt(): number {
    return this.#writes ? (this.#confirmation?.dueAt ?? NEVER) : NEVER;
  }

  /** A client that took nothing does again: with that the upstream is read again, and its time begins anew. */
  clientTakes(now: number): void {
    if (this.#replay !== null) this.#replay.endsAt = now + this.#config.timeoutMs;
  }

  /** The upstream has not answered in time what it was told first, or a ping that the client waits for. */
  isMute(now: number): boolean {
    return now >= this.#muteAt;
  }

  get #muteAt(): number {
    if (this.#replay !== null) return this.#replay.endsAt;
    const starvedSince = this.#writes ? (this.#confirmation?.starvedSince ?? NEVER) : NEVER;
    return starvedSince + this.#config.timeoutMs;
  }

  pinged(ping: number, now: number): void {
    // What waits, or comes after the replay, has not been written yet.
    if (this.#writes) this.#confirmation?.pinged(ping, now);
  }

  ponged(ping: number): void {
    if (this.#confirmation?.ponged(ping) === true) this.#isProven = true;
  }

  /**
   * Whether the upstream has ended the outage before. One that never answered what was repeated to it, or
   * never confirmed what was sent again, has not, however long it took to say so: a message that hangs
   * its reader would go through the whole pool for ever.
   */
  #isStable(now: number): boolean {
    return this.#isProven && this.#replay === null && now - this.#resumedAt >= STABLE_MS;
  }

  #write(frames: readonly Buffer[]): void {
    for (const frame of frames) this.#writer.writeToUpstream(frame);
  }

  #catchUp(): void {
    this.#replay = null;
    this.#write(this.#log.resume());
    if (this.#confirmation !== null) this.#writer.pingUpstream();
    this.#writer.caughtUp();
  }

  #connected(connecting: Connecting, result: ConnectResult): void {
    // Aborted, and the end of a dial was on its way.
    if (this.#connecting !== connecting) {
      if (result.kind === "connected") discardConnection(result.connection, result.slot);
      return;
    }
    this.#count(connecting);
    if (result.kind === "connected" && this.#waitingSince === null) {
      this.#standby = new Standby(result, () => this.#standbyDied(result.slot.backend));
      this.#host.standsBy();
    } else if (result.kind === "connected") {
      this.#host.takeOver(result);
    } else {
      this.#host.gaveUp(whyNot(result));
    }
  }

  #standbyDied(backend: Backend): void {
    this.#standby = null;
    // Left already: the end of the old upstream finds that there is no standby, and dials.
    if (this.#waitingSince === null) this.#dial(backend, true);
  }

  #count(connecting: Connecting): void {
    this.#connecting = null;
    this.#rounds = connecting.rounds;
    this.#attempts += connecting.attempts;
    this.dials += connecting.dials;
  }

  #stopWaiting(now: number): void {
    if (this.#waitingSince === null) return;
    this.waitedMs += now - this.#waitingSince;
    this.#waitingSince = null;
  }

  /** The original request, for the n-th resume; it offers only what the client was told. */
  #request(original: UpgradeRequest): UpgradeRequest {
    return {
      ...original,
      headerLines: `${original.headerLines}Softclose-Resume: ${this.resumes + 1}\r\n`,
      offers: this.#parts.deflate === null ? [] : original.offers,
    };
  }

  #objection(next: Connection): Obstacle | null {
    const { subprotocol, deflate } = this.#parts;
    if (next.subprotocol !== subprotocol) return "subprotocol";
    return canTakeOver(deflate, next.deflate) ? null : "deflate";
  }
}

function whyNot(result: Exclude<ConnectResult, Connected>): GaveUp {
  if (result.kind !== "failed") {
    const note = result.kind === "full" ? "every backend is full" : "no backend is in service";
    return { cause: "retryExhausted", detail: {}, note };
  }
  const { detail: note, rejection } = result.failure;
  if (note === "subprotocol" || note === "deflate") {
    return { cause: "upstreamLost", detail: { reason: note }, note };
  }
  // It is the client that they turn away, by what it has shown when it came.
  if (rejection !== null && (rejection.status === 401 || rejection.status === 403)) {
    return { cause: "upstreamRejected", detail: { status: rejection.status }, note };
  }
  return { cause: "retryExhausted", detail: {}, note };
}
