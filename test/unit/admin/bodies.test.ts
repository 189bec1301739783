/** Requests with a body: whatever a client does with one, it is answered or dropped, and never a bug. */
import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type AdminServer, startAdminServer } from "../../../src/admin/server.ts";
import { eventually } from "../../support/eventually.ts";
import { FakeView } from "./fake-view.ts";

const BACKEND = "ws://127.0.0.1:9001";
const DRAIN = "/api/backends/drain";
const UNDRAIN = "/api/backends/undrain";

let server: AdminServer;
let view: FakeView;
let token = "";
const errors: unknown[] = [];

beforeEach(async () => {
  view = new FakeView();
  token = "";
  server = await startAdminServer({
    bind: { host: "127.0.0.1", port: 0 },
    token: () => token,
    view,
    onError: (error) => errors.push(error),
  });
});

afterEach(async () => {
  await server.close();
  if (errors.length > 0) throw new Error("taken for a bug", { cause: errors.splice(0) });
});

async function post(path: string, body: string, headers: Record<string, string> = {}) {
  const url = `http://127.0.0.1:${server.bind.port}${path}`;
  const response = await fetch(url, { method: "POST", body, headers });
  return { status: response.status, body: await response.text() };
}

/** A connection to which bytes are written, with everything that has come back. */
function dial(bytes: string) {
  const socket = connect(server.bind.port, "127.0.0.1");
  const seen = { text: "", socket, closed: once(socket, "close") };
  socket.setEncoding("utf8").on("data", (chunk: string) => (seen.text += chunk));
  socket.on("error", () => undefined);
  socket.write(bytes);
  return seen;
}

const head = (path: string, ...lines: readonly string[]): string =>
  [`POST ${path} HTTP/1.1`, "Host: localhost", ...lines, "", ""].join("\r\n");

const expects = (...lines: readonly string[]): string =>
  head("/api/plan", "Expect: 100-continue", "Connection: close", ...lines);

describe("drain and undrain", () => {
  it("take the backend's URL", async () => {
    expect(await post(DRAIN, JSON.stringify({ url: BACKEND }))).toEqual({
      status: 202,
      body: '{"sessions":3}\n',
    });
    expect(await post(UNDRAIN, JSON.stringify({ url: BACKEND }))).toEqual({
      status: 200,
      body: "{}\n",
    });
    expect(view.asked).toEqual([`drain ${BACKEND}`, `undrain ${BACKEND}`]);
  });

  it.each([DRAIN, UNDRAIN])("answer 404 to %s of a backend that is not there", async (path) => {
    const { status, body } = await post(path, '{"url":"ws://nobody"}');
    expect([status, body]).toEqual([404, '{"error":"no backend ws://nobody"}\n']);
  });

  it.each([
    ["", "JSON"],
    ["url=ws://127.0.0.1:9001", "JSON"],
    ['{"url":', "JSON"],
    ["{}", "url is missing"],
    ["[]", "url is missing"],
    ["null", "url is missing"],
    ['"ws://127.0.0.1:9001"', "url is missing"],
    ['{"url":["ws://127.0.0.1:9001"]}', "url is missing"],
    ['{"url":null}', "url is missing"],
  ])("answer 400 to the body '%s'", async (body, reason) => {
    for (const path of [DRAIN, UNDRAIN]) {
      const answer = await post(path, body);
      expect(answer).toEqual({ status: 400, body: expect.stringContaining(reason) });
    }
    expect(view.asked).toEqual([]);
  });

  it("need the token and the same origin, before any body is read", async () => {
    token = "secret";
    const body = JSON.stringify({ url: BACKEND });
    for (const path of [DRAIN, UNDRAIN, "/api/plan", "/api/reload"]) {
      expect((await post(path, body)).status).toBe(401);
      expect((await post(path, body, { Authorization: "Bearer wrong" })).status).toBe(401);
      const foreign = { Authorization: "Bearer secret", Origin: "http://evil.example" };
      expect((await post(path, body, foreign)).status).toBe(403);
      const unread = dial(head(path, "Content-Length: 1000000"));
      await unread.closed;
      expect(unread.text).toMatch(/^HTTP\/1\.1 401 /);
    }
    expect(view.asked).toEqual([]);
    const good = { Authorization: "Bearer secret" };
    expect((await post(DRAIN, body, good)).status).toBe(202);
  });
});

