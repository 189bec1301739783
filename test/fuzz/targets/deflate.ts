/**
 * permessage-deflate negotiation: an offer and an answer that are any text. What is passed on reads back, an
 * answer that is taken is legal for the offer, and `ws` agrees on either side of it. An input is two lines.
 */
import { deepEqual, equal, ok } from "node:assert/strict";
import { extension, PerMessageDeflate } from "ws";
import {
  canTakeOver,
  type DeflateParameters,
  formatDeflate,
  readAnswer,
  readOffers,
  withoutClientContext,
  withoutServerContext,
} from "../../../src/wire/deflate.ts";
import { latin1, type Target } from "../target.ts";

const NAME = "permessage-deflate";

export function deflateTarget(): Target {
  return { seeds: SEEDS.map(latin1), tokens: TOKENS.map(latin1), maxInputBytes: 1024, check };
}

function check(input: Buffer): void {
  const text = input.toString("latin1");
  const border = text.indexOf("\n");
  const offerHeader = border === -1 ? text : text.slice(0, border);
  const answerHeader = border === -1 ? "" : text.slice(border + 1);
  const offers = readOffers(offerHeader);
  equal(offers === null, offerHeader.trim() !== "" && parsed(offerHeader) === null);
  if (offers === null) return;
  ok(offers.length <= 8);
  checkWritten(offers);
  checkWritten(offers.map(withoutServerContext));
  const answer = readAnswer(answerHeader, offers);
  if (typeof answer === "string") {
    ok(answer !== "");
    // What a real server answers to these offers is never refused.
    const real = answerOfWs(offers);
    if (real !== null) equal(typeof readAnswer(real, offers), "object", `refused: ${real}`);
    return;
  }
  if (answer === null) {
    equal(answerHeader.trim(), "");
    return;
  }
  ok(
    offers.some((offer) => isLegal(answer, offer)),
    `${answerHeader} to ${offerHeader}`,
  );
  equal(parsed(answerHeader)?.[NAME]?.length, 1);
  checkTakenByWs(answer, offers);
  checkWritten([answer]);
  checkWritten([withoutClientContext(answer)]);
  ok(canTakeOver(answer, answer));
  ok(!canTakeOver(answer, null));
  for (const other of offers) {
    if (other.clientMaxWindowBits === true || !canTakeOver(answer, other)) continue;
    ok((other.serverMaxWindowBits ?? 15) <= (answer.serverMaxWindowBits ?? 15));
    ok(other.serverNoContextTakeover || !answer.serverNoContextTakeover);
  }
}

function parsed(header: string): ReturnType<typeof extension.parse> | null {
  try {
    return extension.parse(header);
  } catch {
    // Its answer to a syntax error.
    return null;
  }
}

/** What goes on the wire is plain, reads back, and another parser finds the same in it. */
function checkWritten(list: readonly DeflateParameters[]): void {
  const header = formatDeflate(list);
  ok(/^[a-z_;=, 0-9-]*$/.test(header), header);
  deepEqual(readOffers(header), list);
  if (list.length > 0) equal(parsed(header)?.[NAME]?.length, list.length);
}

/** RFC 7692 §7.1, once more and differently: each rule is a sentence of the RFC. */
function isLegal(answer: DeflateParameters, offer: DeflateParameters): boolean {
  const bits = answer.clientMaxWindowBits;
  const rules = [
    // §7.1.1.1: a server that accepts the parameter includes it in its response.
    !offer.serverNoContextTakeover || answer.serverNoContextTakeover,
    // §7.1.2.1: … with the same or smaller value.
    offer.serverMaxWindowBits === null ||
      (answer.serverMaxWindowBits ?? 16) <= offer.serverMaxWindowBits,
    // §7.1.2.2: not in the response if it was not in the offer, and with a value.
    bits === null || (bits !== true && offer.clientMaxWindowBits !== null),
    typeof bits !== "number" ||
      typeof offer.clientMaxWindowBits !== "number" ||
      bits <= offer.clientMaxWindowBits,
    [bits ?? 15, answer.serverMaxWindowBits ?? 15].every(
      (one) => Number(one) >= 8 && Number(one) <= 15,
    ),
  ];
  return rules.every(Boolean);
}

/** The answer of `ws` as a server that takes whatever it is offered; null: it declines. */
function answerOfWs(offers: readonly DeflateParameters[]): string | null {
  const server = new PerMessageDeflate({ isServer: true, maxPayload: 0, threshold: 0 });
  try {
    const accepted = server.accept(extension.parse(formatDeflate(offers))[NAME] ?? []);
    const parameters = Object.entries(accepted).map(([name, value]) =>
      value === true ? name : `${name}=${String(value)}`,
    );
    return [NAME, ...parameters].join("; ");
  } catch {
    // None of the offers is one that it takes.
    return null;
  }
}

/** A client of `ws` that has made one of the offers takes the answer, too. */
function checkTakenByWs(answer: DeflateParameters, offers: readonly DeflateParameters[]): void {
  const errors: unknown[] = [];
  for (const offer of offers.filter((one) => isLegal(answer, one))) {
    const client = new PerMessageDeflate({
      isServer: false,
      maxPayload: 0,
      threshold: 0,
      ...(typeof offer.clientMaxWindowBits !== "number"
        ? {}
        : { clientMaxWindowBits: offer.clientMaxWindowBits }),
      ...(offer.serverMaxWindowBits === null
        ? {}
        : { serverMaxWindowBits: offer.serverMaxWindowBits }),
      serverNoContextTakeover: offer.serverNoContextTakeover,
    });
    try {
      client.accept(extension.parse(formatDeflate([answer]))[NAME] ?? []);
      return;
    } catch (error) {
      errors.push(error);
    }
  }
  throw new Error(`a client refuses ${formatDeflate([answer])}: ${errors.join(", ")}`);
}

const SEEDS = [
  `${NAME}\n${NAME}`,
  `${NAME}; client_max_window_bits\n${NAME}; client_max_window_bits=10; server_no_context_takeover`,
  `${NAME}; server_max_window_bits=9; client_max_window_bits=12, ${NAME}\n${NAME}; server_max_window_bits=8`,
  `x; a="b\\c", ${NAME}; server_no_context_takeover; client_no_context_takeover\n${NAME}; client_no_context_takeover`,
  `${NAME}; mux; mux=1\nfoo`,
  "\n",
  ` \t\n${NAME}, ${NAME}`,
];

const TOKENS = [
  NAME,
  "; ",
  ", ",
  "\n",
  "=",
  '"',
  "\\",
  " ",
  "\t",
  "\xa0",
  "\0",
  "server_no_context_takeover",
  "client_no_context_takeover",
  "server_max_window_bits",
  "client_max_window_bits",
  "=8",
  "=9",
  "=10",
  "=15",
  "=16",
  "=08",
  '="10"',
  '="1\\0"',
  "__proto__",
  "constructor",
  "x-webkit-deflate-frame",
  "Permessage-Deflate",
];
