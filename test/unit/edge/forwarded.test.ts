import { isIP } from "node:net";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { clientKey, ForwardedReader } from "../../../src/edge/forwarded.ts";

/** An IPv6 address in one of its spellings. */
function write(parts: readonly number[], compress: boolean, dotted: boolean): string {
  const plain = parts.map((part) => part.toString(16)).join(":");
  if (dotted) {
    const [high = 0, low = 0] = parts.slice(6);
    const octets = [high >> 8, high % 256, low >> 8, low % 256].join(".");
    return `${plain.split(":").slice(0, 6).join(":")}:${octets}`;
  }
  return compress ? new URL(`http://[${plain}]`).hostname.slice(1, -1) : plain;
}

describe("ForwardedReader", () => {
  const reader = new ForwardedReader(["10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "fe80::/10"]);

  it.each([
    ["203.0.113.1", false],
    ["10.255.0.1", true],
    ["11.0.0.1", false],
    ["192.0.2.1", true],
    ["192.0.2.2", false],
    ["::ffff:10.0.0.1", true],
    ["::ffff:a00:1", true],
    ["2001:db8::1", true],
    ["2001:db9::1", false],
    ["fe80::1%eth0", true],
    ["", false],
    ["garbage", false],
    [undefined, false],
  ])("takes a peer at %s for trusted: %s", (peer, trusted) => {
    expect(reader.read({}, peer).trusted).toBe(trusted);
  });

  it("trusts nobody by default", () => {
    const read = new ForwardedReader([]).read({ "x-forwarded-for": "1.2.3.4" }, "127.0.0.1");
    expect(read).toMatchObject({ trusted: false, clientIp: "127.0.0.1" });
  });

  it("leaves the host out where there is none", () => {
    expect(reader.read({}, "203.0.113.1").headers).toEqual({
      "X-Forwarded-For": "203.0.113.1",
      "X-Forwarded-Proto": "http",
    });
  });

  it("takes empty claims for none", () => {
    const empty = { "x-forwarded-for": "", "x-forwarded-proto": "", "x-forwarded-host": "" };
    expect(reader.read({ ...empty, host: "a" }, "10.0.0.1")).toEqual({
      clientIp: "10.0.0.1",
      trusted: true,
      headers: {
        "X-Forwarded-For": "10.0.0.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "a",
      },
    });
  });

  it("vouches for an address, and never throws, whatever a proxy claims", () => {
    const hop = fc.oneof(
      fc.ipV4(),
      fc.ipV6(),
      fc.ipV4().map((address) => `::ffff:${address}`),
      fc.ipV6().map((address) => `[${address}]:80`),
      fc.string(),
      fc.constant("10.0.0.9"),
    );
    fc.assert(
      fc.property(fc.array(hop), fc.oneof(fc.ipV4(), fc.constant("10.1.1.1")), (hops, peer) => {
        const { clientIp } = reader.read({ "x-forwarded-for": hops.join(", ") }, peer);
        expect(isIP(clientIp)).not.toBe(0);
      }),
    );
  });
});

describe("clientKey", () => {
  it.each([
    ["203.0.113.7", "203.0.113.7"],
    ["2001:db8:1:2::a", "2001:db8:1:2"],
    ["2001:DB8:0001:2:ffff::b", "2001:db8:1:2"],
    ["2001:db8::1", "2001:db8:0:0"],
    ["::1", "0:0:0:0"],
    ["::", "0:0:0:0"],
    ["1::2:3:4:5:6.7.8.9", "1:0:2:3"],
    ["", ""],
    ["garbage", "garbage"],
  ])("of %s is %s", (address, key) => {
    expect(clientKey(address)).toBe(key);
  });

  it("is the same for one /64, however it is written, and another for every other", () => {
    const groups = fc.array(fc.integer({ min: 0, max: 0xffff }), { minLength: 8, maxLength: 8 });
    fc.assert(
      fc.property(groups, groups, fc.boolean(), fc.boolean(), (one, two, compress, dotted) => {
        const same = [...one.slice(0, 4), ...two.slice(4)];
        const key = clientKey(write(one, false, false));
        expect(clientKey(write(same, compress, dotted))).toBe(key);
        const other = clientKey(write(two, compress, dotted));
        expect(other === key).toBe(one.slice(0, 4).join() === two.slice(0, 4).join());
      }),
    );
  });
});
