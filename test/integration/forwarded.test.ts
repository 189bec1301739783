/** Who the client is: X-Forwarded-* is set for the backend, and believed from trusted proxies only. */
import { afterEach, describe, expect, it } from "vitest";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { ask, HttpBackend } from "../support/http-backend.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;
const clients: RawClient[] = [];

async function start(trustedProxies: readonly string[]): Promise<void> {
  upstream = await RawUpstream.start();
  const trusted = JSON.stringify(trustedProxies);
  gateway = await startGateway(
    `listeners: [{ name: test, bind: "127.0.0.1:0", trustedProxies: ${trusted} }]\n` +
      onePool([upstream.url], "close: { timeout: 50ms }"),
  );
}

/** What the backend got, and the client address of the record. */
async function open(
  headers: Record<string, string>,
): Promise<{ peer: UpstreamPeer; clientIp: string }> {
  const client = new RawClient(gateway.port, { headers });
  clients.push(client);
  await client.answered();
  const peer = await upstream.peer();
  const [session] = gateway.gateway.sessions(1);
  return { peer, clientIp: session?.clientIp ?? "" };
}

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await gateway.stopClean();
  await upstream.stop();
});

const CLAIMS = {
  "X-Forwarded-For": "203.0.113.7",
  "X-Forwarded-Proto": "https",
  "X-Forwarded-Host": "shop.example",
  "X-Forwarded-Port": "443",
  "X-Real-IP": "203.0.113.7",
  Forwarded: "for=203.0.113.7",
};

describe("a peer that is not trusted", () => {
  it.each([
    ["no proxy at all", []],
    ["other proxies", ["10.0.0.0/8", "2001:db8::/32"]],
  ])("cannot claim to be another where the configuration trusts %s", async (_title, trusted) => {
    await start(trusted);
    const { peer, clientIp } = await open(CLAIMS);
    expect(clientIp).toBe("127.0.0.1");
    expect(peer.header("x-forwarded-for")).toBe("127.0.0.1");
    expect(peer.header("x-forwarded-proto")).toBe("http");
    expect(peer.header("x-forwarded-host")).toBe("gateway.test");
    for (const name of ["x-forwarded-port", "x-real-ip", "forwarded"]) {
      expect(peer.header(name)).toBe(null);
    }
    expect(peer.head.match(/x-forwarded-for/gi)).toHaveLength(1);
  });
});

describe("a trusted proxy", () => {
  it("is believed, and adds itself to the chain", async () => {
    await start(["127.0.0.1"]);
    const { peer, clientIp } = await open(CLAIMS);
    expect(clientIp).toBe("203.0.113.7");
    expect(peer.header("x-forwarded-for")).toBe("203.0.113.7, 127.0.0.1");
    expect(peer.header("x-forwarded-proto")).toBe("https");
    expect(peer.header("x-forwarded-host")).toBe("shop.example");
    expect(peer.header("x-forwarded-port")).toBe("443");
    expect(peer.header("x-real-ip")).toBe("203.0.113.7");
    expect(peer.header("forwarded")).toBe("for=203.0.113.7");
  });

  it("that says nothing leaves its own address", async () => {
    await start(["127.0.0.0/8"]);
    const { peer, clientIp } = await open({});
    expect(clientIp).toBe("127.0.0.1");
    expect(peer.header("x-forwarded-for")).toBe("127.0.0.1");
    expect(peer.header("x-forwarded-proto")).toBe("http");
    expect(peer.header("x-forwarded-host")).toBe("gateway.test");
  });

  it.each([
    ["the only entry", "203.0.113.7", "203.0.113.7"],
    ["the rightmost that is no proxy of ours", "6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"],
    ["the first where all are ours", "10.0.0.1, 10.0.0.2", "10.0.0.1"],
    ["the nearest known where the rest is garbage", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"],
    ["the peer where all is garbage", "a b, ;;, <script>", "127.0.0.1"],
    ["the peer where nothing is said", " , ,", "127.0.0.1"],
    ["an address with a port", "203.0.113.7:4711", "203.0.113.7"],
    ["IPv6", "2001:db8:9::7, 2001:db8:1::1", "2001:db8:9::7"],
    ["IPv6 in brackets with a port", "[2001:db8:9::7]:4711", "2001:db8:9::7"],
    ["IPv4 in an IPv6 coat", "::ffff:203.0.113.7", "203.0.113.7"],
    ["the same in hexadecimal", "::ffff:cb00:7107", "203.0.113.7"],
    ["a proxy of ours in an IPv6 coat", "203.0.113.7, ::ffff:a00:1", "203.0.113.7"],
    ["no number beyond an octet", "203.0.113.7, 300.1.1.1", "127.0.0.1"],
  ])("vouches for %s", async (_title, chain, clientIp) => {
    await start(["127.0.0.1", "10.0.0.0/8", "2001:db8:1::/48"]);
    const opened = await open({ "X-Forwarded-For": chain });
    expect(opened.clientIp).toBe(clientIp);
    expect(opened.peer.header("x-forwarded-for")).toBe(`${chain.trim()}, 127.0.0.1`);
  });

  it("does not make us walk through an endless chain", async () => {
    await start(["127.0.0.1", "10.0.0.0/8"]);
    const chain = ["203.0.113.7", ...Array.from({ length: 500 }, () => "10.0.0.1")].join(", ");
    expect((await open({ "X-Forwarded-For": chain })).clientIp).toBe("10.0.0.1");
  });

  it("can hand on a softclose header no more than anybody else", async () => {
    await start(["127.0.0.1"]);
    const { peer } = await open({ "Softclose-Session": "forged", "Softclose-Resume": "1" });
    expect(peer.header("softclose-session")).not.toBe("forged");
    expect(peer.header("softclose-resume")).toBe(null);
  });

  it("is believed for plain requests too", async () => {
    await start(["127.0.0.1"]);
    const http = await HttpBackend.start((_request, response) => response.end());
    const other = await startGateway(
      `listeners: [{ name: test, bind: "127.0.0.1:0", trustedProxies: ["127.0.0.1"] }]\n${onePool([http.url])}`,
    );
    await ask(other.port, { headers: CLAIMS });
    expect(http.requests[0]?.headers).toMatchObject({
      "x-forwarded-for": "203.0.113.7, 127.0.0.1",
      "x-forwarded-proto": "https",
      "x-forwarded-host": "shop.example",
      "x-real-ip": "203.0.113.7",
    });
    await other.stopClean();
    await http.stop();
  });
});
