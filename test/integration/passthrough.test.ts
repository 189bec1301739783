/** Plain HTTP on a WebSocket port: to the same backends, whole, and never at the gateway's cost. */
import { Agent, createServer, request as httpRequest, type Server } from "node:http";
import { connect } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { ForwardedReader } from "../../src/edge/forwarded.ts";
import { Passthrough } from "../../src/edge/passthrough.ts";
import { Router } from "../../src/edge/router.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { ask, bodyOf, HttpBackend, type HttpHandler } from "../support/http-backend.ts";
import { makePool } from "../support/pool-config.ts";
import { RawClient, upgradeRequest } from "../support/raw-client.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

const MIB = 1024 * 1024;

let gateway: TestGateway;
let backend: HttpBackend | RawUpstream;

async function start(handler: HttpHandler, more = ""): Promise<HttpBackend> {
  const http = await HttpBackend.start(handler);
  backend = http;
  gateway = await startGateway(onePool([http.url], more));
  return http;
}

/** A backend that answers whatever comes with these bytes. */
async function startRaw(answer: string, end: "keeps" | "ends" | "resets" = "keeps"): Promise<void> {
  backend = await RawUpstream.start((peer) => {
    peer.write(answer);
    if (end === "ends") peer.end();
    if (end === "resets") peer.socket.once("drain", () => peer.reset());
  });
  gateway = await startGateway(onePool([backend.url]));
}

/** Waits until a count has begun and comes no further. */
async function stalled(count: () => number): Promise<void> {
  let before = 0;
  let same = 0;
  await eventually(() => {
    same = count() > 0 && count() === before ? same + 1 : 0;
    before = count();
    expect(same).toBeGreaterThan(20);
  });
}

const echo: HttpHandler = (request, response) => {
  void bodyOf(request).then((body) => response.end(`${request.method} ${request.url} ${body}`));
};

// What nobody catches fails the run by itself: here a crash of the gateway is one of the test's process.
afterEach(async () => {
  await gateway.stopClean();
  await backend.stop();
});

