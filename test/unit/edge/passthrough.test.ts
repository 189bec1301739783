/** What a failed request does next, where only a proxy under full control fails at the right moment. */
import { EventEmitter } from "node:events";
import { IncomingMessage, ServerResponse } from "node:http";
import { Socket } from "node:net";
import { beforeEach, describe, expect, it, vi } from "vitest";
import { ForwardedReader } from "../../../src/edge/forwarded.ts";
import { Passthrough } from "../../../src/edge/passthrough.ts";
import { Router } from "../../../src/edge/router.ts";
import { makePool } from "../../support/pool-config.ts";
import { aRoute } from "./routes.ts";

type Failed = (error: NodeJS.ErrnoException) => void;

/** As much of `http-proxy` as is used here: requests go nowhere, and fail when the test says so. */
class FakeProxy extends EventEmitter {
  /** One for each time that a request was sent. */
  readonly sent: Failed[] = [];

  web(
    request: IncomingMessage,
    response: ServerResponse,
    _options: unknown,
    onError: Failed,
  ): void {
    this.sent.push(onError);
    const outgoing = Object.assign(new EventEmitter(), { reusedSocket: true });
    this.emit("proxyReq", outgoing, request, response);
  }
}

let proxy: FakeProxy;

vi.mock("http-proxy", () => ({ createProxyServer: () => proxy }));

beforeEach(() => {
  proxy = new FakeProxy();
});

/** A GET that has gone out on a connection that was used before. */
function send(): ServerResponse {
  const router = new Router([aRoute("all", { host: null, path: null })]);
  const pool = makePool();
  const passthrough = new Passthrough({
    routing: () => ({ router }),
    pools: { get: () => pool },
  });
  const request = new IncomingMessage(new Socket());
  Object.assign(request, { method: "GET", url: "/", headers: { host: "a" } });
  const response = new ServerResponse(request);
  passthrough.handle(request, response, new ForwardedReader([]));
  return response;
}

function failOnce(): void {
  proxy.sent[0]?.(Object.assign(new Error("write EPIPE"), { code: "EPIPE" }));
}

describe("A request whose used connection fails", () => {
  it("is sent again", () => {
    send();
    failOnce();
    expect(proxy.sent).toHaveLength(2);
  });

  it("is not sent again for a client that has left", () => {
    send().destroy();
    failOnce();
    expect(proxy.sent).toHaveLength(1);
  });
});
