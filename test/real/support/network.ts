/**
 * A network with faults, for real connections: client ── link ── gateway ── link ── upstream. Which of
 * two mechanisms carries the bytes is decided here, by what the machine allows:
 *
 * - packets: network namespaces, and an emulator of links between them. The kernel's own TCP meets loss,
 *   delay and silence. Needs root, TUN devices, iproute2, util-linux and Python.
 * - proxy: a TCP proxy in the test's process. It knows neither loss nor a SYN that nobody answers, but
 *   holds, slows and cuts what it carries.
 */
import type { Server, Socket } from "node:net";
import type { GatewayProcess } from "../../support/gateway-process.ts";
import type { Need } from "../../support/programs.ts";
import { canCarryPackets, PacketNetwork } from "./packet-network.ts";
import { ProxyNetwork } from "./proxy-network.ts";

/** Both directions of a link alike. Every change holds once its promise has resolved. */
export interface Link {
  /** Whatever is on the way takes this much longer. */
  delay(ms: number): Promise<void>;
  /** This share of the packets does not arrive. */
  lose(share: number): Promise<void>;
  /** Nothing gets through any more, and nobody is told. */
  down(): Promise<void>;
  up(): Promise<void>;
  /** In each direction; 0: no limit. */
  rate(bytesPerSecond: number): Promise<void>;
  /** TCP bytes come in segments of this size; 0: as they were sent. */
  segment(bytes: number): Promise<void>;
  counts(): Promise<LinkCounts>;
}

/** Packets, or what the proxy wrote at once. */
export interface LinkCounts {
  readonly carried: number;
  readonly lost: number;
}

/** A backend's server, and where the gateway finds it. */
export interface Listening {
  readonly server: Server;
  readonly url: string;
}

/** One test's way through the network, which no other test's faults reach. */
export interface Path {
  readonly client: Link;
  readonly upstream: Link;
  /** On the near end of both links. `yaml` needs routes and pools only. Remember its `stop`. */
  startGateway(yaml: string): Promise<GatewayProcess>;
  /** A TCP connection to the gateway, over the client's link. */
  connect(): Promise<Socket>;
  /** `far`: behind the upstream's link. `near`: beside the gateway, where no fault reaches. */
  listen(where: "far" | "near"): Promise<Listening>;
}

export interface Network {
  openPath(options?: PathOptions): Promise<Path>;
  /** Takes everything away, whatever is left. */
  close(): Promise<void>;
}

export interface PathOptions {
  /**
   * The client's link is a line on which a packet of 1500 bytes would take longer than TCP is used to wait:
   * packets are small, and the gateway's kernel keeps a few of them only. Default: false.
   */
  readonly hasNarrowClientLink?: boolean;
}

/** `NETWORK_FAULTS=proxy` chooses the proxy where packets could be had. */
const CARRIES_PACKETS = process.env["NETWORK_FAULTS"] !== "proxy" && canCarryPackets();

/** For titles. */
export const MECHANISM = CARRIES_PACKETS ? "packets between namespaces" : "an in-process TCP proxy";

/**
 * What a test of loss or of 1 kB/s needs: TCP makes good what is lost before a proxy sees it, and the
 * buffers of loopback are too large to see a slow client behind them.
 */
export const PACKETS: Need = {
  name: "packets (root, network namespaces, TUN devices, Python)",
  found: () => CARRIES_PACKETS,
};

export function openNetwork(): Promise<Network> {
  return CARRIES_PACKETS ? PacketNetwork.open() : Promise.resolve(new ProxyNetwork());
}
