import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  canTakeOver,
  type DeflateParameters,
  formatDeflate,
  readAnswer,
  readOffers,
} from "../../../src/wire/deflate.ts";

const PLAIN: DeflateParameters = {
  serverNoContextTakeover: false,
  clientNoContextTakeover: false,
  serverMaxWindowBits: null,
  clientMaxWindowBits: null,
};
const NOT_OFFERED = "permessage-deflate parameters that were not offered";
const ILLEGAL = "illegal permessage-deflate parameters";
const OTHER_EXTENSION = "an extension that was not offered";
const MALFORMED = "malformed Sec-WebSocket-Extensions";

/** `; server_no_context_takeover` and so on, behind the name. */
const pmd = (parameters = ""): string => `permessage-deflate${parameters}`;

describe("Offers", () => {
  test.each<[string, string | undefined, DeflateParameters[]]>([
    ["no header is no offer", undefined, []],
    ["an empty header is no offer", "", []],
    ["a blank header is no offer", " \t ", []],
    ["a plain offer", pmd(), [PLAIN]],
    [
      "what browsers send",
      pmd("; client_max_window_bits"),
      [{ ...PLAIN, clientMaxWindowBits: true }],
    ],
    [
      "every parameter",
      pmd(
        "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10" +
          "; client_max_window_bits=15",
      ),
      [
        {
          serverNoContextTakeover: true,
          clientNoContextTakeover: true,
          serverMaxWindowBits: 10,
          clientMaxWindowBits: 15,
        },
      ],
    ],
    ["a quoted value", pmd('; server_max_window_bits="8"'), [{ ...PLAIN, serverMaxWindowBits: 8 }]],
    [
      "several offers keep their order",
      `${pmd("; server_max_window_bits=9")}, ${pmd()}`,
      [{ ...PLAIN, serverMaxWindowBits: 9 }, PLAIN],
    ],
    ["other extensions are left out", `x-webkit-deflate-frame, foo; a=b, ${pmd()}, bar`, [PLAIN]],
    ["nothing but other extensions", "permessage-bzip2; x=1", []],
    ["names that objects have by themselves", "__proto__; constructor=1, toString", []],
  ])("%s", (_title, header, offers) => {
    expect(readOffers(header)).toEqual(offers);
  });

  test.each([
    ["; server_no_context_takeover=1"],
    ["; client_no_context_takeover=true"],
    ["; server_max_window_bits"],
    ["; server_max_window_bits=7"],
    ["; server_max_window_bits=16"],
    ["; server_max_window_bits=08"],
    ["; server_max_window_bits=1e1"],
    ["; server_max_window_bits=0x8"],
    ["; client_max_window_bits=7"],
    ["; client_max_window_bits=100"],
    ["; server_max_window_bits=10; server_max_window_bits=10"],
    ["; client_no_context_takeover; client_no_context_takeover"],
    ["; unknown"],
    ["; __proto__=1"],
    ["; Server_No_Context_Takeover"],
  ])("with illegal parameters (%s) are left out, the others kept", (parameters) => {
    expect(readOffers(`${pmd(parameters)}, ${pmd()}`)).toEqual([PLAIN]);
    expect(readOffers(pmd(parameters))).toEqual([]);
  });

  test.each([
    [","],
    [";"],
    ["permessage-deflate,"],
    ["permessage-deflate;"],
    ["permessage-deflate;;server_no_context_takeover"],
    ["permessage-deflate, , foo"],
    ["permessage-deflate; server_max_window_bits="],
    ['permessage-deflate; server_max_window_bits="'],
    ['permessage-deflate; server_max_window_bits="10'],
    ['permessage-deflate; server_max_window_bits="1 0"'],
    ["permessage-deflate; =10"],
    ["permessage deflate"],
    ["permessage-deflate\r\nx: y"],
    ["permessage-deflate\0"],
    ["pérmessage-deflate"],
    ["(permessage-deflate)"],
  ])("in a malformed header (%j) are none", (header) => {
    expect(readOffers(header)).toBeNull();
  });

  test("are cut off where no client goes on", () => {
    const header = Array<string>(2000).fill(pmd("; server_max_window_bits=9")).join(", ");
    expect(readOffers(header)).toHaveLength(8);
  });

  test("are read from any string without a throw", () => {
    const likely = fc
      .array(
        fc.constantFrom(
          "permessage-deflate",
          "server_max_window_bits",
          "client_max_window_bits",
          "server_no_context_takeover",
          ";",
          ",",
          "=",
          '"',
          "\\",
          " ",
          "10",
          "15",
          "__proto__",
          "\0",
          "é",
        ),
        { maxLength: 20 },
      )
      .map((parts) => parts.join(""));
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: "binary" }), likely), (header) => {
        const offers = readOffers(header);
        expect(offers === null || offers.length <= 8).toBe(true);
        expect(readOffers(formatDeflate(offers ?? []))).toEqual(offers ?? []);
        const answer = readAnswer(header, offers ?? []);
        expect(answer === null || typeof answer === "string" || typeof answer === "object").toBe(
          true,
        );
      }),
      { numRuns: 1000 },
    );
  });
});

