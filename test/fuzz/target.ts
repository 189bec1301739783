/** What is fuzzed: promises about any bytes, and what helps to find bytes that break them. */

export interface Target {
  /** Inputs to begin with. */
  readonly seeds: readonly Buffer[];
  /** What mutations may insert. */
  readonly tokens: readonly Buffer[];
  readonly maxInputBytes: number;
  /** Throws where a promise does not hold for this input, which is not the target's to change. */
  check(input: Buffer): void | Promise<void>;
  /** Throws where something has been left behind by the inputs so far. */
  settle?(): Promise<void>;
  close?(): Promise<void>;
}

interface Entry {
  /** Inputs are text: they are kept as they are, not in hexadecimal. */
  readonly isText: boolean;
  /** Sources whose coverage is reported. */
  readonly sources: readonly string[];
  /** Late, as V8 counts the blocks of code that is compiled while it counts. */
  readonly load: () => Promise<Target>;
}

/** Every target, in the order in which they run. */
export const TARGETS = {
  relay: {
    isText: false,
    sources: ["wire/relay", "wire/close-payload", "wire/slab"],
    load: async () => (await import("./targets/relay.ts")).relayTarget(),
  },
  handshake: {
    isText: true,
    sources: [
      "edge/handshake-check",
      "edge/request-headers",
      "edge/forwarded",
      "edge/router",
      "edge/hash-key",
    ],
    load: async () => (await import("./targets/handshake.ts")).handshakeTarget(),
  },
  response: {
    isText: true,
    sources: [
      "wire/response-head",
      "upstream/upgrade-request",
      "upstream/dial",
      "upstream/rejection",
    ],
    load: async () => (await import("./targets/response.ts")).responseTarget(),
  },
  config: {
    isText: true,
    sources: [
      "config/load",
      "config/yaml-tree",
      "config/interpolate",
      "config/values",
      "config/pool-values",
      "config/messages",
      "config/rules",
      "config/pool-rules",
      "config/clashes",
      "config/resolve",
      "config/merge",
    ],
    load: async () => (await import("./targets/config.ts")).configTarget(),
  },
  deflate: {
    isText: true,
    sources: ["wire/deflate"],
    load: async () => (await import("./targets/deflate.ts")).deflateTarget(),
  },
  gateway: {
    isText: false,
    sources: [
      "edge/listener",
      "edge/upgrade",
      "edge/refusal",
      "edge/early-bytes",
      "edge/passthrough",
      "upstream/dial",
      "session/session",
      "session/flow",
      "session/leg",
      "wire/relay",
    ],
    load: async () => (await import("./targets/gateway.ts")).gatewayTarget(),
  },
} satisfies Readonly<Record<string, Entry>>;

export type TargetName = keyof typeof TARGETS;

export function isTargetName(name: string): name is TargetName {
  return Object.hasOwn(TARGETS, name);
}

/** Text as the bytes that it stands for on the wire. */
export function latin1(text: string): Buffer {
  return Buffer.from(text, "latin1");
}
