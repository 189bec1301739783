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
    const trusted = this.#isTrusted(peer);
    const told = (name: string): string | undefined =>
      trusted ? joined(headers[name]) : undefined;
    const chain = told("x-forwarded-for");
    const host = told("x-forwarded-host") ?? headers.host;
    return {
      clientIp: this.#clientOf(chain, peer),
      trusted,
      headers: {
        "X-Forwarded-For": chain === undefined ? peer : `${chain}, ${peer}`,
        "X-Forwarded-Proto": told("x-forwarded-proto") ?? "http",
        // HTTP/1.0 may do without a host.
        ...(host === undefined ? {} : { "X-Forwarded-Host": host }),
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
  // A dotted end stands for two groups; which two makes no difference to the first four.
  const plain = tail?.replace(/\d+(?:\.\d+){3}$/, "0:0") ?? "";
  const right = plain === "" ? [] : plain.split(":");
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
  const withPort = /^(?:\[([0-9a-f:.]+)\]|(\d+\.\d+\.\d+\.\d+))(?::\d{1,5})?$/i.exec(text);
  const address = withPort?.[1] ?? withPort?.[2] ?? text;
  if (!isIPv6(address)) return address;
  const mapped = /^::ffff:(?:(\d+\.\d+\.\d+\.\d+)|([0-9a-f]{1,4}):([0-9a-f]{1,4}))$/i.exec(address);
  if (mapped === null) return address.split("%")[0] ?? address;
  if (mapped[1] !== undefined) return mapped[1];
  const bits =
    Number.parseInt(mapped[2] ?? "", 16) * 0x1_00_00 + Number.parseInt(mapped[3] ?? "", 16);
  return [24, 16, 8, 0].map((shift) => Math.floor(bits / 2 ** shift) % 256).join(".");
}

/** An empty header says nothing. */
function joined(value: string | string[] | undefined): string | undefined {
  const text = Array.isArray(value) ? value.join(", ") : value;
  return text === "" ? undefined : text;
}
