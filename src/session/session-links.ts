/** Builds what a session's bytes go through, and names what its relays complain of. */
import type { Cause, Side } from "../close/causes.ts";
import { FrameRelay, type Violation } from "../wire/relay.ts";
import { type RelayOwner, ToClient, ToUpstream } from "./forwarder.ts";
import { Heartbeat } from "./heartbeat.ts";
import { Leg, type LegOwner } from "./leg.ts";
import { MessageRate } from "./message-rate.ts";
import type { SessionContext, SessionParts, UpstreamParts } from "./session-parts.ts";
import type { UpstreamLink } from "./upstream-link.ts";

/** The client's direction, over all its upstreams. */
export function relayFromClient(
  owner: RelayOwner,
  client: Leg,
  { deflate, route }: SessionParts,
  { slabs, clock }: SessionContext,
): FrameRelay {
  const { maxMessageBytes, messageRate, messageBurst } = route.limits;
  const options = {
    direction: "clientToUpstream" as const,
    deflate: deflate !== null,
    maxMessageBytes,
    limiter: messageRate > 0 ? new MessageRate(messageRate, messageBurst, clock) : null,
    slabs,
    apart: route.retry.session?.replayFirst ?? 0,
  };
  return new FrameRelay(options, new ToUpstream(owner, client));
}

/** One upstream's leg, direction and heartbeat. Its first `swallow` messages do not reach the client. */
export function newLink(
  owner: RelayOwner & LegOwner,
  client: Leg,
  { slot, socket }: UpstreamParts,
  swallow: number,
  { deflate, route }: SessionParts,
  { clock, random, highWaterMarkBytes, slabs }: SessionContext,
): UpstreamLink {
  const leg = new Leg("upstream", socket, owner, highWaterMarkBytes, clock);
  const options = {
    direction: "upstreamToClient" as const,
    deflate: deflate !== null,
    maxMessageBytes: route.limits.maxMessageBytes,
    limiter: null,
    slabs,
    swallow,
  };
  return {
    leg,
    relay: new FrameRelay(options, new ToClient(owner, leg, client)),
    heartbeat: new Heartbeat(route.heartbeat.upstream, clock.now(), random),
    slot,
  };
}

export function causeOf(violation: Violation, offender: Side): Cause {
  switch (violation.kind) {
    case "protocol":
      return offender === "client" ? "clientProtocolError" : "upstreamProtocolError";
    case "messageTooBig":
      return "messageTooBig";
    case "rateLimited":
      return "rateLimited";
  }
}
