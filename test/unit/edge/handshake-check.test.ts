import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { checkHandshake, countOfHeader, originForm } from "../../../src/edge/handshake-check.ts";
import { handshakeOf, requestOf } from "./requests.ts";

describe("checkHandshake", () => {
  it("reads what the session needs", () => {
    const request = handshakeOf(
      {
        "Sec-WebSocket-Protocol": "v2, v1",
        "Sec-WebSocket-Extensions": "permessage-deflate; server_max_window_bits=10, x-other",
      },
      { url: "/chat?room=1" },
    );
    expect(checkHandshake(request)).toEqual({
      target: "/chat?room=1",
      host: "chat.example",
      key: "dGhlIHNhbXBsZSBub25jZQ==",
      subprotocols: ["v2", "v1"],
      offers: [
        {
          serverNoContextTakeover: false,
          clientNoContextTakeover: false,
          serverMaxWindowBits: 10,
          clientMaxWindowBits: null,
        },
      ],
    });
  });

  it.each(["websocket", "WebSocket", "WEBSOCKET"])("takes Upgrade: %s", (upgrade) => {
    expect(checkHandshake(handshakeOf({ Upgrade: upgrade }))).not.toHaveProperty("status");
  });

  it.each<[string, Record<string, string>, number]>([
    ["no key", { "Sec-WebSocket-Key": "" }, 400],
    ["a key without its padding", { "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ" }, 400],
    ["a key with a blank", { "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j Q==" }, 400],
    ["a list of versions", { "Sec-WebSocket-Version": "13, 8" }, 426],
    ["another upgrade beside it", { Upgrade: "websocket, h2c" }, 400],
    ["no upgrade", { Upgrade: "" }, 400],
    ["a length", { "Content-Length": "1" }, 400],
    ["an empty list of subprotocols", { "Sec-WebSocket-Protocol": "," }, 400],
  ])("refuses %s", (_title, headers, status) => {
    expect(checkHandshake(handshakeOf(headers))).toMatchObject({ status });
  });

  it("takes a body of no length for none", () => {
    expect(checkHandshake(handshakeOf({ "Content-Length": "0" }))).not.toHaveProperty("status");
  });

  it("never throws, whatever the request holds", () => {
    const value = fc.oneof(fc.string(), fc.string({ unit: "binary" }));
    const name = fc.oneof(
      value,
      fc.constantFrom(
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
        "__proto__",
      ),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(name, value)), value, fc.boolean(), (lines, url, good) => {
        const base = good ? handshakeOf().rawHeaders : [];
        const result = checkHandshake(requestOf([...base, ...lines.flat()], { url }));
        const { status, target } = { status: 400, target: "/", ...result };
        expect([400, 405, 426]).toContain(status);
        expect(target.startsWith("/")).toBe(true);
      }),
      { numRuns: 60 },
    );
  });

  it("takes any subprotocol and extension header for a list or a fault", () => {
    const alphabet = fc.constantFrom(
      ...'ab,; ="\\\t-1'.split(""),
      "permessage-deflate",
      "client_max_window_bits",
    );
    const header = fc.array(alphabet, { maxLength: 12 }).map((parts) => parts.join(""));
    fc.assert(
      fc.property(header, header, (protocol, extensions) => {
        const request = handshakeOf({
          "Sec-WebSocket-Protocol": protocol,
          "Sec-WebSocket-Extensions": extensions,
        });
        const result = checkHandshake(request);
        expect({ status: 400, ...result }.status).toBe(400);
      }),
    );
  });
});

describe("originForm", () => {
  it.each([
    ["/", "/"],
    ["//a/b", "//a/b"],
    ["/a?b#c", "/a?b#c"],
    ["http://a", "/"],
    ["HTTPS://a:1/x?y", "/x?y"],
    ["ws://a?x", "/?x"],
    ["wss://[::1]:1/x", "/x"],
    ["*", null],
    ["", null],
    ["a:1", null],
    ["http://", null],
    ["http:///x", null],
    ["ftp://a/x", null],
    ["x/y", null],
  ])("of %s is %s", (url, expected) => {
    expect(originForm(url)).toBe(expected);
  });

  it("always begins with a slash", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.webUrl({ withQueryParameters: true })), (url) => {
        expect(originForm(url) ?? "/").toMatch(/^\//);
      }),
    );
  });
});

describe("countOfHeader", () => {
  it("counts names, in any case, and not values", () => {
    const rawHeaders = ["Host", "a", "X", "host", "hOST", "b"];
    expect(countOfHeader({ rawHeaders }, "host")).toBe(2);
    expect(countOfHeader({ rawHeaders }, "b")).toBe(0);
  });
});
