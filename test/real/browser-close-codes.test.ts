/** What `WebSocket.onclose` of a real browser is told, cause by cause: never 1006. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startPlainProxy } from "../../src/cli/demo-plain-proxy.ts";
import type { Cause } from "../../src/close/causes.ts";
import { BackendProcess } from "../support/backend-process.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";
import {
  type BrowserSocket,
  CHROMIUM,
  type SocketEnd,
  TestBrowser,
  type TestPage,
} from "./support/browser.ts";

const RETRY_AFTER = { min: 3, max: 9 };
const COMMON = `retryAfter: { min: ${RETRY_AFTER.min}s, max: ${RETRY_AFTER.max}s }\n`;

interface Told {
  readonly title: string;
  readonly cause: Cause;
  /** More keys at the top of the configuration. */
  readonly yaml?: string;
  readonly code: number;
  /** Without the retry-after; whether there must be one says `retryAfter`. */
  readonly reason: string;
  readonly retryAfter?: true;
}

interface End extends Told {
  /** What ends the session, once it stands. Default: it ends by itself. */
  readonly act?: (scene: OpenScene) => unknown;
}

interface Refusal extends Told {
  /** Default: accepts, and answers a Close. */
  readonly backend?: Behaviour;
  /** Why the browser will be turned away. */
  readonly before?: (scene: Scene) => unknown;
}

interface Scene {
  readonly gateway: TestGateway;
  readonly upstream: RawUpstream;
  readonly page: TestPage;
}

interface OpenScene extends Scene {
  readonly socket: BrowserSocket;
  readonly peer: UpstreamPeer;
}

const accepts: Behaviour = (peer) => peer.answersClose().accept();
const answers =
  (status: string): Behaviour =>
  (peer) =>
    peer.write(`HTTP/1.1 ${status}\r\nContent-Length: 2\r\n\r\nno`);
const ONE_DIAL = "retry: { connect: { attempts: 1 } }\n";

const ENDED: readonly End[] = [
  {
    title: "its backend is reset",
    cause: "upstreamLost",
    act: ({ peer }) => peer.reset(),
    code: 1014,
    reason: "upstream connection lost",
  },
  {
    title: "its backend ends TCP without a Close",
    cause: "upstreamLost",
    act: ({ peer }) => peer.end(),
    code: 1014,
    reason: "upstream connection lost",
  },
  {
    title: "its backend dies in the middle of a message of which it has had a part",
    cause: "upstreamLost",
    act: async ({ peer, gateway }) => {
      peer.send({ opcode: 1, fin: false, payload: "half of" });
      await eventually(() => {
        const [session] = gateway.gateway.sessions(1);
        if (session?.bytes.upstreamToClient === 0) throw new Error("not relayed yet");
      });
      peer.reset();
    },
    code: 1014,
    reason: "upstream connection lost",
  },
  {
    title: "its backend answers no ping",
    cause: "upstreamUnresponsive",
    yaml: "heartbeat: { upstream: { interval: 200ms, timeout: 200ms } }\n",
    code: 1014,
    reason: "upstream sent no pong in time",
  },
  {
    title: "its backend breaks the protocol",
    cause: "upstreamProtocolError",
    act: ({ peer }) => peer.send({ opcode: 3, payload: "?" }),
    code: 1014,
    reason: "upstream broke the protocol: reserved opcode",
  },
  {
    title: "its backend closes, with a code and a reason of its own",
    cause: "upstreamClosed",
    act: ({ peer }) => peer.sendClose(4001, "Grüße, später →"),
    code: 4001,
    reason: "Grüße, später →",
  },
  {
    title: "session retry finds no backend",
    cause: "retryExhausted",
    yaml: "retry: { session: { enabled: true, attempts: 1 } }\n",
    act: ({ upstream }) => upstream.stop(),
    code: 1013,
    reason: "upstream did not come back",
    retryAfter: true,
  },
  {
    title: "its backend is drained",
    cause: "backendDraining",
    yaml: "drain: { timeout: 200ms }\n",
    act: ({ gateway, upstream }) => gateway.gateway.drainBackend(upstream.url),
    code: 1012,
    reason: "backend is being drained",
  },
  {
    // So much more that the browser still has most of it when it reads the Close.
    title: "it sends a message that is far too big",
    cause: "messageTooBig",
    yaml: "limits: { maxMessageSize: 1KiB }\n",
    act: ({ socket }) => socket.sendBytes(32 * 1024 * 1024),
    code: 1009,
    reason: "message is too big",
  },
  {
    title: "its backend sends a message that is too big",
    cause: "messageTooBig",
    yaml: "limits: { maxMessageSize: 1KiB }\n",
    act: ({ peer }) => peer.send({ opcode: 2, payload: Buffer.alloc(100 * 1024) }),
    code: 1009,
    reason: "message is too big",
  },
  {
    title: "it sends too fast",
    cause: "rateLimited",
    yaml: "limits: { messageRate: 1, messageBurst: 2 }\n",
    act: async ({ socket }) => {
      for (let sent = 0; sent < 9; sent += 1) await socket.send("!");
    },
    code: 1008,
    reason: "too many messages",
  },
  {
    title: "nobody says anything",
    cause: "idle",
    yaml: "limits: { idleTimeout: 300ms }\n",
    code: 1001,
    reason: "idle for too long",
  },
  {
    title: "it has been there for long",
    cause: "maxAge",
    yaml: "limits: { maxConnectionAge: 500ms }\n",
    code: 1012,
    reason: "maximum connection age reached",
  },
  {
    title: "an administrator closes it",
    cause: "adminClosed",
    act: ({ gateway }) =>
      gateway.gateway.closeSession(gateway.gateway.sessions(1)[0]?.session ?? ""),
    code: 1012,
    reason: "closed by an administrator",
  },
];

