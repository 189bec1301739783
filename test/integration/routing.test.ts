/** Which route takes a request, seen from outside: each has a backend of its own. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startGateway, type TestGateway } from "../support/gateway.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let gateway: TestGateway;
const upstreams: RawUpstream[] = [];
const clients: RawClient[] = [];

beforeAll(async () => {
  for (const name of ["chat", "star", "admin", "six"]) {
    upstreams.push(
      await RawUpstream.start((peer) => {
        if (peer.head.includes("pgrade: websocket")) peer.accept({ "X-Served-By": name });
        else {
          peer.write(`HTTP/1.1 200 OK\r\nX-Served-By: ${name}\r\nConnection: close\r\n\r\n`);
          peer.end();
        }
      }),
    );
  }
  const [chat, star, admin, six] = upstreams.map(({ url }) => url);
  gateway = await startGateway(`
close: { timeout: 50ms }
routes:
  - { name: chat, match: { host: Chat.Example.com, path: /ws/ }, pool: chat }
  - { name: admin, match: { path: /admin }, pool: admin }
  - { name: six, match: { host: "*.six.test" }, pool: six }
  - { name: star, match: { host: "*.example.com", path: /ws }, pool: star }
pools:
  chat: { backends: [{ url: "${chat}" }] }
  star: { backends: [{ url: "${star}" }] }
  admin: { backends: [{ url: "${admin}" }] }
  six: { backends: [{ url: "${six}" }] }
`);
});

afterAll(async () => {
  for (const { socket } of clients) socket.destroy();
  await gateway.stopClean();
  for (const upstream of upstreams) await upstream.stop();
});

const CASES: [host: string, path: string, served: string | null][] = [
  ["chat.example.com", "/ws", "chat"],
  ["CHAT.example.COM", "/ws/room?x=/admin", "chat"],
  ["chat.example.com:8443", "/ws", "chat"],
  ["chat.example.com.", "/ws", "chat"],
  ["chat.example.com.:8443", "/ws", "chat"],
  ["chat.example.com", "/wsx", null],
  ["chat.example.com", "/ws?x", "chat"],
  ["chat.example.com", "/a/../ws", null],
  ["chat.example.com", "/ws/../admin", null],
  ["chat.example.com", "/ws/%2e%2E/admin", null],
  ["chat.example.com", "/admin/../ws", null],
  ["chat.example.com", "/ws/a/../b", "chat"],
  ["chat.example.com", "/ws/..", null],
  ["chat.example.com", "/WS", null],
  ["other.example.com", "/ws/x", "star"],
  ["a.b.example.com", "/ws", "star"],
  ["example.com", "/ws", null],
  ["badexample.com", "/ws", null],
  ["a.six.test", "/", "six"],
  ["a.six.test", "/admin", "admin"],
  ["[::1]:8080", "/admin/x", "admin"],
  ["[::1]", "/", null],
];

describe.each([
  ["an upgrade", (host: string, path: string) => ({ path, headers: { Host: host } })],
  [
    "a plain request",
    (host: string, path: string) => ({
      request: `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
    }),
  ],
])("%s", (_kind, options) => {
  it.each(CASES)("for %s%s is served by %s", async (host, path, served) => {
    const client = new RawClient(gateway.port, options(host, path));
    clients.push(client);
    await client.answered();
    expect(client.header("x-served-by")).toBe(served);
    client.socket.destroy();
  });
});

it("answers a plain request without a route with 404", async () => {
  const client = new RawClient(gateway.port, {
    request: "GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n",
  });
  clients.push(client);
  expect(await client.answered()).toBe(404);
  await client.ended();
});

it("refuses and records an upgrade without a route, under a name that no route can have", async () => {
  const before = gateway.records.length;
  const client = new RawClient(gateway.port, { headers: { Host: "nowhere" } });
  await client.log.frame(8);
  expect(client.log.closes).toEqual([{ code: 1008, reason: "no route for this host and path" }]);
  client.sendClose(1008);
  const records = await gateway.recorded(before + 1);
  expect(records.at(-1)).toMatchObject({
    route: "-",
    cause: "forbidden",
    refused: true,
    backend: null,
    dials: 0,
    client: { sent: 1008, received: 1008 },
  });
  await client.ended();
});
