/**
 * What one client and its upstream are going to do: drawn from the seed, so that it can be told again.
 * The route limits which stories can be told on it, and with them which ends are right.
 */
import { Random } from "../support/random.ts";

export type RouteName =
  | "plain"
  | "nasty"
  | "retry"
  | "sure"
  | "capped"
  | "limits"
  | "aged"
  | "http";

/** What the upstream does with the session. It reads it in the path. */
export type UpstreamPart =
  /** Sends each message back. */
  | "echo"
  /** The same, but takes its time for the handshake and for each answer. */
  | "slow"
  /** Sends messages of its own all the time, too. */
  | "chatty"
  /** The same, with all that the socket takes: for a client that takes nothing. */
  | "gushes"
  /** After `after` messages: a Close with `code`, a reset, a FIN without a Close. */
  | "closes"
  | "resets"
  | "halfCloses"
  /** The same as `resets`, but an upstream that takes over only echoes. */
  | "resetsOnce"
  /** After `after` messages: half a frame, then a reset; bytes that are no frame; a huge message. */
  | "torn"
  | "garbage"
  | "tooBig"
  /** Answers the handshake with the status `code`, with a 101 that is none, or never. */
  | "rejects"
  | "nonsense"
  | "hangs";

export type ClientPart =
  /** Sends messages, waits for their echoes, and closes. */
  | "talks"
  /** As much as the socket takes. */
  | "floods"
  /** Messages in several frames, with pings in between, byte by byte now and then. */
  | "fragments"
  /** Sends nothing and waits to be closed, then closes. */
  | "idles"
  /** Reads nothing for a while, but not for too long; or for good. */
  | "pauses"
  | "stalls"
  /** Answers no ping. */
  | "silent"
  /** Goes without a Close: by reset or FIN, at any moment. */
  | "vanishes"
  /** Ends its own half of TCP without a Close, and reads on. */
  | "halfCloses"
  /** Closes before its handshake is answered; or between two fragments. */
  | "leavesEarly"
  | "closesMidMessage"
  /** Breaks the protocol; sends more than is allowed. */
  | "garbage"
  | "tooBig";

export interface Story {
  readonly index: number;
  readonly route: RouteName;
  readonly upstream: UpstreamPart;
  readonly client: ClientPart;
  /** How many messages the upstream part waits for. */
  readonly after: number;
  /** Of the upstream's Close or refusal. */
  readonly upstreamCode: number;
  /** Of the client's own Close; 1005: an empty one. */
  readonly clientCode: number;
  /** Messages that the client sends. */
  readonly messages: number;
  /** Between two of them, about. */
  readonly everyMs: number;
  /** For whatever else has to be drawn while it is told. */
  readonly seed: number;
}

const CLIENT_PARTS: Readonly<Record<ClientPart, number>> = {
  talks: 40,
  floods: 4,
  fragments: 10,
  idles: 6,
  pauses: 3,
  stalls: 4,
  silent: 2,
  vanishes: 10,
  halfCloses: 3,
  leavesEarly: 3,
  closesMidMessage: 3,
  garbage: 3,
  tooBig: 2,
};

/** Where the upstream must get everything, or what it gets is counted, clients are good ones. */
const GOOD_CLIENTS = {
  talks: 50,
  fragments: 15,
  floods: 3,
  pauses: 3,
  vanishes: 8,
  halfCloses: 2,
  idles: 4,
};

const STORIES: Readonly<
  Record<
    RouteName,
    {
      readonly weight: number;
      readonly upstream: Readonly<Partial<Record<UpstreamPart, number>>>;
      readonly client: Readonly<Partial<Record<ClientPart, number>>>;
    }
  >
