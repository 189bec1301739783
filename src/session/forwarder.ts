/** The two outputs of a session's relays: frames to the other leg, everything else to the session. */
import type { Close } from "../close/causes.ts";
import type { RelaySink, Violation } from "../wire/relay.ts";
import type { Slab } from "../wire/slab.ts";
import type { Leg } from "./leg.ts";

/** What a relay tells its session. */
export interface RelayOwner {
  /** Frames were relayed at this time (of the leg's clock). */
  relayed(at: number): void;
  /** They are on their way: the end of a message may be a moment to leave an upstream at. */
  passedOn(): void;
  toUpstream(frames: Buffer, slab: Slab | null): void;
  toUpstreamInTwo(header: Buffer, payload: Buffer, slab: Slab | null): void;
  /** Whether the Pong answers a ping of the gateway's own. */
  pongReceived(leg: Leg, payload: Buffer): boolean;
  /** A Ping that nobody but the gateway can answer. */
  pingReceived(payload: Buffer): void;
  /** A new upstream has answered a message that was repeated to it. */
  swallowed(): void;
  closeReceived(leg: Leg, close: Close): void;
  violated(leg: Leg, violation: Violation): void;
}

abstract class Forwarder implements RelaySink {
  protected readonly owner: RelayOwner;
  protected readonly from: Leg;

  constructor(owner: RelayOwner, from: Leg) {
    this.owner = owner;
    this.from = from;
  }

  abstract forward(frames: Buffer, slab: Slab | null): void;
  abstract forwardFragment(header: Buffer, payload: Buffer, slab: Slab | null): void;

  takePong(payload: Buffer): boolean {
    return this.owner.pongReceived(this.from, payload);
  }

  takePing(payload: Buffer): void {
    this.owner.pingReceived(payload);
  }

  swallowed(): void {
    this.owner.swallowed();
  }

  closeReceived(close: Close): void {
    this.owner.closeReceived(this.from, close);
  }

  violated(violation: Violation): void {
    this.owner.violated(this.from, violation);
  }
}

/** From an upstream leg to the client's, which stays the same. */
export class ToClient extends Forwarder {
  readonly #client: Leg;

  constructor(owner: RelayOwner, from: Leg, client: Leg) {
    super(owner, from);
    this.#client = client;
  }

  forward(frames: Buffer, slab: Slab | null): void {
    this.owner.relayed(this.from.lastReadAt);
    this.#client.write(frames, slab);
    this.owner.passedOn();
  }

  forwardFragment(header: Buffer, payload: Buffer, slab: Slab | null): void {
    this.owner.relayed(this.from.lastReadAt);
    this.#client.writeInTwo(header, payload, slab);
    this.owner.passedOn();
  }
}

/** From the client to whichever upstream leg there is. */
export class ToUpstream extends Forwarder {
  forward(frames: Buffer, slab: Slab | null): void {
    this.owner.relayed(this.from.lastReadAt);
    this.owner.toUpstream(frames, slab);
    this.owner.passedOn();
  }

  forwardFragment(header: Buffer, payload: Buffer, slab: Slab | null): void {
    this.owner.relayed(this.from.lastReadAt);
    this.owner.toUpstreamInTwo(header, payload, slab);
    this.owner.passedOn();
  }
}
