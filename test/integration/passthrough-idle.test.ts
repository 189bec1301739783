/** Plain HTTP over a backend's idle connection that it ends just as the next request is on its way. */
import { Agent } from "node:http";
import { afterEach, describe, expect, it } from "vitest";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { ask, type HttpAnswer, type HttpAsk } from "../support/http-backend.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let backend: RawUpstream;
let gateway: TestGateway;
const agent = new Agent({ keepAlive: true });

afterEach(async () => {
  agent.destroy();
  await gateway.stopClean();
  await backend.stop();
});

type Ending = (peer: UpstreamPeer) => void;

const ends: Ending = (peer) => peer.end();
const resets: Ending = (peer) => peer.reset();

const serves: Behaviour = (peer) => peer.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");

/** The first connection serves one request, and is ended when the next one comes on it. */
async function start(ending: Ending, laterOnes: Behaviour = serves): Promise<void> {
  let connections = 0;
  backend = await RawUpstream.start((peer) => {
    connections += 1;
    if (connections > 1) {
      laterOnes(peer);
      return;
    }
    serves(peer);
    peer.socket.once("data", () => ending(peer));
  });
  gateway = await startGateway(onePool([backend.url]));
  expect(await ask(gateway.port, { agent })).toMatchObject({ status: 200 });
}

function second(options: HttpAsk): Promise<HttpAnswer> {
  return ask(gateway.port, { agent, ...options });
}

describe.each([
  ["ends", ends],
  ["resets", resets],
])("an idle connection that the backend %s", (_title, ending) => {
  it.each(["GET", "HEAD", "OPTIONS"])("does not fail %s: it is sent again", async (method) => {
    await start(ending);
    expect(await second({ method, path: "/again" })).toMatchObject({ status: 200 });
    expect(backend.peers.map(({ head }) => head.split("\r\n")[0])).toEqual([
      "GET / HTTP/1.1",
      `${method} /again HTTP/1.1`,
    ]);
  });

  it.each([
    ["a POST", { method: "POST" }],
    ["a DELETE", { method: "DELETE" }],
    ["a GET with a body", { method: "GET", headers: { "Content-Length": "4" }, body: "body" }],
    ["a GET with chunks", { headers: { "Transfer-Encoding": "chunked" }, body: "body" }],
  ] satisfies [string, HttpAsk][])(
    "fails %s, which may not be repeated",
    async (_what, options) => {
      await start(ending);
      expect(await second(options)).toMatchObject({ status: 502, body: "the backend failed\n" });
      expect(backend.peers).toHaveLength(1);
    },
  );
});

it("sends a request again once, and never one that a new connection has failed", async () => {
  await start(ends, (peer) => peer.end());
  expect(await second({})).toMatchObject({ status: 502 });
  expect(backend.peers).toHaveLength(2);
  expect(await second({})).toMatchObject({ status: 502 });
  expect(backend.peers).toHaveLength(3);
});
