/** A connection whose other end is its own. */
import type { Socket } from "node:net";

/**
 * Where nobody listens on a port of the range that the kernel draws from (ip_local_port_range), a connection to
 * it may be given that very port: TCP then connects to itself (RFC 9293 §3.5, simultaneous open).
 */
export function isSelfConnection(socket: Socket): boolean {
  const { localPort, remotePort, localAddress, remoteAddress } = socket;
  // Undefined: it has gone meanwhile.
  return localPort !== undefined && localPort === remotePort && localAddress === remoteAddress;
}

/** For people. */
export const CONNECTED_TO_ITSELF = "nobody listens there: TCP connected to itself";
