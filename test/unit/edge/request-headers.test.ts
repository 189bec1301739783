import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  passesToBackend,
  passesToClient,
  responseHeaderLines,
  upgradeHeaderLines,
} from "../../../src/edge/request-headers.ts";
import { requestOf } from "./requests.ts";

const FORWARDED = {
  clientIp: "192.0.2.1",
  trusted: false,
  headers: { "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "http" },
};

describe("passesToBackend", () => {
  it.each([
    ["cookie", true, true],
    ["connection", false, false],
    ["upgrade", false, false],
    ["te", false, false],
    ["proxy-authorization", false, false],
    ["softclose-session", false, false],
    ["softclose-anything", false, false],
    ["x-forwarded-for", false, false],
    ["x-forwarded-port", false, true],
    ["forwarded", false, true],
    ["x-real-ip", false, true],
    ["x_forwarded_for", false, false],
    ["x_real-ip", false, true],
    ["softclose_session", false, false],
    ["my_header", true, true],
    ["x-named", false, false],
  ])("%s: %s, from a trusted proxy: %s", (name, stranger, trusted) => {
    expect(passesToBackend(name, "keep-alive, X-Named", false)).toBe(stranger);
    expect(passesToBackend(name, "keep-alive, X-Named", true)).toBe(trusted);
  });
});

describe("passesToClient", () => {
  it("keeps the length, whatever Connection names", () => {
    expect(passesToClient("content-length", "content-length")).toBe(true);
    expect(passesToClient("x-named", "close, X-NAMED")).toBe(false);
    expect(passesToClient("x-other", "close, X-NAMED")).toBe(true);
    expect(passesToClient("transfer-encoding", undefined)).toBe(false);
  });
});

describe("upgradeHeaderLines", () => {
  it("keeps order, case and repetition of what passes", () => {
    const lines =
      "X-B 1 hOST a x-a 2 Sec-WebSocket-Key k X-B 3 Content-Length 0 Cookie c=1 Cookie d=2";
    const request = requestOf(lines.split(" "));
    expect(upgradeHeaderLines(request, FORWARDED, "id")).toBe(
      "Host: a\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\nCookie: c=1\r\nCookie: d=2\r\n" +
        "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nSoftclose-Session: id\r\n",
    );
  });

  it("writes one line for each header and nothing of a hop, whatever headers come", () => {
    const token = fc.stringMatching(/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/);
    const name = fc.oneof(
      token,
      fc.constantFrom("Connection", "Upgrade", "TE", "Softclose-Resume", "X-Forwarded-For", "Host"),
    );
    const value = fc.oneof(token, fc.stringMatching(/^[\x20-\x7e\x80-\xff]*$/));
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value)), (lines) => {
        const text = upgradeHeaderLines(requestOf(lines.flat()), FORWARDED, "id");
        const names = text
          .split("\r\n")
          .slice(0, -1)
          .map((line) => line.slice(0, line.indexOf(":")).toLowerCase());
        for (const hop of ["connection", "upgrade", "te", "softclose-resume"]) {
          expect(names).not.toContain(hop);
        }
        for (const ours of ["host", "softclose-session", "x-forwarded-for"]) {
          expect(names.filter((one) => one === ours)).toHaveLength(1);
        }
      }),
    );
  });
});

describe("responseHeaderLines", () => {
  it("leaves out what belongs to the hop and to the handshake", () => {
    expect(
      responseHeaderLines([
        ["Connection", "upgrade"],
        ["connection", "X-Hop"],
        ["X-Hop", "1"],
        ["Upgrade", "websocket"],
        ["Sec-WebSocket-Accept", "x"],
        ["sec-websocket-protocol", "x"],
        ["Content-Length", "0"],
        ["Set-Cookie", "a"],
        ["Set-Cookie", "b"],
      ]),
    ).toBe("Set-Cookie: a\r\nSet-Cookie: b\r\n");
  });
});
