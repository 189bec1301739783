import { once } from "node:events";
import { type IncomingHttpHeaders, request } from "node:http";
import { createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { type Demo, type DemoGateway, runDemo, startDemo } from "../../src/cli/demo.ts";
import { loadConfig } from "../../src/config/load.ts";

const running: Demo[] = [];

afterEach(async () => {
  await Promise.all(running.splice(0).map((demo) => demo.close()));
});

/** The demo is tested without its gateway, which has tests of its own; this one only remembers. */
function idleGateway() {
  const seen = { yaml: "", closed: 0 };
  const startGateway = (yaml: string): Promise<DemoGateway> => {
    seen.yaml = yaml;
    return Promise.resolve({
      port: 1,
      adminPort: 2,
      close: () => {
        seen.closed++;
        return Promise.resolve();
      },
    });
  };
  return { seen, startGateway };
}

interface Info {
  gatewayPort: number;
  adminPort: number;
  plainPort: number;
  plainCappedPort: number;
}

interface Backend {
  name: string;
  port: number;
  state: string;
  clients: number;
}

async function start() {
  const { seen, startGateway } = idleGateway();
  const demo = await startDemo({ port: 0, startGateway });
  running.push(demo);
  const info: Info = JSON.parse((await ask(demo, "/api/info")).body);
  return { demo, info, seen };
}

function ask(
  demo: Demo,
  path: string,
  method = "GET",
  headers: Record<string, string> = {},
): Promise<{ status: number; headers: IncomingHttpHeaders; body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request(new URL(path, demo.url), { method, headers }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body }),
      );
    });
    outgoing.on("error", reject).end();
  });
}

async function backends(demo: Demo): Promise<Backend[]> {
  return JSON.parse((await ask(demo, "/api/backends")).body);
}

/** A client behind the plain proxy, once the backend has greeted it. */
async function connected(port: number) {
  const client = new WebSocket(`ws://127.0.0.1:${port}/`);
  const [greeting] = await once(client, "message");
  return { client, greeting: String(greeting) };
}

async function closeCode(client: WebSocket): Promise<number> {
  client.on("error", () => undefined);
  const [code] = await once(client, "close");
  return Number(code);
}

/** The HTTP status with which a handshake fails. */
async function refusedWith(port: number): Promise<number> {
  const client = new WebSocket(`ws://127.0.0.1:${port}/`);
  client.on("error", () => undefined);
  const [, response] = await once(client, "unexpected-response");
  client.terminate();
  return Number(response.statusCode);
}