describe("An answer is legal:", () => {
  test.each([
    ["plain to a plain offer", "", ""],
    [
      "a smaller server window than offered",
      "; server_max_window_bits=12",
      "; server_max_window_bits=9",
    ],
    ["the offered server window", "; server_max_window_bits=12", "; server_max_window_bits=12"],
    ["a server window that nobody asked for", "", "; server_max_window_bits=10"],
    [
      "no context takeover as asked",
      "; server_no_context_takeover",
      "; server_no_context_takeover",
    ],
    ["no server context takeover unasked", "", "; server_no_context_takeover"],
    ["no client context takeover unasked", "", "; client_no_context_takeover"],
    ["a hint about the client's context that is not taken up", "; client_no_context_takeover", ""],
    ["a client window to an open offer", "; client_max_window_bits", "; client_max_window_bits=9"],
    ["an open offer of a client window not taken up", "; client_max_window_bits", ""],
    ["the offered client window", "; client_max_window_bits=12", "; client_max_window_bits=12"],
    ["a smaller client window", "; client_max_window_bits=12", "; client_max_window_bits=8"],
    ["a hint of a client window not taken up", "; client_max_window_bits=12", ""],
  ])("%s", (_title, offer, answer) => {
    const offers = readOffers(pmd(offer)) ?? [];
    const read = readAnswer(pmd(answer), offers);
    expect(read).toEqual(readOffers(pmd(answer))?.[0]);
  });

  test("none at all, whatever was offered", () => {
    for (const header of [undefined, "", "  "]) {
      expect(readAnswer(header, [])).toBeNull();
      expect(readAnswer(header, [PLAIN])).toBeNull();
    }
  });

  test("to any one of several offers", () => {
    const offers = readOffers(`${pmd("; server_max_window_bits=9")}, ${pmd()}`) ?? [];
    expect(readAnswer(pmd("; server_max_window_bits=15"), offers)).toEqual({
      ...PLAIN,
      serverMaxWindowBits: 15,
    });
  });
});

describe("An answer is illegal:", () => {
  test.each([
    [
      "a larger server window",
      "; server_max_window_bits=9",
      "; server_max_window_bits=10",
      NOT_OFFERED,
    ],
    ["a server window not confirmed", "; server_max_window_bits=9", "", NOT_OFFERED],
    ["context takeover against the wish", "; server_no_context_takeover", "", NOT_OFFERED],
    ["a client window not offered", "", "; client_max_window_bits=10", NOT_OFFERED],
    [
      "a larger client window",
      "; client_max_window_bits=9",
      "; client_max_window_bits=10",
      NOT_OFFERED,
    ],
    [
      "a client window without a value",
      "; client_max_window_bits",
      "; client_max_window_bits",
      ILLEGAL,
    ],
    ["a window of 7 bits", "", "; server_max_window_bits=7", ILLEGAL],
    ["a window of 16 bits", "", "; server_max_window_bits=16", ILLEGAL],
    ["a window without a value", "", "; server_max_window_bits", ILLEGAL],
    ["a flag with a value", "", "; server_no_context_takeover=1", ILLEGAL],
    ["a parameter twice", "", "; server_no_context_takeover; server_no_context_takeover", ILLEGAL],
    ["an unknown parameter", "", "; mux", ILLEGAL],
    ["two answers", "", ", permessage-deflate", OTHER_EXTENSION],
    ["a second extension", "", ", foo", OTHER_EXTENSION],
    ["a trailing comma", "", ",", MALFORMED],
    ["a broken parameter", "", "; =", MALFORMED],
  ])("%s", (_title, offer, answer, reason) => {
    expect(readAnswer(pmd(answer), readOffers(pmd(offer)) ?? [])).toBe(reason);
  });

  test("another extension than the one offered", () => {
    expect(readAnswer("foo", [PLAIN])).toBe(OTHER_EXTENSION);
    expect(readAnswer("Permessage-Deflate", [PLAIN])).toBe(OTHER_EXTENSION);
  });

  test("any, where nothing was offered", () => {
    expect(readAnswer(pmd(), [])).toBe(NOT_OFFERED);
  });

  test("one that fits no single offer, though each part fits some", () => {
    const offers =
      readOffers(`${pmd("; server_max_window_bits=9; client_max_window_bits")}, ${pmd()}`) ?? [];
    expect(readAnswer(pmd("; client_max_window_bits=9"), offers)).toBe(NOT_OFFERED);
  });
});

