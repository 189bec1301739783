/** What a session has relayed, over all its upstreams. */
import type { FrameRelay } from "../wire/relay.ts";
import { type BothWays, difference } from "./record.ts";

export class Traffic {
  readonly #fromClient: FrameRelay;
  #fromUpstream: FrameRelay | null = null;
  /** What upstreams before the current one have sent. */
  #before = { messages: 0, bytes: 0, dropped: 0 };
  /** While what the client sends waits for an upstream: its messages until then. null: nothing waits. */
  #passedOn: number | null = null;
  #reported: { messages: BothWays; bytes: BothWays } = { messages: NOTHING, bytes: NOTHING };

  constructor(fromClient: FrameRelay) {
    this.#fromClient = fromClient;
  }

  /** An upstream has taken over. */
  begin(fromUpstream: FrameRelay): void {
    this.#fromUpstream = fromUpstream;
  }

  /** Everything that waited has been passed on. */
  caughtUp(): void {
    this.#passedOn = null;
  }

  /** The upstream is given up: what the client sends from here on waits. */
  end(): void {
    this.#before = {
      messages: this.messages.upstreamToClient,
      bytes: this.bytes.upstreamToClient,
      dropped: this.dropped.upstreamToClient,
    };
    this.#fromUpstream = null;
    this.hold();
  }

  /** What the client sends from here on waits. */
  hold(): void {
    this.#passedOn ??= this.#fromClient.messages;
  }

  /** Whole messages that were passed on. */
  get messages(): BothWays {
    return {
      clientToUpstream: this.#passedOn ?? this.#fromClient.messages,
      upstreamToClient: this.#before.messages + (this.#fromUpstream?.messages ?? 0),
    };
  }

  get bytes(): BothWays {
    return {
      clientToUpstream: this.#fromClient.bytes,
      upstreamToClient: this.#before.bytes + (this.#fromUpstream?.bytes ?? 0),
    };
  }

  /** Messages that were read and not delivered; those that still wait for an upstream are among them. */
  get dropped(): BothWays {
    const waiting = this.#fromClient.messages - this.messages.clientToUpstream;
    return {
      clientToUpstream: this.#fromClient.droppedMessages + waiting,
      upstreamToClient: this.#before.dropped + (this.#fromUpstream?.droppedMessages ?? 0),
    };
  }

  /** What has been added since the last call. */
  takeNew(): { messages: BothWays; bytes: BothWays } {
    const before = this.#reported;
    this.#reported = { messages: this.messages, bytes: this.bytes };
    return {
      messages: difference(this.#reported.messages, before.messages),
      bytes: difference(this.#reported.bytes, before.bytes),
    };
  }
}

const NOTHING: BothWays = { clientToUpstream: 0, upstreamToClient: 0 };
