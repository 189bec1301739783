/**
 * permessage-deflate negotiation as an intermediary (RFC 7692 §7.1, RFC 6455 §9.1): the client's
 * offers go to the upstream, every other extension is stripped, and the upstream's answer goes to the
 * client only if it is a legal answer to one of those offers. Nothing is inflated here.
 */
import { extension } from "ws";

const NAME = "permessage-deflate";
/** No client offers more than a few; each is compared with the answer. */
const MAX_OFFERS = 8;

/** One permessage-deflate offer or answer. `true`: the parameter stands without a value. */
export interface DeflateParameters {
  readonly serverNoContextTakeover: boolean;
  readonly clientNoContextTakeover: boolean;
  readonly serverMaxWindowBits: number | null;
  readonly clientMaxWindowBits: number | true | null;
}

/** What the upstream agreed to: null is no compression, a string is why the answer is illegal. */
export type DeflateAnswer = DeflateParameters | null | string;

/**
 * The well-formed permessage-deflate offers of a client's `Sec-WebSocket-Extensions`; null: the
 * header itself is malformed. Offers with unknown or illegal parameters are left out, as a server
 * would decline them (RFC 7692 §5).
 */
export function readOffers(header: string | undefined): DeflateParameters[] | null {
  if (header === undefined || header.trim() === "") return [];
  const parsed = parse(header);
  if (parsed === null) return null;
  return (parsed[NAME] ?? [])
    .slice(0, MAX_OFFERS)
    .map((raw) => readParameters(raw))
    .filter((offer) => offer !== null);
}

/** Checks an upstream's `Sec-WebSocket-Extensions` against the offers that it was sent. */
export function readAnswer(
  header: string | undefined,
  offers: readonly DeflateParameters[],
): DeflateAnswer {
  if (header === undefined || header.trim() === "") return null;
  const parsed = parse(header);
  if (parsed === null) return "malformed Sec-WebSocket-Extensions";
  const names = Object.keys(parsed);
  const raw = parsed[NAME]?.[0];
  if (names.length !== 1 || raw === undefined || parsed[NAME]?.length !== 1) {
    return "an extension that was not offered";
  }
  const answer = readParameters(raw);
  if (answer === null || answer.clientMaxWindowBits === true) {
    return "illegal permessage-deflate parameters";
  }
  return offers.some((offer) => answersOffer(answer, offer))
    ? answer
    : "permessage-deflate parameters that were not offered";
}

/**
 * Whether a new upstream's parameters can take over from those that the client was told. The client's
 * messages stand alone (it was told client_no_context_takeover), but its windows stay as they are.
 */
export function canTakeOver(
  told: DeflateParameters | null,
  next: DeflateParameters | null,
): boolean {
  if (told === null || next === null) return told === next;
  const inflates = next.serverMaxWindowBits ?? MAX_WINDOW_BITS;
  if (inflates > (told.serverMaxWindowBits ?? MAX_WINDOW_BITS)) return false;
  // A client that may forget its window after each message cannot inflate what refers to it.
  if (told.serverNoContextTakeover && !next.serverNoContextTakeover) return false;
  return windowOf(next.clientMaxWindowBits) >= windowOf(told.clientMaxWindowBits);
}

/** RFC 7692 §7.1.1.2: a server may tell the client so unasked. Then every client message stands alone. */
export function withoutClientContext(answer: DeflateParameters): DeflateParameters {
  return { ...answer, clientNoContextTakeover: true };
}

/**
 * An offer that asks for server_no_context_takeover: a message of the upstream's that the client never gets
 * must not be what later ones refer to. The answer is legal for a client that has not asked (RFC 7692 §7.1.1.1).
 */
export function withoutServerContext(offer: DeflateParameters): DeflateParameters {
  return { ...offer, serverNoContextTakeover: true };
}

const MAX_WINDOW_BITS = 15;

function windowOf(bits: DeflateParameters["clientMaxWindowBits"]): number {
  return typeof bits === "number" ? bits : MAX_WINDOW_BITS;
}

/** The header value for offers (to an upstream) or for one answer (to a client). */
export function formatDeflate(list: readonly DeflateParameters[]): string {
  return list
    .map((one) => {
      let text = NAME;
      if (one.serverNoContextTakeover) text += "; server_no_context_takeover";
      if (one.clientNoContextTakeover) text += "; client_no_context_takeover";
      if (one.serverMaxWindowBits !== null) {
        text += `; server_max_window_bits=${one.serverMaxWindowBits}`;
      }
      if (one.clientMaxWindowBits === true) text += "; client_max_window_bits";
      else if (one.clientMaxWindowBits !== null) {
        text += `; client_max_window_bits=${one.clientMaxWindowBits}`;
      }
      return text;
    })
    .join(", ");
}

function answersOffer(answer: DeflateParameters, offer: DeflateParameters): boolean {
  if (offer.serverNoContextTakeover && !answer.serverNoContextTakeover) return false;
  if (offer.serverMaxWindowBits !== null) {
    // A server that does not confirm the window may use a larger one than the client can inflate.
    if (answer.serverMaxWindowBits === null) return false;
    if (answer.serverMaxWindowBits > offer.serverMaxWindowBits) return false;
  }
  if (answer.clientMaxWindowBits !== null) {
    if (offer.clientMaxWindowBits === null) return false;
    if (
      offer.clientMaxWindowBits !== true &&
      answer.clientMaxWindowBits !== true &&
      answer.clientMaxWindowBits > offer.clientMaxWindowBits
    ) {
      return false;
    }
  }
  return true;
}

type RawParameters = Readonly<Record<string, (string | true)[]>>;

function parse(header: string): Record<string, RawParameters[]> | null {
  try {
    return extension.parse(header);
  } catch {
    // The parser throws on a syntax error and on nothing else: that is its answer.
    return null;
  }
}

function readParameters(raw: RawParameters): DeflateParameters | null {
  let serverNoContextTakeover = false;
  let clientNoContextTakeover = false;
  let serverMaxWindowBits: number | null = null;
  let clientMaxWindowBits: number | true | null = null;
  for (const [name, values] of Object.entries(raw)) {
    const value = values[0];
    if (values.length !== 1 || value === undefined) return null;
    switch (name) {
      case "server_no_context_takeover":
        if (value !== true) return null;
        serverNoContextTakeover = true;
        break;
      case "client_no_context_takeover":
        if (value !== true) return null;
        clientNoContextTakeover = true;
        break;
      case "server_max_window_bits":
        serverMaxWindowBits = readWindowBits(value);
        if (serverMaxWindowBits === null) return null;
        break;
      case "client_max_window_bits":
        clientMaxWindowBits = value === true ? true : readWindowBits(value);
        if (clientMaxWindowBits === null) return null;
        break;
      default:
        return null;
    }
  }
  return {
    serverNoContextTakeover,
    clientNoContextTakeover,
    serverMaxWindowBits,
    clientMaxWindowBits,
  };
}

/** RFC 7692 §7.1.2: a decimal integer from 8 to 15 without leading zeros. */
function readWindowBits(value: string | true): number | null {
  if (value === true || !/^(?:[89]|1[0-5])$/.test(value)) return null;
  return Number(value);
}