describe("a body", () => {
  it("of the largest size is read whole, and one byte more is too large", async () => {
    const largest = "x".repeat(2 ** 20);
    expect((await post("/api/plan", largest)).status).toBe(422);
    expect(view.asked).toEqual([`plan ${largest}`]);
    for (const extra of [1, 2 ** 20, 2 ** 24]) {
      const answer = await post("/api/plan", largest + "x".repeat(extra));
      expect(answer).toEqual({
        status: 413,
        body: '{"error":"body larger than 1048576 bytes"}\n',
      });
    }
    expect((await post(DRAIN, "x".repeat(10_000))).status).toBe(413);
    expect(view.asked).toHaveLength(1);
  });

  it("may come in chunks, and too many of them are too large", async () => {
    const chunked = head("/api/plan", "Transfer-Encoding: chunked", "Connection: close");
    const good = dial(`${chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n`);
    await good.closed;
    expect(good.text).toMatch(/^HTTP\/1\.1 422 /);
    expect(view.asked).toEqual(["plan abcde"]);
    const chunk = `10000\r\n${"x".repeat(2 ** 16)}\r\n`;
    const large = dial(`${chunked}${chunk.repeat(17)}0\r\n\r\n`);
    await large.closed;
    expect(large.text).toMatch(/^HTTP\/1\.1 413 /);
    expect(view.asked).toHaveLength(1);
  });

  it("is invited where it is read, and not where it is refused", async () => {
    const invited = dial(expects("Content-Length: 5"));
    await eventually(() => expect(invited.text).toBe("HTTP/1.1 100 Continue\r\n\r\n"));
    invited.socket.write("hello");
    await invited.closed;
    expect(invited.text).toMatch(/\r\n\r\nHTTP\/1\.1 422 /);
    expect(view.asked).toEqual(["plan hello"]);
    const large = dial(expects("Content-Length: 1048577"));
    await large.closed;
    expect(large.text).toMatch(/^HTTP\/1\.1 413 /);
    token = "secret";
    const stranger = dial(expects("Content-Length: 5"));
    await stranger.closed;
    expect(stranger.text).toMatch(/^HTTP\/1\.1 401 /);
  });

  it("that is cut off leads to nothing", async () => {
    const { socket, closed } = dial(`${head("/api/plan", "Content-Length: 100")}half`);
    await eventually(() => expect(socket.bytesWritten).toBeGreaterThan(4));
    socket.resetAndDestroy();
    await closed;
    expect((await post("/api/plan", "whole")).status).toBe(422);
    expect(view.asked).toEqual(["plan whole"]);
  });

  it("that comes too slowly is not waited for", async () => {
    const slow = dial(head("/api/plan", "Content-Length: 1000"));
    const dripping = setInterval(() => slow.socket.write("x"), 200);
    await slow.closed;
    clearInterval(dripping);
    expect(slow.text).toMatch(/^HTTP\/1\.1 408 /);
    expect(view.asked).toEqual([]);
  });

  it("leaves the connection to the next request", async () => {
    const one = `${head("/api/plan", "Content-Length: 3")}one`;
    const large = `${head(DRAIN, "Content-Length: 9000")}${"x".repeat(9_000)}`;
    const last = `${head("/api/plan", "Content-Length: 4", "Connection: close")}last`;
    const several = dial(one + large + last);
    await several.closed;
    expect(several.text.match(/HTTP\/1\.1 \d+/g)).toEqual([
      "HTTP/1.1 422",
      "HTTP/1.1 413",
      "HTTP/1.1 422",
    ]);
    expect(view.asked).toEqual(["plan one", "plan last"]);
  });
});

describe("reload", () => {
  it("answers 200 where the gateway runs with the file, and 409 where it does not", async () => {
    const outcomes = ["applied", "unchanged", "invalid", "failed", "refused"] as const;
    const statuses: number[] = [];
    for (const outcome of outcomes) {
      view.reloadReport = { outcome, problems: [] };
      const { status, body } = await post("/api/reload", "");
      expect(JSON.parse(body)).toMatchObject({ outcome });
      statuses.push(status);
    }
    expect(statuses).toEqual([200, 200, 409, 409, 409]);
  });
});
