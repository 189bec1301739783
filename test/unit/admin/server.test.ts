import { once } from "node:events";
import { type IncomingHttpHeaders, request } from "node:http";
import { connect, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type AdminServer, startAdminServer } from "../../../src/admin/server.ts";
import { FakeView } from "./fake-view.ts";

const running: AdminServer[] = [];
const errors: unknown[] = [];

afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.close()));
  errors.length = 0;
});

async function start(token = "", view = new FakeView()) {
  const server = await startAdminServer({
    bind: { host: "127.0.0.1", port: 0 },
    token: () => token,
    view,
    onError: (error) => errors.push(error),
  });
  running.push(server);
  return { view, server, port: server.bind.port };
}

interface Reply {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

function ask(
  port: number,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Reply> {
  const { method = "GET", headers = {}, body } = options;
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: "127.0.0.1", port, path, method, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (text += chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
      );
      response.on("error", reject);
    });
    outgoing.on("error", reject);
    outgoing.end(body);
  });
}

/** Sends raw bytes and gives everything that comes back until the server ends the connection. */
async function raw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  let text = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
  socket.on("error", () => undefined);
  socket.write(bytes);
  await once(socket, "close");
  return text;
}

describe("the admin server's probes", () => {
  it("answers /healthz as long as the process lives", async () => {
    const { port, view } = await start();
    view.isReady = false;
    const reply = await ask(port, "/healthz");
    expect(reply).toMatchObject({ status: 200, body: "ok\n" });
  });

  it("answers /readyz with 503 and the state once the gateway is not ready", async () => {
    const { port, view } = await start();
    expect(await ask(port, "/readyz")).toMatchObject({ status: 200, body: "ready\n" });
    view.isReady = false;
    expect(await ask(port, "/readyz")).toMatchObject({ status: 503, body: "draining\n" });
  });

  it("serves HTTP/1.0 probes that send no Host", async () => {
    const { port } = await start();
    expect(await raw(port, "GET /healthz HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  });

  it("answers HEAD with the length and without a body", async () => {
    const { port } = await start();
    const reply = await ask(port, "/healthz", { method: "HEAD" });
    expect(reply).toMatchObject({ status: 200, body: "" });
    expect(reply.headers["content-length"]).toBe("3");
  });
});

describe("the admin server's views", () => {
  it("serves metrics with their content type, also when a token is set", async () => {
    const { port } = await start("s3cret");
    const reply = await ask(port, "/metrics");
    expect(reply).toMatchObject({ status: 200, body: "softclose_x 1\n" });
    expect(reply.headers["content-type"]).toBe("text/plain; version=0.0.4");
  });

  it("serves the status as JSON that no cache keeps", async () => {
    const { port } = await start();
    const reply = await ask(port, "/api/status");
    expect(JSON.parse(reply.body)).toMatchObject({ version: "1.2.3", state: "ready" });
    expect(reply.headers["content-type"]).toBe("application/json; charset=utf-8");
    expect(reply.headers["cache-control"]).toBe("no-store");
    expect(reply.headers["x-content-type-options"]).toBe("nosniff");
  });

  it("lists sessions and closes, a hundred unless asked for more, never above 10,000", async () => {
    const { port, view } = await start();
    expect(JSON.parse((await ask(port, "/api/sessions")).body)).toMatchObject([{ session: "s-1" }]);
    expect(JSON.parse((await ask(port, "/api/closes?limit=5")).body)).toMatchObject([
      { cause: "clientClosed" },
    ]);
    await ask(port, "/api/closes?limit=999999999");
    expect(JSON.parse((await ask(port, "/api/sessions?limit=0")).body)).toEqual([]);
    expect(view.limits).toEqual([100, 5, 10_000, 0]);
  });

  it.each(["-1", "1.5", "ten", "", "1e3", "9999999999"])(
    "answers 400 to a limit of '%s'",
    async (limit) => {
      const { port } = await start();
      const reply = await ask(port, `/api/closes?limit=${limit}`);
      expect(reply.status).toBe(400);
      expect(JSON.parse(reply.body)).toEqual({
        error: "limit must be a whole number from 0 to 10000",
      });
    },
  );

  it("answers 404 in JSON to what it does not know", async () => {
    const { port } = await start();
    for (const path of ["/nope", "/api/", "/api/sessions/a/b", "/healthz/", "/%2e%2e/etc/passwd"]) {
      const reply = await ask(port, path);
      expect({ path, ...reply }).toMatchObject({
        path,
        status: 404,
        body: '{"error":"not found"}\n',
      });
    }
  });

  it("answers 500 without the reason when a view fails, and reports it", async () => {
    const { port, view } = await start();
    view.failMetrics = true;
    const reply = await ask(port, "/metrics");
    expect(reply.status).toBe(500);
    expect(reply.body).not.toContain("secret");
    expect(errors).toHaveLength(1);
  });
});

describe("the admin server's mutations", () => {
  it("closes a live session with 204 and answers 404 for any other", async () => {
    const { port, view } = await start();
    const reply = await ask(port, "/api/sessions/s-1", { method: "DELETE" });
    expect(reply).toMatchObject({ status: 204, body: "" });
    expect(view.live.size).toBe(0);
    expect((await ask(port, "/api/sessions/s-1", { method: "DELETE" })).status).toBe(404);
  });

  it("asks for the token when one is set", async () => {
    const { port, view } = await start("s3cret");
    for (const authorization of ["", "Bearer wrong", "Basic s3cret"]) {
      const headers: Record<string, string> = authorization === "" ? {} : { authorization };
      const reply = await ask(port, "/api/sessions/s-1", { method: "DELETE", headers });
      expect(reply.status).toBe(401);
      expect(reply.headers["www-authenticate"]).toBe('Bearer realm="softclose"');
    }
    expect(view.live.size).toBe(1);
    const headers = { authorization: "Bearer s3cret" };
    const reply = await ask(port, "/api/sessions/s-1", { method: "DELETE", headers });
    expect(reply.status).toBe(204);
  });

  it("refuses a browser that comes from another origin", async () => {
    const { port, view } = await start();
    for (const origin of ["http://evil.example", "null", "http://127.0.0.1:1"]) {
      const reply = await ask(port, "/api/sessions/s-1", { method: "DELETE", headers: { origin } });
      expect(reply.status).toBe(403);
    }
    expect(view.live.size).toBe(1);
    const headers = { origin: `http://127.0.0.1:${port}` };
    const reply = await ask(port, "/api/sessions/s-1", { method: "DELETE", headers });
    expect(reply.status).toBe(204);
  });

  it("answers a wrong method with 405 and the right ones", async () => {
    const { port, view } = await start();
    for (const method of ["GET", "POST", "PUT"]) {
      const reply = await ask(port, "/api/sessions/s-1", { method });
      expect(reply).toMatchObject({ status: 405, headers: { allow: "DELETE" } });
    }
    for (const method of ["POST", "DELETE", "OPTIONS"]) {
      const reply = await ask(port, "/api/status", { method });
      expect(reply).toMatchObject({ status: 405, headers: { allow: "GET, HEAD" } });
    }
    expect(view.live.size).toBe(1);
  });
});

describe("the admin server's guards", () => {
  it("refuses a Host that a rebound DNS name could carry, on every path", async () => {
    const { port, view } = await start();
    for (const path of ["/", "/healthz", "/metrics", "/api/status"]) {
      const reply = await ask(port, path, { headers: { host: `evil.example:${port}` } });
      expect({ path, ...reply }).toMatchObject({ path, status: 421 });
    }
    const headers = { host: "evil.example" };
    const reply = await ask(port, "/api/sessions/s-1", { method: "DELETE", headers });
    expect(reply.status).toBe(421);
    expect(view.live.size).toBe(1);
    expect((await ask(port, "/healthz", { headers: { host: "localhost" } })).status).toBe(200);
  });

  it("refuses a target that names a host of its own", async () => {
    const { port } = await start();
    const absolute =
      "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    expect(await raw(port, absolute)).toMatch(/^HTTP\/1\.1 400 /);
  });

  it("answers a request with a body and reads no second request out of it", async () => {
    const { port } = await start();
    const body = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const answer = await raw(
      port,
      `GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length + 1}\r\n\r\n${body}`,
    );
    expect(answer.match(/HTTP\/1\.1 /g)).toHaveLength(1);
    expect(answer).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
  });

  it("invites no body with 100 Continue", async () => {
    const { port } = await start();
    const answer = await raw(
      port,
      "DELETE /api/sessions/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    );
    expect(answer).toMatch(/^HTTP\/1\.1 404 /);
  });

  it("answers 431 to a request head that is too large", async () => {
    const { port } = await start();
    const answer = await raw(
      port,
      `GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: ${"a".repeat(20_000)}\r\n\r\n`,
    );
    expect(answer).toMatch(/^HTTP\/1\.1 431 /);
  });

  it("ends a client that does not finish its request head", async () => {
    const { port } = await start();
    expect(await raw(port, "GET /healthz HTTP/1.1\r\nHost: localh")).toMatch(/^HTTP\/1\.1 408 /);
  });

  it("treats a WebSocket handshake as the plain request that it is", async () => {
    const { port } = await start();
    const answer = await raw(
      port,
      "GET /nope HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    );
    expect(answer).toMatch(/^HTTP\/1\.1 404 /);
  });
});

describe("the admin server's life", () => {
  it("rejects with Node's error when the port is taken", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await once(blocker, "listening");
    const address = blocker.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    await expect(
      startAdminServer({
        bind: { host: "127.0.0.1", port },
        token: () => "",
        view: new FakeView(),
        onError: () => undefined,
      }),
    ).rejects.toMatchObject({ code: "EADDRINUSE", port });
    blocker.close();
  });

  it("ends at once, also connections that are kept alive", async () => {
    const { port, server } = await start();
    const socket = connect(port, "127.0.0.1");
    socket.write("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await once(socket, "data");
    const closed = once(socket, "close");
    socket.on("error", () => undefined);
    await server.close();
    await expect(closed).resolves.toEqual([false]);
  });
});