const REFUSED: readonly Refusal[] = [
  {
    title: "all places are taken",
    cause: "capacity",
    yaml: "limits: { maxConnections: 1 }\n",
    before: async ({ page, gateway }) => (await page.websocket(gateway.url())).opened(),
    code: 1013,
    reason: "at capacity",
    retryAfter: true,
  },
  {
    title: "the backend answers 401",
    cause: "upstreamRejected",
    backend: answers("401 Unauthorized"),
    code: 1008,
    reason: "upstream answered 401",
  },
  {
    title: "the backend answers 503",
    cause: "upstreamRejected",
    yaml: ONE_DIAL,
    backend: answers("503 Service Unavailable"),
    code: 1013,
    reason: "upstream answered 503",
  },
  {
    title: "the backend answers 500",
    cause: "upstreamRejected",
    backend: answers("500 Internal Server Error"),
    code: 1014,
    reason: "upstream answered 500",
  },
  {
    title: "nobody listens at the backend's address",
    cause: "upstreamUnreachable",
    yaml: ONE_DIAL,
    before: ({ upstream }) => upstream.stop(),
    code: 1013,
    reason: "upstream is unreachable",
    retryAfter: true,
  },
  {
    title: "the only backend is drained",
    cause: "noBackend",
    before: ({ gateway, upstream }) => gateway.gateway.drainBackend(upstream.url),
    code: 1013,
    reason: "no backend is available",
    retryAfter: true,
  },
];

let browser: TestBrowser;
let page: TestPage;
const ending: (() => Promise<unknown>)[] = [];

async function start(yaml: string, behaviour: Behaviour = accepts): Promise<Scene> {
  const upstream = await RawUpstream.start(behaviour);
  ending.unshift(() => upstream.stop());
  const gateway = await startGateway(onePool([upstream.url], COMMON + yaml));
  ending.unshift(() => gateway.stopClean());
  return { gateway, upstream, page };
}

/** One that can be killed. */
async function backendProcess(): Promise<BackendProcess> {
  const started = await BackendProcess.start("", "deflating-backend.mjs");
  ending.unshift(() => started.kill());
  return started;
}

/** Ends everything, also what comes behind one that cannot be ended well. */
async function endAll(): Promise<void> {
  const failures: unknown[] = [];
  for (const end of [() => page.close(), ...ending.splice(0)])
    await end().catch((error: unknown) => failures.push(error));
  expect(failures).toEqual([]);
}

/** Everything that `onclose` was told, the time to come back apart from the reason. */
function parse({ reason, ...rest }: SocketEnd) {
  const [, text = reason, seconds] = /^(.*); retry-after=(\d+)$/.exec(reason) ?? [];
  return { ...rest, reason: text, retryAfterS: seconds === undefined ? null : Number(seconds) };
}

/** A Close that the browser has understood, behind a handshake that it took for good. */
function expectTold(end: SocketEnd, { code, reason, retryAfter }: Omit<Told, "title" | "cause">) {
  const { retryAfterS, ...told } = parse(end);
  expect(told).toEqual({ code, reason, wasClean: true, opens: 1, errors: 0 });
  expect(retryAfterS !== null).toBe(retryAfter ?? false);
  if (retryAfterS === null) return;
  expect(retryAfterS).toBeGreaterThanOrEqual(RETRY_AFTER.min);
  expect(retryAfterS).toBeLessThanOrEqual(RETRY_AFTER.max);
}

