import { describe, expect, it } from "vitest";
import { bearerAllowed, hostAllowed, originAllowed } from "../../../src/admin/guard.ts";

describe("hostAllowed", () => {
  it.each([
    "127.0.0.1",
    "127.0.0.1:9901",
    "10.1.2.3:80",
    "[::1]",
    "[::1]:9901",
    "localhost",
    "LocalHost:9901",
    "gateway.internal:9901",
  ])("lets %s in", (host) => {
    expect(hostAllowed(host, "Gateway.internal")).toBe(true);
  });

  it.each([
    "evil.example",
    "evil.example:9901",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost:9901:1",
    "localhost:port",
    "[localhost]",
    "[127.0.0.1]",
    "::1",
    "a@localhost",
    "",
    ":9901",
    "evil.example/127.0.0.1",
  ])("keeps %s out", (host) => {
    expect(hostAllowed(host, "127.0.0.1")).toBe(false);
  });

  it("lets HTTP/1.0 without Host in, which no browser speaks", () => {
    expect(hostAllowed(undefined, "127.0.0.1")).toBe(true);
  });
});

describe("originAllowed", () => {
  it("lets in what is no browser, and a browser's own page", () => {
    expect(originAllowed(undefined, "localhost:9901")).toBe(true);
    expect(originAllowed("http://localhost:9901", "localhost:9901")).toBe(true);
    expect(originAllowed("https://[::1]:9901", "[::1]:9901")).toBe(true);
  });

  it.each(["http://evil.example", "http://localhost:3000", "null", "", "localhost:9901"])(
    "keeps pages of %s out",
    (origin) => {
      expect(originAllowed(origin, "localhost:9901")).toBe(false);
    },
  );

  it("keeps an origin out where there is no host to hold it against", () => {
    expect(originAllowed("http://localhost", undefined)).toBe(false);
  });
});

describe("bearerAllowed", () => {
  it("asks for nothing when no token is set", () => {
    expect(bearerAllowed(undefined, "")).toBe(true);
  });

  it("takes the token, with the scheme in any case", () => {
    expect(bearerAllowed("Bearer s3cret", "s3cret")).toBe(true);
    expect(bearerAllowed("bearer s3cret", "s3cret")).toBe(true);
  });

  it.each([
    undefined,
    "",
    "Bearer",
    "Bearer ",
    "Bearer s3cre",
    "Bearer s3crets",
    "Basic s3cret",
    "s3cret",
  ])("refuses %s", (authorization) => {
    expect(bearerAllowed(authorization, "s3cret")).toBe(false);
  });
});
