import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  endOfHead,
  hasToken,
  headerValue,
  MAX_HEAD_BYTES,
  parseResponseHead,
  type ResponseHead,
} from "../../../src/wire/response-head.ts";

const GOOD =
  "HTTP/1.1 101 Switching Protocols\r\n" +
  "Upgrade: websocket\r\n" +
  "Connection: Upgrade\r\n" +
  "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const parse = (text: string): ResponseHead | string =>
  parseResponseHead(Buffer.from(text, "latin1"));

function parsed(text: string): ResponseHead {
  const head = parse(text);
  if (typeof head === "string") throw new Error(head);
  return head;
}

describe("A response head is read:", () => {
  test("status, reason and headers in order, with names as they came", () => {
    expect(parse(GOOD)).toEqual({
      status: 101,
      statusText: "Switching Protocols",
      headers: [
        ["Upgrade", "websocket"],
        ["Connection", "Upgrade"],
        ["Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
      ],
    });
  });

  test.each<[string, string, Partial<ResponseHead>]>([
    ["no headers", "HTTP/1.1 200 OK\r\n\r\n", { status: 200, headers: [] }],
    ["no reason", "HTTP/1.1 503 \r\n\r\n", { status: 503, statusText: "" }],
    ["no reason and no space", "HTTP/1.1 503\r\n\r\n", { status: 503, statusText: "" }],
    ["the first status", "HTTP/1.1 100 x\r\n\r\n", { status: 100 }],
    ["the last status", "HTTP/1.1 599 x\r\n\r\n", { status: 599 }],
    ["a reason beyond ASCII", "HTTP/1.1 200 \xe9t\xe9\r\n\r\n", { statusText: "\xe9t\xe9" }],
    ["an empty value", "HTTP/1.1 200 OK\r\na:\r\n\r\n", { headers: [["a", ""]] }],
    ["a blank value", "HTTP/1.1 200 OK\r\na: \t \r\n\r\n", { headers: [["a", ""]] }],
    ["no blank", "HTTP/1.1 200 OK\r\na:b\r\n\r\n", { headers: [["a", "b"]] }],
    [
      "blanks around a value and inside it",
      "HTTP/1.1 200 OK\r\na: \t b \t c \t \r\n\r\n",
      { headers: [["a", "b \t c"]] },
    ],
    [
      "UTF-8 that ends in a byte which looks like a blank",
      "HTTP/1.1 200 OK\r\na: \xc3\xa0\r\n\r\n",
      { headers: [["a", "\xc3\xa0"]] },
    ],
    ["colons in a value", "HTTP/1.1 200 OK\r\na:: b:\r\n\r\n", { headers: [["a", ": b:"]] }],
    [
      "every character of a name",
      "HTTP/1.1 200 OK\r\n!#$%&'*+-.^_`|~09azAZ: x\r\n\r\n",
      { headers: [["!#$%&'*+-.^_`|~09azAZ", "x"]] },
    ],
    [
      "names that objects have by themselves",
      "HTTP/1.1 200 OK\r\n__proto__: x\r\n\r\n",
      { headers: [["__proto__", "x"]] },
    ],
  ])("%s", (_title, text, expected) => {
    expect(parse(text)).toMatchObject(expected);
  });

  test("128 headers, and not one more", () => {
    const most = "a: b\r\n".repeat(128);
    expect(parsed(`HTTP/1.1 200 OK\r\n${most}\r\n`).headers).toHaveLength(128);
    expect(parse(`HTTP/1.1 200 OK\r\n${most}a: b\r\n\r\n`)).toBe("more than 128 headers");
  });
});

describe("A response head is refused:", () => {
  test.each([
    ["nothing", "\r\n\r\n"],
    ["an empty first line", "\r\nHTTP/1.1 200 OK\r\n\r\n"],
    ["HTTP/1.0", "HTTP/1.0 101 Switching Protocols\r\n\r\n"],
    ["HTTP/2", "HTTP/2 101 x\r\n\r\n"],
    ["HTTP/1.10", "HTTP/1.10 101 x\r\n\r\n"],
    ["a version in lower case", "http/1.1 101 x\r\n\r\n"],
    ["another protocol", "SSH-2.0-OpenSSH\r\n\r\n"],
    ["status 099", "HTTP/1.1 099 x\r\n\r\n"],
    ["status 600", "HTTP/1.1 600 x\r\n\r\n"],
    ["status 10", "HTTP/1.1 10 x\r\n\r\n"],
    ["status 1010", "HTTP/1.1 1010 x\r\n\r\n"],
    ["a signed status", "HTTP/1.1 +101 x\r\n\r\n"],
    ["no status", "HTTP/1.1 OK\r\n\r\n"],
    ["two spaces", "HTTP/1.1  101 x\r\n\r\n"],
    ["a tab", "HTTP/1.1\t101 x\r\n\r\n"],
    ["a leading space", " HTTP/1.1 101 x\r\n\r\n"],
    ["a control character in the reason", "HTTP/1.1 101 \x01\r\n\r\n"],
    ["NUL in the reason", "HTTP/1.1 101 a\0b\r\n\r\n"],
    ["a bare LF behind the status", "HTTP/1.1 101 x\na: b\r\n\r\n"],
    ["a bare CR behind the status", "HTTP/1.1 101 x\ra: b\r\n\r\n"],
  ])("%s in the status line", (_title, text) => {
    expect(parse(text)).toBe("malformed status line");
  });

  test.each([
    ["a bare LF", "a: b\nc: d"],
    ["a bare CR", "a: b\rc: d"],
    ["LF in front", "\na: b"],
    ["a folded line", "a: b\r\n c: d"],
    ["a line folded by a tab", "a: b\r\n\tc"],
    ["a control character in a value", "a: b\x07"],
    ["NUL in a value", "a: b\0c"],
    ["DEL in a value", "a: \x7f"],
    ["NUL in a name", "a\0: b"],
    ["no colon", "a"],
    ["no name", ": b"],
    ["a space before the colon", "a : b"],
    ["a tab before the colon", "a\t: b"],
    ["a space in the name", "a b: c"],
    ["a name beyond ASCII", "\xe9: b"],
    ["a separator in the name", "a(b): c"],
  ])("%s in a header", (_title, line) => {
    expect(parse(`HTTP/1.1 101 x\r\n${line}\r\n\r\n`)).toBe("malformed header line");
    expect(parse(`HTTP/1.1 101 x\r\nfirst: 1\r\n${line}\r\nlast: 1\r\n\r\n`)).toBe(
      "malformed header line",
    );
  });

  test("within time that grows with its length, not with its square", () => {
    const blanks = " ".repeat(MAX_HEAD_BYTES);
    const started = performance.now();
    for (let i = 0; i < 20; i += 1) {
      expect(parse(`HTTP/1.1 101 x\r\na:${blanks}\x01\r\n\r\n`)).toBe("malformed header line");
      expect(typeof parse(`HTTP/1.1 101 x\r\na: ${blanks}b${blanks}\r\n\r\n`)).toBe("object");
    }
    // Quadratic, this took more than 2 s.
    expect(performance.now() - started).toBeLessThan(500);
  });
});

describe("The end of a head", () => {
  test("is behind the first empty line", () => {
    expect(endOfHead(Buffer.from(`${GOOD}\x81\x00\r\n\r\n`, "latin1"))).toBe(GOOD.length);
  });

  test("is not there before the last byte of it", () => {
    for (let at = 0; at < GOOD.length; at += 1) {
      expect(endOfHead(Buffer.from(GOOD.slice(0, at)))).toBe(-1);
    }
    expect(endOfHead(Buffer.from(GOOD))).toBe(GOOD.length);
    expect(endOfHead(Buffer.from(GOOD.replaceAll("\r\n", "\n")))).toBe(-1);
  });
});

describe("A header's value", () => {
  const head = parsed("HTTP/1.1 200 OK\r\nA: 1\r\nb: 2\r\na: 3\r\nAA: 4\r\nc:\r\n\r\n");

  test.each([
    ["a", "1, 3"],
    ["b", "2"],
    ["c", ""],
    ["d", undefined],
    ["__proto__", undefined],
  ])("of %s is joined from all lines of that name", (name, value) => {
    expect(headerValue(head, name)).toBe(value);
  });

  test.each([
    [undefined, false],
    ["", false],
    ["upgrade", true],
    ["Upgrade", true],
    ["keep-alive, Upgrade", true],
    ["keep-alive ,\tUPGRADE\t, x", true],
    [",,upgrade,", true],
    ["upgrades", false],
    ["up grade", false],
    ["keep-alive; upgrade", false],
    ["upgrade\xa0", false],
  ])("%j has the token: %s", (value, expected) => {
    expect(hasToken(value, "upgrade")).toBe(expected);
  });
});

describe("Any bytes", () => {
  const likely = fc
    .array(
      fc.constantFrom(
        "HTTP/1.1 101 x",
        "\r\n",
        "\n",
        "\r",
        "a",
        ":",
        " ",
        "\t",
        "\0",
        "\xff",
        "b: c",
      ),
      { maxLength: 30 },
    )
    .map((parts) => Buffer.from(parts.join(""), "latin1"));
  const bytes = fc.oneof(
    likely,
    fc.uint8Array({ maxLength: 300 }).map((some) => Buffer.from(some)),
  );

  test("are a head or a reason, never a throw, and nothing unsafe is let through", () => {
    fc.assert(
      fc.property(bytes, fc.boolean(), (some, behindStatus) => {
        const before = Buffer.from(behindStatus ? "HTTP/1.1 101 x\r\n" : "");
        const whole = Buffer.concat([before, some, Buffer.from("\r\n\r\n")]);
        for (const one of [some, whole, whole.subarray(0, Math.max(0, endOfHead(whole)))]) {
          const head = parseResponseHead(one);
          if (typeof head === "string") continue;
          expect(head.status).toBeGreaterThanOrEqual(100);
          expect(head.status).toBeLessThan(600);
          for (const text of [head.statusText, ...head.headers.flat()]) {
            // Cc: the control characters below U+00A0. Those from U+0080 on are bytes of text here.
            expect(text.replaceAll(/[\t\x80-\x9f]/g, "")).not.toMatch(/\p{Cc}/u);
          }
        }
      }),
      { numRuns: 1000 },
    );
  });

  test("of well-formed headers read back", () => {
    const name = fc.stringMatching(/^[a-zA-Z0-9-]{1,20}$/);
    const value = fc.stringMatching(/^(?:[!-~\x80-\xff]([ -~\x80-\xff]{0,30}[!-~\x80-\xff])?)?$/);
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value), { maxLength: 128 }), (headers) => {
        const lines = headers.map(([key, text]) => `${key}: ${text}\r\n`).join("");
        expect(parsed(`HTTP/1.1 101 x\r\n${lines}\r\n`).headers).toEqual(headers);
      }),
    );
  });
});
