/** The opening handshake on the wire: what is refused and how, and what each side sees of the other. */
import { createHash } from "node:crypto";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient, SAMPLE_ACCEPT, upgradeRequest } from "../support/raw-client.ts";
import { RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;
const clients: RawClient[] = [];

function open(
  ...parameters: ConstructorParameters<typeof RawClient> extends [number, ...infer Rest]
    ? Rest
    : never
): RawClient {
  const client = new RawClient(gateway.port, ...parameters);
  clients.push(client);
  return client;
}

async function start(
  behaviour: (peer: UpstreamPeer) => void = (peer) => peer.accept(),
  more = "",
): Promise<void> {
  upstream = await RawUpstream.start(behaviour);
  gateway = await startGateway(onePool([upstream.url], `close: { timeout: 50ms }\n${more}`));
}

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  await gateway.stopClean();
  await upstream.stop();
});

function withHeaders(headers: Record<string, string>): string {
  return upgradeRequest({ headers });
}

describe("a malformed handshake", () => {
  beforeEach(() => start());

  const plain = upgradeRequest({});
  const twice = (line: string): string => plain.replace("\r\n\r\n", `\r\n${line}\r\n\r\n`);

  it.each<[title: string, request: string, status: number, headers: Record<string, string>]>([
    ["HTTP/1.0", plain.replace("HTTP/1.1", "HTTP/1.0"), 400, {}],
    ["POST", plain.replace("GET", "POST"), 405, { Allow: "GET" }],
    ["HEAD", plain.replace("GET", "HEAD"), 405, { Allow: "GET" }],
    ["CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, { Allow: "GET" }],
    ["no key", withHeaders({ "Sec-WebSocket-Key": "" }), 400, {}],
    ["a key of 15 bytes", withHeaders({ "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAA" }), 400, {}],
    [
      "a key of 17 bytes",
      withHeaders({ "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAAA=" }),
      400,
      {},
    ],
    [
      "a key that is no base64",
      withHeaders({ "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25j!Q==" }),
      400,
      {},
    ],
    ["two keys", twice("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, {}],
    [
      "version 8",
      withHeaders({ "Sec-WebSocket-Version": "8" }),
      426,
      { "Sec-WebSocket-Version": "13" },
    ],
    [
      "version 013",
      withHeaders({ "Sec-WebSocket-Version": "013" }),
      426,
      { "Sec-WebSocket-Version": "13" },
    ],
    [
      "no version",
      withHeaders({ "Sec-WebSocket-Version": "" }),
      426,
      { "Sec-WebSocket-Version": "13" },
    ],
    ["two versions", twice("Sec-WebSocket-Version: 8"), 426, { "Sec-WebSocket-Version": "13" }],
    ["another upgrade", withHeaders({ Upgrade: "h2c" }), 400, {}],
    ["no Connection: Upgrade", withHeaders({ Connection: "keep-alive" }), 400, {}],
    ["no Connection", withHeaders({ Connection: "" }), 400, {}],
    ["no Host", withHeaders({ Host: "" }), 400, {}],
    ["two Hosts", twice("Host: other.test"), 400, {}],
    ["a body with a length", `${twice("Content-Length: 2")}hi`, 400, {}],
    ["a chunked body", `${twice("Transfer-Encoding: chunked")}2\r\nhi\r\n0\r\n\r\n`, 400, {}],
    ["a target of *", upgradeRequest({ path: "*" }), 400, {}],
    ["a target without a slash", upgradeRequest({ path: "ws" }), 400, {}],
    ["a target of another scheme", upgradeRequest({ path: "ftp://gateway.test/" }), 400, {}],
    ["a target with a blank", upgradeRequest({ path: "/a b" }), 400, {}],
    ["subprotocols with a blank one", withHeaders({ "Sec-WebSocket-Protocol": "a,,b" }), 400, {}],
    ["subprotocols twice the same", withHeaders({ "Sec-WebSocket-Protocol": "a, a" }), 400, {}],
    ["subprotocols that are no tokens", withHeaders({ "Sec-WebSocket-Protocol": "a b" }), 400, {}],
    ["extensions that are none", withHeaders({ "Sec-WebSocket-Extensions": "a;;b" }), 400, {}],
    ["a header name that is none", twice("X@Y: 1"), 400, {}],
    ["a header with a bare line feed", twice("X: 1\nY: 2\rZ: 3"), 400, {}],
    ["a head of more than 16 KiB", withHeaders({ X: "x".repeat(17 * 1024) }), 431, {}],
    ["a head of 200 KiB", withHeaders({ X: "x".repeat(200 * 1024) }), 431, {}],
    ["no HTTP", "\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, {}],
  ])(
    "is refused, the connection is closed and no backend hears of it: %s",
    async (_title, request, status, headers) => {
      const client = open({ request });
      expect(await client.answered()).toBe(status);
      expect(client.header("connection")).toBe("close");
      for (const [name, value] of Object.entries(headers)) expect(client.header(name)).toBe(value);
      expect(await client.ended()).toBe("fin");
      expect(upstream.peers).toEqual([]);
      expect(gateway.records).toEqual([]);
    },
  );

  it("answers each fault with a line that says what is wrong", async () => {
    const client = open({ request: withHeaders({ "Sec-WebSocket-Version": "8" }) });
    await client.ended();
    expect(client.body.toString()).toBe("the only WebSocket version served here is 13\n");
    expect(client.header("content-length")).toBe(String(client.body.length));
  });

  it("closes the connection of a client that keeps talking after its refusal", async () => {
    const client = open({
      request: withHeaders({ Upgrade: "h2c" }),
      early: Buffer.alloc(256 * 1024),
    });
    expect(await client.answered()).toBe(400);
    await client.ended();
  });
});

describe("a slow head", () => {
  it.each([
    [
      "after a few bytes",
      "GET / HTTP/1.1\r\nHost: a\r\nX: ",
      /^HTTP\/1\.1 408 Request Timeout\r\n/,
    ],
    ["after nothing at all", "", /^(HTTP\/1\.1 408 Request Timeout\r\n|$)/],
  ])("is cut off after limits.handshakeTimeout %s", async (_title, sent, expected) => {
    await start(undefined, "limits: { handshakeTimeout: 200ms }");
    const socket = connect(gateway.port, "127.0.0.1");
    let answer = "";
    const ended = new Promise((resolve) => socket.on("close", resolve));
    socket.on("data", (bytes: Buffer) => {
      answer += bytes.toString();
    });
    socket.on("error", () => undefined);
    socket.write(sent);
    await ended;
    expect(answer).toMatch(expected);
    expect(upstream.peers).toEqual([]);
  });

  it("does not end a session later", async () => {
    await start(undefined, "limits: { handshakeTimeout: 100ms }");
    const client = open();
    expect(await client.answered()).toBe(101);
    const before = performance.now();
    await eventually(() => expect(performance.now() - before).toBeGreaterThan(400));
    client.sendText("still here");
    expect(String((await (await upstream.peer()).log.received(1))[0])).toBe("still here");
  });
});

describe("the upstream's view", () => {
  it("is a request made anew: hop-by-hop headers end here, all others pass as they came", async () => {
    await start();
    const request = [
      "GET /chat/..//x?a=b&c=%20#no HTTP/1.1".replace("#no", ""),
      "Host: chat.example:8443",
      "X-First: 1",
      "Connection: keep-alive, Upgrade, X-Secret",
      "Upgrade: WebSocket",
      "X-Secret: 1",
      "Keep-Alive: timeout=5",
      "Proxy-Connection: keep-alive",
      "Proxy-Authorization: Basic x",
      "TE: trailers",
      "Trailer: X",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
      "Sec-WebSocket-Protocol: v2.chat, v1.chat",
      "Sec-WebSocket-Extensions: x-webkit-deflate-frame, permessage-deflate; client_max_window_bits, foo; bar=1",
      "Softclose-Session: forged",
      "softclose-resume: 7",
      "Cookie: a=1",
      "Cookie: b=2",
      "Origin: https://chat.example",
      "X-Twice: one",
      "x-twice: two",
      "X-Latin: caf\u00e9",
      "Content-Length: 0",
      "Authorization: Bearer t",
    ];
    open({ request: `${request.join("\r\n")}\r\n\r\n` });
    const peer = await upstream.peer();
    const id = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
    expect(peer.header("softclose-session")).toMatch(id);
    const key = peer.header("sec-websocket-key") ?? "";
    expect(key).not.toBe("dGhlIHNhbXBsZSBub25jZQ==");
    expect(Buffer.from(key, "base64")).toHaveLength(16);
    const changing = /^(Softclose-Session|Sec-WebSocket-Key):/;
    expect(peer.head.split("\r\n").filter((line) => !changing.test(line))).toEqual([
      "GET /chat/..//x?a=b&c=%20 HTTP/1.1",
      "Host: chat.example:8443",
      "X-First: 1",
      "Cookie: a=1",
      "Cookie: b=2",
      "Origin: https://chat.example",
      "X-Twice: one",
      "x-twice: two",
      "X-Latin: caf\u00e9",
      "Authorization: Bearer t",
      "X-Forwarded-For: 127.0.0.1",
      "X-Forwarded-Proto: http",
      "X-Forwarded-Host: chat.example:8443",
      "Connection: Upgrade",
      "Upgrade: websocket",
      "Sec-WebSocket-Version: 13",
      "Sec-WebSocket-Protocol: v2.chat, v1.chat",
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ]);
    expect(peer.head.match(/softclose-/gi)).toHaveLength(1);
  });

  it("has a fresh key with every dial, and the same session in all of them", async () => {
    let dials = 0;
    await start((peer) => {
      dials += 1;
      if (dials < 3) peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
      else peer.accept();
    }, "retry: { backoff: { initial: 5ms } }");
    const client = open();
    expect(await client.answered()).toBe(101);
    const heads = upstream.peers;
    expect(new Set(heads.map((peer) => peer.header("sec-websocket-key"))).size).toBe(3);
    expect(new Set(heads.map((peer) => peer.header("softclose-session"))).size).toBe(1);
  });

  it("names the session as the record does", async () => {
    await start();
    const client = open();
    await client.answered();
    const peer = await upstream.peer();
    client.reset();
    const [record] = await gateway.recorded();
    expect(record?.session).toBe(peer.header("softclose-session"));
  });

  it("gets an absolute target without its scheme and host", async () => {
    await start();
    const client = open({ path: "http://gateway.test/chat?x" });
    expect(await client.answered()).toBe(101);
    expect((await upstream.peer()).head).toMatch(/^GET \/chat\?x HTTP\/1\.1\r\n/);
  });

  it("offers no extension where the client offers none that is known", async () => {
    await start();
    open({ headers: { "Sec-WebSocket-Extensions": "foo, bar; baz" } });
    expect((await upstream.peer()).header("sec-websocket-extensions")).toBe(null);
  });
});

describe("the client's view", () => {
  it("is an accept for its own key, whatever key the upstream got", async () => {
    await start();
    const client = open();
    await client.answered();
    expect(client.header("sec-websocket-accept")).toBe(SAMPLE_ACCEPT);
    expect(client.head?.split("\r\n")[0]).toBe("HTTP/1.1 101 Switching Protocols");
    expect(client.header("sec-websocket-protocol")).toBe(null);
    expect(client.header("sec-websocket-extensions")).toBe(null);
  });

  it("is right for any key", async () => {
    await start();
    const key = Buffer.from("0123456789abcdef").toString("base64");
    const client = open({ headers: { "Sec-WebSocket-Key": key } });
    await client.answered();
    const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    const accept = createHash("sha1")
      .update(key + guid)
      .digest("base64");
    expect(client.header("sec-websocket-accept")).toBe(accept);
  });

  it("is the subprotocol and the extension that the upstream chose, and its other headers", async () => {
    await start((peer) =>
      peer.accept({
        "Sec-WebSocket-Protocol": "v1.chat",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits=10",
        Connection: "upgrade, X-Hop",
        "X-Hop": "1",
        "Keep-Alive": "timeout=5",
        "Set-Cookie": "sticky=1; Path=/",
        "set-cookie": "other=2",
        Server: "caf\u00e9",
        "Content-Length": "0",
      }),
    );
    const client = open({
      headers: {
        "Sec-WebSocket-Protocol": "v2.chat, v1.chat",
        "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
      },
    });
    await client.answered();
    expect(client.head?.split("\r\n")).toEqual([
      "HTTP/1.1 101 Switching Protocols",
      "Upgrade: websocket",
      "Connection: Upgrade",
      `Sec-WebSocket-Accept: ${SAMPLE_ACCEPT}`,
      "Sec-WebSocket-Protocol: v1.chat",
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10",
      "Set-Cookie: sticky=1; Path=/",
      "set-cookie: other=2",
      "Server: caf\u00e9",
    ]);
  });

  it("satisfies a library that checks all of it", async () => {
    await start((peer) =>
      peer.accept({
        "Sec-WebSocket-Protocol": "two",
        "Sec-WebSocket-Extensions": "permessage-deflate",
      }),
    );
    const client = new WebSocket(gateway.url(), ["one", "two"]);
    await new Promise((resolve, reject) => {
      client.on("open", resolve);
      client.on("error", reject);
    });
    expect([client.protocol, client.extensions]).toEqual(["two", "permessage-deflate"]);
    client.terminate();
  });
});