describe("A formatted header", () => {
  const bits = fc.integer({ min: 8, max: 15 });
  const parameters: fc.Arbitrary<DeflateParameters> = fc.record({
    serverNoContextTakeover: fc.boolean(),
    clientNoContextTakeover: fc.boolean(),
    serverMaxWindowBits: fc.option(bits, { nil: null }),
    clientMaxWindowBits: fc.oneof(bits, fc.constant(true as const), fc.constant(null)),
  });

  test("reads back as the same offers", () => {
    fc.assert(
      fc.property(fc.array(parameters, { maxLength: 8 }), (offers) => {
        expect(readOffers(formatDeflate(offers))).toEqual(offers);
      }),
    );
  });

  test("of an accepted answer, repeated as an offer, accepts that answer", () => {
    fc.assert(
      fc.property(parameters, (offer) => {
        const answer = {
          ...offer,
          clientMaxWindowBits: offer.clientMaxWindowBits === true ? 15 : offer.clientMaxWindowBits,
        };
        expect(readAnswer(formatDeflate([answer]), [offer])).toEqual(answer);
      }),
    );
  });

  test("is what other implementations write", () => {
    expect(formatDeflate([])).toBe("");
    expect(formatDeflate([PLAIN, { ...PLAIN, clientMaxWindowBits: true }])).toBe(
      "permessage-deflate, permessage-deflate; client_max_window_bits",
    );
    expect(
      formatDeflate([
        {
          serverNoContextTakeover: true,
          clientNoContextTakeover: true,
          serverMaxWindowBits: 10,
          clientMaxWindowBits: 11,
        },
      ]),
    ).toBe(
      "permessage-deflate; server_no_context_takeover; client_no_context_takeover" +
        "; server_max_window_bits=10; client_max_window_bits=11",
    );
  });
});

describe("Whether a new upstream's parameters can take over", () => {
  const SNCT: DeflateParameters = { ...PLAIN, serverNoContextTakeover: true };
  const CNCT: DeflateParameters = { ...PLAIN, clientNoContextTakeover: true };
  const server = (bits: number): DeflateParameters => ({ ...PLAIN, serverMaxWindowBits: bits });
  const client = (bits: number): DeflateParameters => ({ ...PLAIN, clientMaxWindowBits: bits });

  test.each<[string, DeflateParameters | null, DeflateParameters | null, boolean]>([
    ["none over none", null, null, true],
    ["none over some", PLAIN, null, false],
    ["some over none", null, PLAIN, false],
    ["the same", PLAIN, PLAIN, true],
    ["one that keeps the client's window: its messages stand alone", CNCT, PLAIN, true],
    ["one that forgets the client's window", PLAIN, CNCT, true],
    ["one that forgets its own window", PLAIN, SNCT, true],
    ["one that refers to what the client may forget", SNCT, PLAIN, false],
    ["a smaller window of the server", server(12), server(9), true],
    ["an equal window of the server", server(12), server(12), true],
    ["a larger window of the server", server(12), server(13), false],
    ["the largest window of the server, by default", server(12), PLAIN, false],
    ["15 bits of the server over the default", PLAIN, server(15), true],
    ["a default over 15 bits of the server", server(15), PLAIN, true],
    ["a larger window for the client", client(10), client(11), true],
    ["the largest window for the client, by default", client(10), PLAIN, true],
    ["a smaller window for the client", client(10), client(9), false],
    ["a smaller window for the client than the default", PLAIN, client(14), false],
    ["15 bits for the client over the default", PLAIN, client(15), true],
  ])("%s", (_title, told, next, answer) => {
    expect(canTakeOver(told, next)).toBe(answer);
  });
});
