/**
 * A client's upgrade request, as Node's parser reads it: the check of it, where it is routed, who the client
 * is said to be, and the request that the backend gets. An input is the bytes of the request.
 */
import { deepEqual, equal, ok } from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { BlockList, isIP, isIPv6 } from "node:net";
import type { HashKey, RouteConfig } from "../../../src/config/config.ts";
import { clientKey, ForwardedReader } from "../../../src/edge/forwarded.ts";
import {
  type ClientHandshake,
  checkHandshake,
  type HandshakeFault,
} from "../../../src/edge/handshake-check.ts";
import { hashKeyOf } from "../../../src/edge/hash-key.ts";
import { upgradeHeaderLines } from "../../../src/edge/request-headers.ts";
import { Router } from "../../../src/edge/router.ts";
import { serializeRequest } from "../../../src/upstream/upgrade-request.ts";
import { formatDeflate, readOffers } from "../../../src/wire/deflate.ts";
import { aRoute } from "../../unit/edge/routes.ts";
import { pairsOf, RequestReader } from "../node-parser.ts";
import { latin1, type Target } from "../target.ts";

const TRUSTED = ["10.0.0.0/8", "fd00::/8", "::1"];
const PEERS = ["203.0.113.9", "10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "2001:db8::1%eth0"];
const SESSION_ID = "11111111-2222-3333-4444-555555555555";
const UPSTREAM_KEY = "AAAAAAAAAAAAAAAAAAAAAA==";
const HASH_KEYS: readonly HashKey[] = [
  { kind: "clientIp" },
  { kind: "header", name: "X-User" },
  { kind: "cookie", name: "sid" },
  { kind: "query", name: "room" },
];

export function handshakeTarget(): Target {
  const clientSide = new RequestReader();
  const backendSide = new RequestReader();
  const reader = new ForwardedReader(TRUSTED);
  const router = new Router(routes());
  const check = (input: Buffer): void => {
    const read = clientSide.read(input);
    // Plain requests and what Node refuses never come to the check.
    if (read === null || read.behind === null) return;
    const { request } = read;
    const handshake = checkHandshake(request);
    deepEqual(checkHandshake(request), handshake);
    checkVerdict(request, handshake);
    if ("status" in handshake) return;
    checkRoute(router, handshake);
    for (const peer of PEERS) {
      const forwarded = reader.read(request.headers, peer);
      checkForwarded(forwarded, peer);
      for (const key of HASH_KEYS) {
        const found = hashKeyOf(key, request, handshake.target, forwarded.clientIp);
        notEmpty(found);
      }
      const lines = upgradeHeaderLines(request, forwarded, SESSION_ID);
      const written = serializeRequest({ ...handshake, headerLines: lines }, UPSTREAM_KEY);
      const expected = expectedHeaders(request, handshake, forwarded);
      checkUpstreamRequest(backendSide, written, handshake.target, expected);
    }
  };
  return { seeds: seeds(), tokens: TOKENS.map(latin1), maxInputBytes: 4096, check };
}

/** RFC 6455 §4.2.1 in our own words: accepted is what satisfies it, and nothing else. */
function checkVerdict(request: IncomingMessage, verdict: ClientHandshake | HandshakeFault): void {
  const headers = pairsOf(request.rawHeaders);
  const all = (name: string): string[] =>
    headers.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  const joined = (name: string): string => all(name).join(", ");
  const token = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
  const protocols = joined("sec-websocket-protocol");
  const names = protocols.split(",").map(trimBlanks);
  const parameter = `${token}(?:=(?:${token}|"(?:\\\\?[!#$%&'*+.^_\`|~0-9A-Za-z-])+"))?`;
  const extension = `${token}(?:[ \\t]*;[ \\t]*${parameter})*`;
  const extensionList = new RegExp(`^(?:${extension}(?:[ \\t]*,[ \\t]*${extension})*)?$`);
  const key = joined("sec-websocket-key");
  const isGood =
    request.method === "GET" &&
    request.httpVersionMajor === 1 &&
    request.httpVersionMinor === 1 &&
    all("host").length === 1 &&
    joined("upgrade").toLowerCase() === "websocket" &&
    joined("connection")
      .split(",")
      .some((one) => trimBlanks(one).toLowerCase() === "upgrade") &&
    joined("sec-websocket-version") === "13" &&
    Buffer.from(key, "base64").length === 16 &&
    /^[A-Za-z0-9+/]{22}==$/.test(key) &&
    all("transfer-encoding").length === 0 &&
    all("content-length").every((length) => /^0+$/.test(length)) &&
    (all("sec-websocket-protocol").length === 0 ||
      (new Set(names).size === names.length &&
        names.every((name) => new RegExp(`^${token}$`).test(name)))) &&
    extensionList.test(joined("sec-websocket-extensions")) &&
    (request.url?.startsWith("/") === true ||
      /^(?:https?|wss?):\/\/[^/?#]/i.test(request.url ?? ""));
  const accepted = !("status" in verdict);
  equal(accepted, isGood, `accepted: ${accepted}, ${JSON.stringify(verdict)}`);
  if ("status" in verdict) ok([400, 405, 426].includes(verdict.status));
  else ok(verdict.target.startsWith("/"));
}

/** Whatever a backend takes for `/admin`, by the rules of URLs, goes where `/admin` goes. */
function checkRoute(router: Router, { host, target }: ClientHandshake): void {
  const route = router.find(host, target);
  equal(router.find(host, target), route);
  const { pathname } = new URL(`http://h${target}`);
  const plain = pathname.replaceAll(/%[46][1-9a-f]|%[57][0-9a]/gi, (octet) =>
    decodeURIComponent(octet),
  );
  // What is read in two ways has no route.
  const isAdmin = /^\/+admin(?:$|\/)/.test(plain);
  if (isAdmin && route !== null) equal(route.name, "admin", `${target} is ${plain}`);
}

type Forwarded = ReturnType<ForwardedReader["read"]>;

function checkForwarded({ clientIp, headers, trusted }: Forwarded, peer: string): void {
  ok(isIP(clientIp) !== 0, `client address ${clientIp}`);
  const plain = peer.replace("::ffff:", "").replace(/%.*/, "");
  equal(trusted, /^(?:10\.|fd00:)/.test(plain));
  if (!trusted) equal(clientIp, plain);
  ok(headers["X-Forwarded-For"]?.endsWith(plain));
  if (!isIPv6(clientIp)) return;
  const network = new BlockList();
  network.addSubnet(`${clientKey(clientIp)}::`, 64, "ipv6");
  ok(network.check(clientIp, "ipv6"), `${clientIp} counts as ${clientKey(clientIp)}`);
}

function notEmpty(key: string | null): void {
  ok(key === null || key.length > 0);
}

const NEVER_PASSED =
  /^(?:connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|content-length|sec-websocket-.*)$/i;
/** Nor by a name that CGI reads the same way. */
const NEVER_PASSED_AS = /^(?:host|x[-_]forwarded[-_](?:for|proto|host)|softclose[-_].*)$/i;

/** Every header that the backend is to see, in order. */
function expectedHeaders(
  request: IncomingMessage,
  { host, subprotocols }: ClientHandshake,
  { headers, trusted }: Forwarded,
): [string, string][] {
  const sent = pairsOf(request.rawHeaders);
  const values = (name: string): string[] =>
    sent.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  const named = values("connection").flatMap((value) =>
    value.split(",").map((one) => trimBlanks(one).toLowerCase()),
  );
  const passed = sent.filter(([name]) => {
    if (/^proxy-(?!authenticate$|authorization$|connection$)/i.test(name))
      return !named.includes(name.toLowerCase());
    if (NEVER_PASSED.test(name) || NEVER_PASSED_AS.test(name) || named.includes(name.toLowerCase()))
      return false;
    return trusted || !/^(?:x[-_]forwarded[-_].*|forwarded|x[-_]real[-_]ip)$/i.test(name);
  });
  const offers = readOffers(values("sec-websocket-extensions").join(", ")) ?? [];
  return [
    ["Host", host],
    ...passed,
    // Joined from several that are empty, one may end in a blank, which no reader keeps.
    ...Object.entries(headers).map(([name, value]): [string, string] => [name, trimBlanks(value)]),
    ["Softclose-Session", SESSION_ID],
    ["Connection", "Upgrade"],
    ["Upgrade", "websocket"],
    ["Sec-WebSocket-Version", "13"],
    ["Sec-WebSocket-Key", UPSTREAM_KEY],
    ...(subprotocols.length === 0
      ? []
      : [["Sec-WebSocket-Protocol", subprotocols.join(", ")] as [string, string]]),
    ...(offers.length === 0
      ? []
      : [["Sec-WebSocket-Extensions", formatDeflate(offers)] as [string, string]]),
  ];
}

/** A strict reader and Node's parser both see one request with exactly these headers. */
function checkUpstreamRequest(
  backendSide: RequestReader,
  written: string,
  target: string,
  expected: readonly [string, string][],
): void {
  const [requestLine, ...lines] = written.split("\r\n");
  equal(requestLine, `GET ${target} HTTP/1.1`);
  deepEqual(lines.slice(-2), ["", ""]);
  const strict = lines.slice(0, -2).map((line) => {
    ok(!/[\0\r\n]/.test(line), `unsafe characters in ${JSON.stringify(line)}`);
    const colon = line.indexOf(":");
    return [line.slice(0, colon), trimBlanks(line.slice(colon + 1))];
  });
  deepEqual(strict, expected);
  const read = backendSide.read(latin1(written));
  ok(read !== null, `Node refuses what the backend is sent: ${JSON.stringify(written)}`);
  equal(read.behind?.length, 0);
  equal(read.request.url, target);
  deepEqual(pairsOf(read.request.rawHeaders), expected);
}

/** Not `trim`: to it 0xA0 is a blank, too. */
function trimBlanks(text: string): string {
  return text.replaceAll(/^[ \t]+|[ \t]+$/g, "");
}

function routes(): RouteConfig[] {
  return [
    aRoute("admin", { host: null, path: "/admin" }),
    aRoute("example", { host: "*.example.com", path: "/ws" }),
    aRoute("exact", { host: "chat.example", path: null }),
    aRoute("rest", { host: null, path: "/" }),
  ];
}

const GOOD = [
  "Host: chat.example",
  "Connection: Upgrade",
  "Upgrade: websocket",
  "Sec-WebSocket-Version: 13",
  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

function upgrade(line: string, ...headers: readonly string[]): Buffer {
  return latin1(`${line} HTTP/1.1\r\n${[...GOOD, ...headers].join("\r\n")}\r\n\r\n`);
}

function seeds(): Buffer[] {
  return [
    upgrade("GET /"),
    upgrade("GET /admin/../%61dmin?room=1#x", "Cookie: a=b; sid=7", "X-User: me"),
    upgrade("GET http://other:80/ws?room=2", "Sec-WebSocket-Protocol: v2, v1"),
    upgrade(
      "GET //a\\b/./..",
      'Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits; server_max_window_bits="1\\0", x',
    ),
    upgrade(
      "GET /",
      "X-Forwarded-For: 1.2.3.4:80, [2001:db8::2]:1, ::ffff:10.0.0.1",
      "X-Forwarded-Proto: https",
    ),
    upgrade(
      "GET /",
      "Forwarded: for=1",
      "X-Real-IP: 1.1.1.1",
      "X-Forwarded-Host: h",
      "Proxy-Authorization: x",
    ),
    upgrade(
      "GET /",
      "Connection: close, X-Secret",
      "X-Secret: 1",
      "TE: trailers",
      "Softclose-Session: mine",
    ),
    upgrade("GET /", "Content-Length: 0", "Transfer-Encoding: chunked"),
    upgrade("POST /", "Content-Length: 5"),
    Buffer.concat([upgrade("GET /"), Buffer.from([0x81, 0x80, 1, 2, 3, 4])]),
  ];
}

const TOKENS = [
  ...GOOD.map((line) => `${line}\r\n`),
  "\r\n",
  "\n",
  "\r",
  "\0",
  "\t",
  " ",
  ":",
  ",",
  ";",
  "=",
  '"',
  "\\",
  "/",
  "//",
  "..",
  "/..",
  "%2e",
  "%2E%2e",
  "%61",
  "%5c",
  "?",
  "#",
  "\xff",
  "\x80",
  "\x7f",
  "HTTP/1.0",
  "HTTP/1.1",
  "http://",
  "GET ",
  "POST ",
  "websocket",
  "Upgrade",
  "upgrade",
  "keep-alive",
  "Connection: ",
  "Host: ",
  "Content-Length: 0\r\n",
  "Transfer-Encoding: chunked\r\n",
  "Softclose-Resume: 9\r\n",
  "X-Forwarded-For: ",
  "10.0.0.1",
  "::ffff:0a00:0001",
  "[::1]:80",
  "fe80::1%eth0",
  "1:2:3::4:5",
  "::1.2.3.4",
  "2001:0db8::",
  "Sec-WebSocket-Protocol: ",
  "Sec-WebSocket-Extensions: ",
  "permessage-deflate",
  "server_no_context_takeover",
  "client_max_window_bits=15",
  "__proto__",
  "/admin",
  "chat.example",
  "a.example.com.",
  " folded\r\n\t",
];
