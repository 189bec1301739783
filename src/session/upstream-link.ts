/**
 * One upstream leg with what belongs to it: its relay, its heartbeat and its slot. A session has one at
 * a time; with session retry it may have several, one after the other.
 */
import type { Slot } from "../upstream/backend.ts";
import type { FrameRelay } from "../wire/relay.ts";
import type { Heartbeat } from "./heartbeat.ts";
import type { Leg, LegOwner } from "./leg.ts";
import type { Wheel, WheelEntry } from "./wheel.ts";

export interface UpstreamLink {
  readonly leg: Leg;
  /** Upstream to client. */
  readonly relay: FrameRelay;
  readonly heartbeat: Heartbeat;
  readonly slot: Slot;
}

/** The upstream legs that a session has given up and that are not gone yet. */
export class RetiredLinks {
  readonly #links = new Set<RetiredLink>();

  /**
   * Gives an upstream leg up: it is read and ignored until TCP ends, at the latest destroyed at
   * `deadline`. Then its slot is free.
   */
  add(link: UpstreamLink, wheel: Wheel, deadline: number): void {
    link.relay.stop();
    if (link.leg.state === "gone") {
      link.slot.release();
      return;
    }
    const retired = new RetiredLink(link, wheel, deadline, () => this.#links.delete(retired));
    this.#links.add(retired);
    link.leg.handOver(retired);
    link.leg.resume();
    wheel.schedule(retired, deadline);
  }

  /** The session is over: nobody waits for their part any more. */
  destroy(): void {
    for (const { link } of this.#links) link.leg.destroy();
  }
}

class RetiredLink implements LegOwner, WheelEntry {
  readonly link: UpstreamLink;
  readonly #wheel: Wheel;
  readonly #deadline: number;
  readonly #onGone: () => void;

  constructor(link: UpstreamLink, wheel: Wheel, deadline: number, onGone: () => void) {
    this.link = link;
    this.#wheel = wheel;
    this.#deadline = deadline;
    this.#onGone = onGone;
  }

  check(now: number): number {
    if (now < this.#deadline) return this.#deadline;
    this.link.leg.destroy();
    return Number.POSITIVE_INFINITY;
  }

  legRead(): null {
    return null;
  }

  legBlocked(): void {
    // Nothing is fed to it any more.
  }

  legDrained(): void {
    // Nobody waits for it.
  }

  legEnded(leg: Leg): void {
    leg.destroySoon();
  }

  legGone(): void {
    this.#wheel.remove(this);
    this.link.slot.release();
    this.#onGone();
  }
}
