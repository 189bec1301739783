import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { HashKey } from "../../../src/config/config.ts";
import { hashKeyOf } from "../../../src/edge/hash-key.ts";
import { requestOf } from "./requests.ts";

const IP = "192.0.2.7";

function keyOf(key: HashKey, rawHeaders: readonly string[] = [], target = "/"): string | null {
  return hashKeyOf(key, requestOf(rawHeaders), target, IP);
}

it("takes the client's address as it is", () => {
  expect(keyOf({ kind: "clientIp" })).toBe(IP);
});

describe("a header", () => {
  const key: HashKey = { kind: "header", name: "X-User" };

  it.each([
    [["x-user", "alice"], "alice"],
    [["X-USER", "alice"], "alice"],
    [["X-User", "alice", "x-user", "bob"], "alice"],
    [["X-User", "a, b"], "a, b"],
    [["X-User", ""], null],
    [["X-User", "", "X-User", "bob"], null],
    [["X-Users", "alice"], null],
    [["Other", "X-User"], null],
    [[], null],
  ])("in %j is %j", (rawHeaders, value) => {
    expect(keyOf(key, rawHeaders)).toBe(value);
  });

  it.each(["constructor", "__proto__", "toString"])("named %s is one like any other", (name) => {
    expect(keyOf({ kind: "header", name })).toBeNull();
    expect(keyOf({ kind: "header", name }, [name, "x"])).toBe("x");
  });
});

describe("a cookie", () => {
  const key: HashKey = { kind: "cookie", name: "sid" };

  it.each([
    ["sid=1", "1"],
    ["a=2; sid=1; b=3", "1"],
    ["a=2;sid=1;b=3", "1"],
    ["sid=1; sid=2", "1"],
    ["sid=a=b==", "a=b=="],
    ['sid="quoted"', '"quoted"'],
    [" sid = 1 ", "1"],
    ["sid=%41", "%41"],
    ["SID=1", null],
    ["xsid=1; sidx=2", null],
    ["sid", null],
    ["sid; sid=1", "1"],
    ["sid=", null],
    ["sid=; sid=1", null],
    ["a=sid=1", null],
    [";;=;", null],
    ["", null],
  ])("in %j is %j", (cookie, value) => {
    expect(keyOf(key, ["Cookie", cookie])).toBe(value);
  });

  it("may stand in a second Cookie header", () => {
    expect(keyOf(key, ["Cookie", "a=1", "Cookie", "sid=2"])).toBe("2");
  });

  it("is not there without any", () => {
    expect(keyOf(key)).toBeNull();
  });
});

describe("a query parameter", () => {
  const key: HashKey = { kind: "query", name: "room" };

  it.each([
    ["/ws?room=1", "1"],
    ["/ws?a=2&room=1&b=3", "1"],
    ["/ws?room=1&room=2", "1"],
    ["/ws?room=a=b", "a=b"],
    ["/ws?room=a?b", "a?b"],
    ["/ws?room=1#room=2", "1"],
    ["/ws?room=%31+2", "%31+2"],
    ["/ws?r%6fom=1", null],
    ["/ws?Room=1", null],
    ["/ws#?room=1", null],
    ["/room=1", null],
    ["/ws?room", null],
    ["/ws?room=", null],
    ["/ws?&&=&room=1", "1"],
    ["/ws?", null],
    ["/", null],
    ["", null],
  ])("in %s is %j", (target, value) => {
    expect(keyOf(key, [], target)).toBe(value);
  });
});

it("never throws, finds what was put first, and never gives an empty key", () => {
  const text = fc.string({ unit: "binary-ascii", maxLength: 60 });
  const kind = fc.constantFrom("header", "cookie", "query");
  fc.assert(
    fc.property(kind, text, text, (which, name, noise) => {
      const found = keyOf({ kind: which, name }, ["Cookie", noise, noise, noise], `/?${noise}`);
      expect(found).not.toBe("");
      const key: HashKey = { kind: which, name: "n" };
      const put = keyOf(key, ["n", "v", "Cookie", `n=v;${noise}`, "n", noise], `/?n=v&${noise}`);
      expect(put).toBe("v");
    }),
  );
});

it("reads a head as long as Node lets one be", () => {
  const many = "x;".repeat(8_000);
  expect(keyOf({ kind: "cookie", name: "sid" }, ["Cookie", `${many}sid=1`])).toBe("1");
  const long = "v".repeat(16_000);
  expect(keyOf({ kind: "header", name: "x" }, ["X", long])).toBe(long);
});
