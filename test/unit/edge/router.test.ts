import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Router } from "../../../src/edge/router.ts";
import { aRoute } from "./routes.ts";

const router = new Router([
  aRoute("exact", { host: "chat.example.com", path: "/ws" }),
  aRoute("admin", { host: null, path: "/admin" }),
  aRoute("six", { host: "[2001:db8::1]", path: null }),
  aRoute("suffix", { host: "*.example.com", path: null }),
]);

describe("Router", () => {
  it.each([
    ["chat.example.com", "/ws", "exact"],
    ["CHAT.Example.Com.:443", "/ws/a/b?c", "exact"],
    ["chat.example.com", "/wsx", "suffix"],
    ["chat.example.com", "/ws/../x", null],
    ["chat.example.com", "/ws/./../admin/", null],
    ["chat.example.com", "/%2E%2e/ws", null],
    ["chat.example.com", "/x/../y", "suffix"],
    ["chat.example.com", "/ws/./a", "exact"],
    ["chat.example.com", "/ws/a.b/..c", "exact"],
    ["chat.example.com", "/x?/../ws", "suffix"],
    ["chat.example.com", "/ws#/../x", "exact"],
    ["example.com", "/ws", null],
    ["xexample.com", "/ws", null],
    ["a.b.example.com:8080", "/", "suffix"],
    ["[2001:DB8::1]:8080", "/", "six"],
    ["[2001:db8::1]", "/", "six"],
    ["[2001:db8::2]", "/", null],
    ["", "/admin", "admin"],
    ["", "//admin", "admin"],
    ["", "/x//..//admin", null],
    ["", "/%61dm%69n/a", "admin"],
    ["", "/x\\..\\admin", null],
    ["chat.example.com", "/ws/a;b=c", "exact"],
    ["", "/admin/x%2Fy", "admin"],
    ["", "/x%2f..%2fadmin", null],
    ["", "/%2561dmin", null],
    ["", "/", null],
  ])("gives %s%s to %s", (host, target, name) => {
    expect(router.find(host, target)?.name ?? null).toBe(name);
  });

  it("reads the paths of its routes the same way", () => {
    const encoded = new Router([aRoute("cafe", { host: null, path: "/%63af%c3%a9//a" })]);
    expect(encoded.find("a", "/caf%C3%A9/a")?.name).toBe("cafe");
  });

  it("takes the first that matches", () => {
    const both = new Router([
      aRoute("first", { host: null, path: null }),
      aRoute("second", { host: null, path: "/x" }),
    ]);
    expect(both.find("a", "/x")?.name).toBe("first");
  });

  it.each([
    "/x/../admin",
    "/admin/../x",
    "/admin//../x",
    "/x//../admin",
    "/x/%2E%2e/admin",
    "/x\\..\\admin",
    "/admin\\..\\x",
    "/%2fadmin",
    "/x%2f..%2fadmin",
    "/admin%5c..%5c..",
    "/x/..%2fadmin/secret",
    "/x/..;/admin",
    "/admin/..;a=b/x",
  ])("finds none for %s, which readers give to different routes", (target) => {
    const both = new Router([
      aRoute("admin", { host: null, path: "/admin" }),
      aRoute("rest", { host: null, path: null }),
    ]);
    expect(both.find("a", target)).toBeNull();
    expect(both.find("a", `${target}?a=b`)).toBeNull();
  });

  it("does not mind how a path is read where all readings have one route", () => {
    const all = new Router([aRoute("all", { host: null, path: null })]);
    expect(all.find("a", "/x/../%2fadmin\\..//y")?.name).toBe("all");
  });

  it("never throws, whatever host and target are", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), fc.string({ unit: "binary" }), (host, rest) => {
        for (const start of ["/", "/..", "//%2e"]) {
          expect(() => router.find(host, start + rest)).not.toThrow();
        }
      }),
      { numRuns: 60 },
    );
  });

  it("keeps to a path prefix, however dots and slashes lie about it", () => {
    const segment = fc.constantFrom("ws", "..", ".", "%2e%2E", "admin", "x");
    const only = new Router([aRoute("ws", { host: null, path: "/ws" })]);
    fc.assert(
      fc.property(fc.array(segment, { minLength: 1, maxLength: 8 }), (segments) => {
        const target = `/${segments.join("/")}`;
        const { pathname } = new URL(target, "http://a");
        const isInside = [pathname, target].every((path) => /^\/ws(?:\/|$)/.test(path));
        expect(only.find("a", target) !== null).toBe(isInside);
      }),
    );
  });
});
