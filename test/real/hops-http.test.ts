/** Plain HTTP past the gateway with a hop on either side: bodies of every kind, connections used again. */
import { createHash } from "node:crypto";
import { Agent, type IncomingMessage, type ServerResponse } from "node:http";
import { describe, expect, it } from "vitest";
import { ask, bodyOf, type HttpHandler } from "../support/http-backend.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { echoed, HopSetting } from "./support/hop-setting.ts";
import { HAPROXY, HOP_PROGRAMS, type HopKind, HTTP_HOPS, NGINX } from "./support/hops.ts";

const MIB = 2 ** 20;
const LARGE = Buffer.alloc(8 * MIB, "soft close, hard facts; ");

/** nginx passes a body on as it comes, in place of keeping it in a file first. */
const UNBUFFERED = "proxy_request_buffering off; proxy_buffering off;";

interface Chain {
  readonly title: string;
  readonly front?: HopKind;
  readonly behind?: HopKind;
  readonly rules?: string;
}

const chains: readonly Chain[] = [
  { title: "nginx in front", front: NGINX },
  { title: "nginx in front, which buffers nothing", front: NGINX, rules: UNBUFFERED },
  { title: "nginx behind", behind: NGINX },
  { title: "nginx behind, which buffers nothing", behind: NGINX, rules: UNBUFFERED },
  { title: "HAProxy in front", front: HAPROXY },
  { title: "HAProxy behind", behind: HAPROXY },
  { title: "nginx in front and HAProxy behind", front: NGINX, behind: HAPROXY },
];

/** Says what it got. In chunks, unless asked for a length. */
const report: HttpHandler = (request, response) => {
  void bodyOf(request).then((body) => reportOn(request, response, body));
};

function reportOn(request: IncomingMessage, response: ServerResponse, body: string): void {
  const text = `${request.method} ${request.url} ${digestOf(body)}`;
  if (request.url === "/length") response.setHeader("Content-Length", text.length);
  else response.write(text.slice(0, 5));
  response.end(request.url === "/length" ? text : text.slice(5));
}

const digestOf = (body: Buffer | string): string => createHash("sha256").update(body).digest("hex");

async function startChain(
  setting: HopSetting,
  { front, behind, rules = "" }: Chain,
  backendPort: number,
): Promise<number> {
  const to =
    behind === undefined
      ? backendPort
      : (await setting.hop(behind, { to: backendPort, rules })).port;
  const gateway = await setting.startGateway([`ws://127.0.0.1:${to}`]);
  if (front === undefined) return gateway.port;
  return (await setting.hop(front, { to: gateway.port, rules })).port;
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(chains))("%s", (_title, chain) => {
  it("serves requests one after the other over the same connections", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.http(report);
    const port = await startChain(setting, chain, backend.port);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (const path of ["/length", "/chunks", "/length", "/chunks"]) {
      for (const method of ["GET", "POST"]) {
        const body = method === "POST" ? "hello" : "";
        const answer = await ask(port, { method, path, body, agent });
        expect(answer).toMatchObject({
          status: 200,
          body: `${method} ${path} ${digestOf(body)}`,
          complete: true,
        });
      }
    }
    expect(Object.values(agent.freeSockets).flat()).toHaveLength(1);
    agent.destroy();
    expect(backend.sockets.size).toBe(1);
  });

  it("takes a large body with a length, and one in chunks", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.http(report);
    const port = await startChain(setting, chain, backend.port);
    for (const headers of [{}, { "Transfer-Encoding": "chunked" }]) {
      const answer = await ask(port, { method: "PUT", path: "/up", body: LARGE, headers });
      expect(answer).toMatchObject({
        status: 200,
        body: `PUT /up ${digestOf(LARGE)}`,
        complete: true,
      });
    }
  });

  it("gives a large answer with a length, and one in chunks", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.http((request, response) => {
      if (request.url === "/length") response.setHeader("Content-Length", LARGE.length);
      for (let at = 0; at < LARGE.length; at += MIB) response.write(LARGE.subarray(at, at + MIB));
      response.end();
    });
    const port = await startChain(setting, chain, backend.port);
    for (const path of ["/length", "/chunks"]) {
      const { status, headers, body, complete } = await ask(port, { path });
      expect({ status, complete, length: headers["content-length"] }).toEqual({
        status: 200,
        complete: true,
        length: path === "/length" ? String(LARGE.length) : undefined,
      });
      expect(digestOf(body)).toBe(digestOf(LARGE));
    }
  });

  it("never takes half an answer for a whole one", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.http((request, response) => {
      if (request.url === "/length") response.setHeader("Content-Length", 100);
      response.write("half", () => request.socket.destroy());
    });
    const port = await startChain(setting, chain, backend.port);
    for (const path of ["/length", "/chunks"]) {
      // A hop that has not passed anything on yet may as well answer 502, or cut.
      const answer = await ask(port, { path }).catch(() => ({ status: 0, complete: false }));
      expect(answer.status !== 200 || !answer.complete).toBe(true);
    }
  });
});

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(HTTP_HOPS))(
  "%s in front, with plain requests and sessions side by side",
  (_title, kind) => {
    it("serves both", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const gateway = await setting.startGateway([backend.url]);
      const hop = await setting.hop(kind, { to: gateway.port });
      const client = await setting.open(hop.port);
      // What `ws` answers to a request that is no upgrade.
      for (let i = 0; i < 3; i += 1) {
        expect(await ask(hop.port)).toMatchObject({ status: 426, body: "Upgrade Required" });
      }
      await echoed(client, "still here");
    });
  },
);