describe("the demo", () => {
  it("gives its gateway a configuration without problems", async () => {
    const { seen } = await start();
    const result = loadConfig(seen.yaml, { file: "demo.yaml", env: {} });
    expect(result).not.toHaveProperty("errors");
    expect(result).toHaveProperty("config");
  });

  it("turns session retry on for the line of its page only", async () => {
    const { seen } = await start();
    const result = loadConfig(seen.yaml, { file: "demo.yaml", env: {} });
    const routes = "config" in result ? result.config.routes : [];
    const lines = routes.filter(({ retry }) => retry.session !== null);
    expect(lines).toMatchObject([
      { name: "line", retry: { session: { resend: "unconfirmed", replaySwallow: 1 } } },
    ]);
  });

  it("serves its page, its ports and the meaning of a close code", async () => {
    const { demo, info } = await start();
    const page = await ask(demo, "/");
    expect(page.status).toBe(200);
    expect(page.body).toContain("What does the client hear");
    // Its scripts are in it.
    expect(page.body).toContain("class LineGraph");
    expect(page.body).not.toMatch(/<script[^>]+src/);
    expect(page.headers["content-security-policy"]).toContain("connect-src 'self' ws:");
    expect(info).toMatchObject({ gatewayPort: 1, adminPort: 2 });
    expect(JSON.parse((await ask(demo, "/api/explain?code=1006")).body)).toMatchObject({
      code: 1006,
      name: "Abnormal Closure",
    });
    expect((await ask(demo, "/api/explain?code=x")).status).toBe(400);
  });

  it("echoes through its plain proxy and says which backend answered", async () => {
    const { demo, info } = await start();
    const { client, greeting } = await connected(info.plainPort);
    expect(greeting).toBe("backend A: hello");
    client.send("ping?");
    expect(String((await once(client, "message"))[0])).toBe("backend A: ping?");
    expect(await backends(demo)).toMatchObject([{ clients: 1 }, { clients: 0 }]);
  });

  it("kills a backend: its clients see 1006, new ones reach the other", async () => {
    const { demo, info } = await start();
    const { client } = await connected(info.plainPort);
    const ended = closeCode(client);
    expect((await ask(demo, "/kill/0", "POST")).status).toBe(200);
    expect(await ended).toBe(1006);
    expect(await backends(demo)).toMatchObject([{ state: "dead" }, { state: "running" }]);
    for (let n = 0; n < 2; n++) {
      expect((await connected(info.plainPort)).greeting).toBe("backend B: hello");
    }
  });

  it("revives a killed backend on the port that it had", async () => {
    const { demo, info } = await start();
    const before = await backends(demo);
    await ask(demo, "/kill/0", "POST");
    await ask(demo, "/kill/1", "POST");
    expect(await refusedWith(info.plainPort)).toBe(502);
    await ask(demo, "/revive/0", "POST");
    expect(await backends(demo)).toMatchObject([
      { state: "running", port: before[0]?.port },
      { state: "dead", port: before[1]?.port },
    ]);
    expect((await connected(info.plainPort)).greeting).toBe("backend A: hello");
  });

  it("freezes a backend: connections stay, answers do not come, until it is revived", async () => {
    const { demo, info } = await start();
    const { client } = await connected(info.plainPort);
    let answers = 0;
    client.on("message", () => answers++);
    await ask(demo, "/freeze/0", "POST");
    client.send("anyone there?");
    const late = new WebSocket(`ws://127.0.0.1:${(await backends(demo))[0]?.port}/`, {
      handshakeTimeout: 200,
    });
    const [error] = await once(late, "error");
    expect(String(error)).toContain("handshake has timed out");
    expect([client.readyState, answers]).toEqual([WebSocket.OPEN, 0]);
    const ended = closeCode(client);
    await ask(demo, "/revive/0", "POST");
    expect(await ended).toBe(1006);
    expect(await backends(demo)).toMatchObject([{ state: "running", clients: 0 }, {}]);
  });

  it("turns a second client of the capped plain proxy away with 503", async () => {
    const { info } = await start();
    await connected(info.plainCappedPort);
    expect(await refusedWith(info.plainCappedPort)).toBe(503);
  });

  it("lets no page of another origin drive it", async () => {
    const { demo } = await start();
    const statuses = [
      await ask(demo, "/kill/0", "POST", { origin: "http://evil.example" }),
      await ask(demo, "/kill/0", "POST", { host: "evil.example" }),
      await ask(demo, "/kill/0"),
      await ask(demo, "/kill/2", "POST"),
    ].map(({ status }) => status);
    expect(statuses).toEqual([403, 421, 405, 404]);
    expect(await backends(demo)).toMatchObject([{ state: "running" }, { state: "running" }]);
  });

  it("takes the next free port for its page if the wished one is in use", async () => {
    const blocker = createServer().listen(0, "127.0.0.1");
    await once(blocker, "listening");
    const address = blocker.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const demo = await startDemo({ port, startGateway: idleGateway().startGateway });
    running.push(demo);
    expect(Number(new URL(demo.url).port)).toBeGreaterThan(port);
    expect((await ask(demo, "/api/info")).status).toBe(200);
    blocker.close();
  });

  it("leaves nothing behind when the gateway cannot start", async () => {
    const failure = new Error("no");
    let yaml = "";
    const startGateway = (given: string) => {
      yaml = given;
      return Promise.reject(failure);
    };
    await expect(startDemo({ port: 0, startGateway })).rejects.toBe(failure);
    for (const [, port] of yaml.matchAll(/url: "ws:\/\/127\.0\.0\.1:(\d+)"/g)) {
      const [error] = await once(new WebSocket(`ws://127.0.0.1:${port}/`), "error");
      expect(error).toMatchObject({ code: "ECONNREFUSED" });
    }
  });

  it("prints where it runs, and ends everything when it is stopped", async () => {
    const { seen, startGateway } = idleGateway();
    const printed: string[] = [];
    await runDemo(
      { port: 0, startGateway },
      { print: (text) => printed.push(text), stopped: Promise.resolve() },
    );
    expect(printed.join("\n")).toMatch(/softclose demo +http:\/\/127\.0\.0\.1:\d+\n/);
    expect(seen.closed).toBe(1);
  });
});