/** What a browser says of an end that nobody explained. */
const UNEXPLAINED = { code: 1006, reason: "", wasClean: false };

describe.skipIf(lacks(CHROMIUM))("a browser", () => {
  beforeAll(async () => {
    browser = await TestBrowser.start();
  });

  afterAll(async () => {
    await browser?.stop();
  });

  beforeEach(async () => {
    page = await browser.open();
  });

  afterEach(endAll);

  describe("whose session ends is told why, when", () => {
    it.each(titled(ENDED))("%s", async (_title, row) => {
      const scene = await start(row.yaml ?? "");
      const socket = await page.websocket(scene.gateway.url());
      await socket.opened();
      const peer = await scene.upstream.peer();
      await row.act?.({ ...scene, socket, peer });
      expectTold(await socket.ended(), row);
      const [record] = await scene.gateway.recorded();
      expect(record).toMatchObject({
        cause: row.cause,
        refused: false,
        client: { sent: row.code },
      });
    });
  });

  describe.each([
    ["without subprotocols", []],
    ["offering subprotocols", ["v2", "v1"]],
  ])("that is turned away %s is told why, when", (_title, protocols) => {
    it.each(titled(REFUSED))("%s", async (_rowTitle, row) => {
      const scene = await start(row.yaml ?? "", row.backend);
      await row.before?.(scene);
      const socket = await page.websocket(scene.gateway.url(), protocols);
      expect(await socket.opened()).toMatchObject({ protocol: protocols[0] ?? "" });
      expectTold(await socket.ended(), row);
      const [record] = await scene.gateway.recorded();
      expect(record).toMatchObject({
        cause: row.cause,
        refused: true,
        client: { sent: row.code, received: row.code },
      });
    });
  });

  it("is told by a gateway that is sent SIGTERM, in all its sessions", async () => {
    const { url } = await backendProcess();
    const gateway = await GatewayProcess.start(onePool([url], `${COMMON}drain: { timeout: 1s }\n`));
    ending.unshift(() => gateway.stop());
    const sockets: BrowserSocket[] = [];
    for (let count = 0; count < 3; count += 1) {
      const socket = await page.websocket(gateway.url());
      await socket.opened();
      sockets.push(socket);
    }
    gateway.signal("SIGTERM");
    for (const socket of sockets) {
      const told = { code: 1012, reason: "gateway is shutting down", retryAfter: true } as const;
      expectTold(await socket.ended(), told);
    }
    expect(await gateway.exited).toBe(0);
    expect(gateway.records.map(({ cause }) => cause)).toEqual(Array(3).fill("draining"));
  });

  it("that closes has its own code and reason passed on, and its Close answered", async () => {
    const { gateway, upstream } = await start("");
    const socket = await page.websocket(gateway.url());
    await socket.opened();
    const peer = await upstream.peer();
    await socket.close(4002, "Tschüss");
    expectTold(await socket.ended(), { code: 4002, reason: "Tschüss" });
    expect(peer.log.closes).toEqual([{ code: 4002, reason: "Tschüss" }]);
    expect(await gateway.recorded()).toMatchObject([{ cause: "clientClosed" }]);
  });

  it("sees 1006 when the same backend is killed without the gateway in between", async () => {
    const killed = await backendProcess();
    const plain = await startPlainProxy({
      host: "127.0.0.1",
      port: 0,
      backends: [{ host: "127.0.0.1", port: killed.port }],
      maxConnections: 0,
    });
    ending.unshift(() => plain.close());
    const gateway = await startGateway(onePool([killed.url], COMMON));
    ending.unshift(() => gateway.stopClean());
    const urls = [killed.url, `ws://127.0.0.1:${plain.port}/`, gateway.url()];
    const sockets = await Promise.all(urls.map((url) => page.websocket(url)));
    await Promise.all(sockets.map((socket) => socket.opened()));
    await killed.kill();
    const [direct, tunnelled, explained] = await Promise.all(
      sockets.map((socket) => socket.ended()),
    );
    expect(direct).toMatchObject(UNEXPLAINED);
    expect(tunnelled).toMatchObject(UNEXPLAINED);
    expect(explained).toEqual({
      code: 1014,
      reason: "upstream connection lost",
      wasClean: true,
      opens: 1,
      errors: 0,
    });
  });

  it("sees 1006 and nothing else of a refusal with refuse: http", async () => {
    const { gateway } = await start("refuse: http\n", answers("401 Unauthorized"));
    const end = await page.websocketEnd(gateway.url());
    expect(end).toEqual({ ...UNEXPLAINED, opens: 0, errors: 1 });
  });
});