> = {
  plain: {
    weight: 30,
    upstream: {
      echo: 40,
      slow: 10,
      chatty: 10,
      closes: 15,
      resets: 8,
      halfCloses: 4,
      torn: 5,
      garbage: 4,
      tooBig: 2,
    },
    client: CLIENT_PARTS,
  },
  nasty: {
    weight: 14,
    upstream: { echo: 30, rejects: 25, nonsense: 10, hangs: 5, resets: 15, closes: 10 },
    client: { talks: 60, vanishes: 15, leavesEarly: 10, idles: 5 },
  },
  http: {
    weight: 5,
    upstream: { echo: 30, rejects: 40, nonsense: 10, closes: 10 },
    client: { talks: 80, vanishes: 10, leavesEarly: 5 },
  },
  retry: {
    weight: 20,
    upstream: { echo: 50, slow: 8, chatty: 12, resetsOnce: 30 },
    client: CLIENT_PARTS,
  },
  sure: { weight: 14, upstream: { echo: 60, resetsOnce: 30, slow: 5 }, client: GOOD_CLIENTS },
  capped: {
    weight: 10,
    upstream: { echo: 60, slow: 20 },
    client: { talks: 60, vanishes: 20, leavesEarly: 10, idles: 5 },
  },
  limits: { weight: 5, upstream: { echo: 100 }, client: { talks: 40, floods: 40, idles: 20 } },
  aged: { weight: 4, upstream: { echo: 60, chatty: 40 }, client: { talks: 60, idles: 40 } },
};

const UPSTREAM_CODES = [1000, 1001, 1005, 1008, 1011, 1012, 1013, 3000, 4001];
const CLIENT_CODES = [1000, 1000, 1000, 1001, 1005, 3000, 4002];
const STATUSES = [400, 401, 403, 404, 429, 500, 501, 502, 503, 504];

export function drawStory(seed: number, index: number): Story {
  const random = Random.of(seed, "story", index);
  const weights = Object.fromEntries(
    Object.entries(STORIES).map(([name, { weight }]) => [name, weight]),
  );
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys are those of STORIES
  const route = random.weighted(weights) as RouteName;
  const client = random.weighted(STORIES[route].client);
  const isFilled = client === "stalls" && random.chance(0.5);
  const upstream = isFilled ? "gushes" : random.weighted(STORIES[route].upstream);
  return {
    index,
    route,
    upstream,
    client,
    after: random.int(0, 5),
    upstreamCode: random.pick(upstream === "rejects" ? STATUSES : UPSTREAM_CODES),
    clientCode: random.pick(CLIENT_CODES),
    messages: random.int(0, 30),
    everyMs: random.int(0, 200),
    seed,
  };
}

/** The path that tells the upstream its part. */
export function pathOf({ route, upstream, after, upstreamCode }: Story): string {
  return `/${route}/${upstream}?after=${after}&code=${upstreamCode}`;
}

/** One address for each client: by it the gateway's record is found. */
export function addressOf(index: number): string {
  return `10.${(index >> 16) & 0xff}.${(index >> 8) & 0xff}.${index & 0xff}`;
}

/** Message number `number` of client `index`; whoever knows the numbers can tell whether it is whole. */
export function messageOf(index: number, number: number): Buffer {
  const head = `${index}:${number}:`;
  return Buffer.from(head.padEnd(sizeOf(index, number), String.fromCodePoint(97 + (number % 26))));
}

/** Most are small; some are long enough to be relayed in pieces. */
function sizeOf(index: number, number: number): number {
  const random = Random.of(index, "size", number);
  const kind = random.next();
  if (kind < 0.8) return random.int(10, 120);
  if (kind < 0.97) return random.int(120, 8_000);
  return random.int(60_000, 260_000);
}

/** The number of a message; null: it is none of this client's, or it is not whole. */
export function numberOf(index: number, message: Buffer): number | null {
  const match = /^(\d+):(\d+):/.exec(message.toString("latin1", 0, 24));
  const number = Number(match?.[2]);
  if (match === null || Number(match[1]) !== index) return null;
  return message.equals(messageOf(index, number)) ? number : null;
}