describe("a plain request", () => {
  it("reaches the backend with its method, target, headers and body", async () => {
    const http = await start(echo);
    const answer = await ask(gateway.port, {
      method: "POST",
      path: "/a/b?c=d&e",
      headers: { Host: "shop.example", "X-Own": "1", Cookie: "a=b; c=d" },
      body: "hello",
    });
    expect(answer).toMatchObject({ status: 200, body: "POST /a/b?c=d&e hello", complete: true });
    expect(http.requests[0]?.headers).toMatchObject({
      host: "shop.example",
      "x-own": "1",
      cookie: "a=b; c=d",
      "content-length": "5",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": "shop.example",
    });
  });

  it.each([
    ["/x/../%7e//y?a=?b", "/x/../%7e//y?a=?b"],
    ["//double//slash", "//double//slash"],
    ["/\\", "/\\"],
    ["/\\evil.example/admin", "/\\evil.example/admin"],
    ["http://shop.example/abs?q", "/abs?q"],
    ["http://shop.example", "/"],
  ])("keeps its target as it came: %s", async (target, forwarded) => {
    const http = await start(echo);
    const client = new RawClient(gateway.port, {
      request: `GET ${target} HTTP/1.1\r\nHost: shop.example\r\n\r\n`,
    });
    expect(await client.answered()).toBe(200);
    expect(http.requests.map(({ url }) => url)).toEqual([forwarded]);
    client.socket.destroy();
  });

  it("keeps the connections to client and backend open for the next one", async () => {
    const http = await start(echo);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let i = 0; i < 5; i += 1) {
      expect((await ask(gateway.port, { agent, path: `/${i}` })).body).toBe(`GET /${i} `);
    }
    expect(http.sockets.size).toBe(1);
    expect(Object.values(agent.freeSockets).flat()).toHaveLength(1);
    agent.destroy();
  });

  it("ends the connection after a client that asked for it", async () => {
    await start(echo);
    const client = new RawClient(gateway.port, {
      request: "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    });
    expect(await client.ended()).toBe("fin");
    expect(client.header("connection")).toBe("close");
  });

  it("serves an HTTP/1.0 client and closes", async () => {
    const http = await start(echo);
    const client = new RawClient(gateway.port, { request: "GET /old HTTP/1.0\r\n\r\n" });
    expect(await client.ended()).toBe("fin");
    expect(client.body.toString()).toBe("GET /old ");
    expect(http.requests[0]?.headers).not.toHaveProperty("x-forwarded-host");
  });

  it("passes hop-by-hop headers and those that Connection names on in neither direction", async () => {
    const http = await start((_request, response) => {
      response.writeHead(200, [
        ["Connection", "close, X-Drop"],
        ["X-Drop", "1"],
        ["Keep-Alive", "timeout=1"],
        ["Proxy-Authenticate", "Basic"],
        ["Upgrade", "h2c"],
        ["Set-Cookie", "a=1"],
        ["Set-Cookie", "b=2"],
        ["X-Kept", "\u00e9"],
        ["Content-Length", "2"],
      ]);
      response.end(Buffer.from("ok"));
    });
    const answer = await ask(gateway.port, {
      headers: {
        Connection: "keep-alive, X-Secret, Host",
        "X-Secret": "1",
        "Keep-Alive": "timeout=1",
        TE: "trailers",
        "Proxy-Authorization": "Basic x",
        "Softclose-Session": "forged",
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Port": "1",
        "X-Real-IP": "6.6.6.6",
        Forwarded: "for=6.6.6.6",
      },
    });
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject({ "set-cookie": ["a=1", "b=2"], "x-kept": "\u00e9" });
    for (const name of ["x-drop", "proxy-authenticate", "upgrade"]) {
      expect(answer.headers).not.toHaveProperty(name);
    }
    expect(answer.headers["keep-alive"]).not.toBe("timeout=1");
    expect(http.requests[0]?.headers).toEqual({
      host: `127.0.0.1:${gateway.port}`,
      connection: "keep-alive",
      "x-forwarded-for": "127.0.0.1",
      "x-forwarded-proto": "http",
      "x-forwarded-host": `127.0.0.1:${gateway.port}`,
    });
  });

  it("never takes an upgrade other than websocket to the backend", async () => {
    const http = await start(echo);
    const answer = await ask(gateway.port, {
      headers: { Upgrade: "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__" },
    });
    expect(answer.status).toBe(200);
    expect(http.requests[0]?.headers).not.toHaveProperty("upgrade");
  });

  it("answers HEAD with the length and without the body", async () => {
    await start((_request, response) => {
      response.writeHead(200, { "Content-Length": 1234 });
      response.end();
    });
    const answer = await ask(gateway.port, { method: "HEAD" });
    expect(answer).toMatchObject({ status: 200, body: "" });
    expect(answer.headers["content-length"]).toBe("1234");
  });

  it.each([204, 304, 404, 418, 500])("passes status %i on as it is", async (status) => {
    await start((_request, response) => {
      response.writeHead(status, { ETag: '"1"' });
      response.end();
    });
    const answer = await ask(gateway.port, { headers: { "If-None-Match": '"1"' } });
    expect(answer).toMatchObject({ status, body: "", complete: true });
    expect(answer.headers["etag"]).toBe('"1"');
  });

  it("passes an informational answer by and relays the real one", async () => {
    await startRaw(
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
    );
    expect(await ask(gateway.port)).toMatchObject({ status: 200, body: "hi" });
  });

  it("invites the body of a client that waits for 100 Continue", async () => {
    const http = await start(echo);
    const body = await new Promise<string>((resolve, reject) => {
      const request = httpRequest({
        host: "127.0.0.1",
        port: gateway.port,
        method: "PUT",
        headers: { Expect: "100-continue", "Content-Length": 4 },
        agent: false,
      });
      request.on("error", reject);
      request.on("continue", () => request.end("body"));
      request.on("response", (response) => void bodyOf(response).then(resolve));
    });
    expect(body).toBe("PUT / body");
    expect(http.requests[0]?.headers).not.toHaveProperty("expect");
  });

  it("is served beside 99 others", async () => {
    await start(echo);
    const paths = Array.from({ length: 100 }, (_, i) => `/${i}`);
    const answers = await Promise.all(
      paths.map((path) => ask(gateway.port, { path, method: "POST", body: path })),
    );
    expect(answers.map(({ body }) => body)).toEqual(paths.map((path) => `POST ${path} ${path}`));
  });

  it("finds no route: 404, and the backend hears nothing", async () => {
    const http = await HttpBackend.start(echo);
    backend = http;
    gateway = await startGateway(
      `routes: [{ name: ws, match: { path: /ws }, pool: main }]\npools: { main: { backends: [{ url: "${http.url}" }] } }`,
    );
    expect((await ask(gateway.port, { path: "/wsx" })).status).toBe(404);
    expect(http.requests).toEqual([]);
  });
});

describe("the framing of a request", () => {
  const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
  const chunk = `${smuggled.length.toString(16)}\r\n${smuggled}\r\n0\r\n\r\n`;

  it.each(["GET", "POST", "DELETE", "OPTIONS", "PATCH"])(
    "keeps a chunked body of %s a body",
    async (method) => {
      const http = await start(echo);
      const client = new RawClient(gateway.port, {
        request: `${method} /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`,
      });
      expect(await client.answered()).toBe(200);
      await eventually(() => expect(client.body.toString()).toContain(smuggled));
      expect(http.requests.map(({ url }) => url)).toEqual(["/a"]);
      client.socket.destroy();
    },
  );

  it.each(["GET", "DELETE", "POST"])(
    "does not let Connection take the length of a body of %s away",
    async (method) => {
      const http = await start(echo);
      const client = new RawClient(gateway.port, {
        request: `${method} /a HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: ${smuggled.length}\r\n\r\n${smuggled}`,
      });
      expect(await client.answered()).toBe(200);
      await eventually(() => expect(client.body.toString()).toContain(smuggled));
      expect(http.requests.map(({ url }) => url)).toEqual(["/a"]);
      client.socket.destroy();
    },
  );

  it.each([
    ["two Host headers", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
    ["no Host header", "GET / HTTP/1.1\r\n\r\n", 400],
    ["an asterisk for a target", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400],
    [
      "length and chunks",
      "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      400,
    ],
    [
      "a coding of which nobody knows",
      "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
      501,
    ],
  ])("is refused with %s", async (_title, request, status) => {
    const http = await start(echo);
    const client = new RawClient(gateway.port, { request });
    expect(await client.answered()).toBe(status);
    await client.ended();
    expect(http.requests).toEqual([]);
  });
});

describe("a large body", () => {
  it("streams to the client with back-pressure, in flat memory", async () => {
    const piece = Buffer.alloc(MIB, "x");
    let produced = 0;
    await start((_request, response) => {
      const more = (): void => {
        while (produced < 96) {
          produced += 1;
          if (!response.write(piece)) {
            response.once("drain", more);
            return;
          }
        }
        response.end();
      };
      more();
    });
    const client = connect(gateway.port, "127.0.0.1");
    client.pause();
    client.write("GET / HTTP/1.0\r\n\r\n");
    // The backend comes to a stop while the client reads nothing.
    await stalled(() => produced);
    expect(produced).toBeLessThan(60);
    let received = 0;
    client.on("data", (bytes: Buffer) => {
      received += bytes.length;
    });
    client.resume();
    await new Promise((resolve) => client.on("end", resolve));
    expect(received).toBeGreaterThan(96 * MIB);
  });

  it("streams to the backend as the backend takes it", async () => {
    let resume: (() => void) | null = null;
    let received = 0;
    await start((request, response) => {
      request.pause();
      resume = () => {
        request.on("data", (bytes: Buffer) => {
          received += bytes.length;
        });
        request.on("end", () => response.end(String(received)));
        request.resume();
      };
    });
    const request = httpRequest({
      host: "127.0.0.1",
      port: gateway.port,
      method: "PUT",
      agent: false,
    });
    const answered = new Promise<string>((resolve, reject) => {
      request.on("error", reject);
      request.on("response", (response) => void bodyOf(response).then(resolve));
    });
    const piece = Buffer.alloc(MIB, "x");
    let written = 0;
    const more = (): void => {
      while (written < 64) {
        written += 1;
        if (!request.write(piece)) {
          request.once("drain", more);
          return;
        }
      }
      request.end();
    };
    more();
    await stalled(() => written);
    expect(written).toBeLessThan(60);
    (await eventually(() => resume ?? Promise.reject(new Error("no request yet"))))();
    expect(await answered).toBe(String(64 * MIB));
  });
});

describe("a backend that fails", () => {
  it("and refuses is 502, as text or as JSON", async () => {
    const http = await start(echo);
    await http.stop();
    expect(await ask(gateway.port)).toMatchObject({ status: 502, body: "the backend failed\n" });
    const json = await ask(gateway.port, { headers: { Accept: "application/json" } });
    expect(json.headers["content-type"]).toBe("application/json");
    expect(JSON.parse(json.body)).toEqual({ status: 502, error: "the backend failed" });
    backend = await HttpBackend.start(echo);
  });

  it("and refuses in the middle of a large upload is 502 to the client", async () => {
    const http = await start(echo);
    await http.stop();
    const answer = await ask(gateway.port, { method: "POST", body: Buffer.alloc(32 * MIB) });
    expect(answer.status).toBe(502);
    backend = await HttpBackend.start(echo);
  });

  it("and closes before it answers is 502", async () => {
    await start((request) => request.socket.destroy());
    expect((await ask(gateway.port)).status).toBe(502);
  });

  it.each([
    ["a length that it does not reach", "Content-Length: 100", "half"],
    ["chunks without an end", "Transfer-Encoding: chunked", "4\r\nhalf\r\n"],
    ["a broken chunk", "Transfer-Encoding: chunked", "4\r\nhalf\r\nnonsense\r\n"],
  ])("in mid-body never looks like a whole answer: %s", async (_title, framing, body) => {
    await startRaw(`HTTP/1.1 200 OK\r\n${framing}\r\n\r\n${body}`, "ends");
    const answer = await ask(gateway.port).catch((error: Error) => ({ complete: false, error }));
    expect(answer.complete).toBe(false);
  });

  it("in mid-body by a reset never looks like a whole answer", async () => {
    await start((request, response) => {
      response.writeHead(200, { "Content-Length": 100 });
      response.write("half", () => request.socket.resetAndDestroy());
    });
    const answer = await ask(gateway.port).catch((error: Error) => ({ complete: false, error }));
    expect(answer.complete).toBe(false);
  });

  it.each([
    ["a reason that may not be sent", "HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nhi", 200],
    ["an announced trailer", "HTTP/1.1 200 OK\r\nTrailer: X\r\nContent-Length: 2\r\n\r\nhi", 200],
    ["no status", "HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nhi", 502],
    [
      "an upgrade that nobody asked for",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
      502,
    ],
    ["a bare 101", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 502],
    ["a control character", "HTTP/1.1 200 OK\r\nX: \x01\r\nContent-Length: 2\r\n\r\nhi", 502],
    ["no HTTP", "220 mail.example ESMTP\r\n\r\n", 502],
    ["a head of 100 KiB", `HTTP/1.1 200 OK\r\nX: ${"x".repeat(100 * 1024)}\r\n\r\n`, 502],
  ])("by answering with %s hurts nobody but itself", async (_title, answer, status) => {
    await startRaw(answer);
    const client = await ask(gateway.port);
    expect(client.status).toBe(status);
    expect(client.complete).toBe(true);
  });
});

describe("a backend that says nothing", () => {
  const stops: (() => void)[] = [];

  afterEach(() => {
    for (const stop of stops.splice(0)) stop();
  });

  /** The passthrough alone, with a short patience. */
  async function startImpatient(silenceTimeoutMs: number): Promise<number> {
    const yaml = `listeners: [{ name: a, bind: "127.0.0.1:0" }]\n${onePool([backend.url])}`;
    const loaded = loadConfig(yaml, { file: "test", env: {} });
    if (!("config" in loaded)) throw new Error("bad config");
    const { routes, pools } = loaded.config;
    const router = new Router(routes);
    const passthrough = new Passthrough({
      routing: () => ({ router }),
      pools: new Map(pools.map((pool) => [pool.name, makePool(pool)])),
      silenceTimeoutMs,
    });
    const reader = new ForwardedReader([]);
    const server: Server = createServer((request, response) =>
      passthrough.handle(request, response, reader),
    );
    stops.push(() => {
      server.close();
      server.closeAllConnections();
      passthrough.close();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  it("is 504", async () => {
    await start(() => undefined);
    const port = await startImpatient(100);
    expect(await ask(port)).toMatchObject({
      status: 504,
      body: "the backend did not answer in time\n",
    });
  });

  it("any more in mid-body breaks the answer off", async () => {
    await start((_request, response) => {
      response.writeHead(200, { "Content-Length": 100 });
      response.write("half");
    });
    const port = await startImpatient(100);
    expect(await ask(port)).toMatchObject({ status: 200, body: "half", complete: false });
  });
});

describe("no backend", () => {
  it("is 503 with Retry-After", async () => {
    backend = await HttpBackend.start(echo);
    gateway = await startGateway(onePool([backend.url]));
    const answers: number[] = [];
    const passthrough = new Passthrough({
      routing: () => ({ router: new Router([ROUTE]) }),
      pools: new Map(),
    });
    const server = createServer((request, response) =>
      passthrough.handle(request, response, new ForwardedReader([])),
    );
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const answer = await ask(port, { headers: { Accept: "application/problem+json" } });
    answers.push(answer.status);
    expect(answers).toEqual([503]);
    expect(answer.headers["retry-after"]).toBe("1");
    expect(JSON.parse(answer.body)).toMatchObject({ status: 503 });
    server.close();
    server.closeAllConnections();
    passthrough.close();
  });
});

describe("a client that vanishes", () => {
  it("in the middle of its own body takes the backend's request with it", async () => {
    let aborted = 0;
    const http = await start((request) => {
      request.on("error", () => undefined);
      request.on("close", () => {
        aborted += 1;
      });
      request.resume();
    });
    const client = new RawClient(gateway.port, {
      request: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf",
    });
    await eventually(() => expect(http.requests).toHaveLength(1));
    client.reset();
    await eventually(() => expect(aborted).toBe(1));
    await eventually(() => expect(http.sockets.size).toBe(0));
  });

  it.each(["reset", "destroy"] as const)(
    "in the middle of the answer's body by %s takes the backend's answer with it",
    async (how) => {
      let aborted = 0;
      const http = await start((_request, response) => {
        response.on("close", () => {
          aborted += 1;
        });
        const piece = Buffer.alloc(64 * 1024);
        const more = (): void => {
          while (!response.destroyed && response.write(piece));
        };
        response.on("drain", more);
        more();
      });
      const client = new RawClient(gateway.port, {
        request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
      });
      await client.answered();
      if (how === "reset") client.reset();
      else client.socket.destroy();
      await eventually(() => expect(aborted).toBe(1));
      await eventually(() => expect(http.sockets.size).toBe(0));
    },
  );

  it("before the answer takes the backend's request with it", async () => {
    let aborted = 0;
    const http = await start((request) => {
      request.on("close", () => {
        aborted += 1;
      });
    });
    const client = new RawClient(gateway.port, { request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" });
    await eventually(() => expect(http.requests).toHaveLength(1));
    client.socket.destroy();
    await eventually(() => expect(aborted).toBe(1));
    await eventually(() => expect(http.sockets.size).toBe(0));
  });
});

describe("a drain", () => {
  it("lets requests that are under way have their answers", async () => {
    const finish: (() => void)[] = [];
    await start((_request, response) => {
      response.write("half");
      finish.push(() => response.end("done"));
    }, "drain: { timeout: 5s }");
    const agent = new Agent({ keepAlive: true });
    const answer = ask(gateway.port, { agent });
    await eventually(() => expect(finish).toHaveLength(1));
    const drained = gateway.gateway.drain();
    finish[0]?.();
    expect(await answer).toMatchObject({ status: 200, body: "halfdone", complete: true });
    expect(await drained).toBe(0);
    agent.destroy();
  });

  it("cuts off at drain.timeout what is not answered by then", async () => {
    await start((_request, response) => void response.write("half"), "drain: { timeout: 100ms }");
    const client = new RawClient(gateway.port, { request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" });
    await client.answered();
    expect(await gateway.gateway.drain()).toBe(0);
    await client.ended();
  });
});

describe("an upgrade on a connection that has served plain requests", () => {
  it("works once they are answered", async () => {
    backend = await RawUpstream.start((peer) => {
      if (peer.head.includes("pgrade: websocket")) peer.accept();
      else peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    });
    gateway = await startGateway(onePool([backend.url], "close: { timeout: 50ms }"));
    const client = new RawClient(gateway.port, { request: "GET / HTTP/1.1\r\nHost: a\r\n\r\n" });
    await eventually(() => expect(client.body.toString()).toBe("hi"));
    client.socket.write(upgradeRequest({}));
    await eventually(() => expect(client.body.toString()).toContain("101 Switching Protocols"));
    client.socket.destroy();
  });

  it("never mixes a session with an answer that is still to come", async () => {
    const answers: (() => void)[] = [];
    const http = await start((_request, response) => answers.push(() => response.end("late")));
    const client = new RawClient(gateway.port, {
      request: "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
    });
    await eventually(() => expect(http.requests).toHaveLength(1));
    client.socket.write(upgradeRequest({}));
    await client.ended();
    expect(client.head).toBe(null);
    expect(http.requests.map(({ url }) => url)).toEqual(["/slow"]);
    for (const late of answers) late();
  });
});

const ROUTE = (() => {
  const yaml = `listeners: [{ name: a, bind: "127.0.0.1:0" }]\n${onePool(["ws://127.0.0.1:1"])}`;
  const loaded = loadConfig(yaml, { file: "test", env: {} });
  const route = "config" in loaded ? loaded.config.routes[0] : undefined;
  if (route === undefined) throw new Error("no route");
  return route;
})();
