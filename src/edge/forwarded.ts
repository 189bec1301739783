/**
 * Who the client is, and what the backend is told about it. X-Forwarded-* of a peer outside
 * `trustedProxies` is a claim of the client's own and goes no further.
 */
import { BlockList, isIP, isIPv6 } from "node:net";
import type { HandshakeRequest } from "./handshake-check.ts";

export interface Forwarded {
  /** The address that the trusted proxies vouch for. */
  readonly clientIp: string;
  /** X-Forwarded-For, -Proto and -Host for the backend. */
  readonly headers: Readonly<Record<string, string>>;
  /** Whether the peer's other X-Forwarded-* headers may pass. */
  readonly trusted: boolean;
}

/** A chain of proxies is short; more entries than this are an attack on our time. */
const MAX_HOPS = 32;

export class ForwardedReader {
  readonly #trusted = new BlockList();
  readonly #trustsAny: boolean;

  /** `trustedProxies`: CIDRs or single addresses, as validated by the configuration. */
  constructor(trustedProxies: readonly string[]) {
    this.#trustsAny = trustedProxies.length > 0;
    for (const entry of trustedProxies) {
      const [address = "", prefix] = entry.split("/");
      const family = isIPv6(address) ? "ipv6" : "ipv4";
      if (prefix === undefined) this.#trusted.addAddress(address, family);
      else this.#trusted.addSubnet(address, Number(prefix), family);
    }
  }

  read(headers: HandshakeRequest["headers"], remoteAddress: string | undefined): Forwarded {
    const peer = plainAddress(remoteAddress ?? "");
    const host = headers.host ?? "";
    if (!this.#isTrusted(peer)) {
      return {
        clientIp: peer,
        trusted: false,
        headers: {
          "X-Forwarded-For": peer,
          "X-Forwarded-Proto": "http",
          "X-Forwarded-Host": host,
        },
      };
    }
    const chain = single(headers["x-forwarded-for"]);
    return {
      clientIp: this.#clientOf(chain, peer),
      trusted: true,
      headers: {
        "X-Forwarded-For": chain === undefined ? peer : `${chain}, ${peer}`,
        "X-Forwarded-Proto": single(headers["x-forwarded-proto"]) ?? "http",
        "X-Forwarded-Host": single(headers["x-forwarded-host"]) ?? host,
      },
    };
  }

  /** The rightmost address that is not a trusted proxy's: everything left of it is hearsay. */
  #clientOf(chain: string | undefined, peer: string): string {
    let client = peer;
    const hops = chain?.split(",").slice(-MAX_HOPS) ?? [];
    for (const hop of hops.toReversed()) {
      const address = plainAddress(hop.trim());
      if (isIP(address) === 0) break;
      client = address;
      if (!this.#isTrusted(address)) break;
    }
    return client;
  }

  #isTrusted(address: string): boolean {
    if (!this.#trustsAny || isIP(address) === 0) return false;
    return this.#trusted.check(address, isIPv6(address) ? "ipv6" : "ipv4");
  }
}

/**
 * What counts as one client for `limits.maxConnectionsPerClient`: an IPv4 address, or the /64 of an
 * IPv6 one, which is what a single subscriber gets.
 */
export function clientKey(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = "", tail] = address.split("::");
  const left = head === "" ? [] : head.split(":");
  const right = tail === undefined || tail === "" ? [] : tail.split(":");
  const groups =
    tail === undefined ? left : [...left, ...zeros(8 - left.length - right.length), ...right];
  return groups
    .slice(0, 4)
    .map((group) => Number.parseInt(group, 16).toString(16))
    .join(":");
}

function zeros(count: number): string[] {
  return Array.from({ length: Math.max(0, count) }, () => "0");
}

/** Without the IPv4-mapped prefix of dual-stack sockets, brackets, port and zone. */
function plainAddress(text: string): string {
  if (isIP(text) !== 0) {
    const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(text);
    return mapped?.[1] ?? text.split("%")[0] ?? text;
  }
  const withPort = /^(?:\[([0-9a-f:.]+)\]|(\d+\.\d+\.\d+\.\d+))(?::\d{1,5})?$/i.exec(text);
  return withPort?.[1] ?? withPort?.[2] ?? text;
}

function single(value: string | string[] | undefined): string | undefined {
  return Array.isArray(value) ? value.join(", ") : value;
}
