/** Probes on real sockets: what each makes of every way to be well or ill, and what it leaves behind. */
import { once } from "node:events";
import { createServer, type Socket, connect as tcpConnect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { WebSocketServer } from "ws";
import { probe } from "../../src/upstream/probe.ts";
import type { ProbeResult } from "../../src/upstream/probe-attempt.ts";
import { eventually } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import {
  answers,
  answersPing,
  backendAt,
  configOf,
  drip,
  PATIENCE_MS,
  type ProbeType,
  silent,
  speaksWebSocket,
  tcpSockets,
} from "../support/probed-backends.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream | null = null;
let baseline: number;

beforeEach(() => {
  baseline = tcpSockets();
});

afterEach(async () => {
  // Every connection that a backend got has been ended by the probe, not by the end of the test.
  const started = upstream;
  upstream = null;
  if (started !== null) {
    await Promise.all(started.peers.map((peer) => peer.ended()));
    await started.stop();
  }
  await eventually(() => {
    const left = tcpSockets() - baseline;
    if (left > 0) throw new Error(`${left} sockets left`);
  });
});

async function start(
  behaviour: Behaviour,
  onConnect?: (socket: Socket) => void,
): Promise<RawUpstream> {
  upstream = await RawUpstream.start(behaviour, onConnect);
  return upstream;
}

function probeOnce(port: number, type: ProbeType, timeoutMs = 5_000): Promise<ProbeResult> {
  return probe(backendAt(port), configOf(type, { timeoutMs }), new AbortController().signal);
}

describe("a probe finds a backend well that", () => {
  const well: readonly {
    readonly title: string;
    readonly type: ProbeType;
    readonly behaviour: Behaviour;
    readonly detail: string;
  }[] = [
    { title: "answers 200", type: "http", behaviour: answers(200, "ok"), detail: "answered 200" },
    { title: "answers 204", type: "http", behaviour: answers(204), detail: "answered 204" },
    {
      title: "answers with a redirect, which is not followed",
      type: "http",
      behaviour: answers(302, "", "Location: /elsewhere\r\n"),
      detail: "answered 302",
    },
    {
      title: "answers in chunks",
      type: "http",
      behaviour: (peer) =>
        peer.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
      detail: "answered 200",
    },
    {
      title: "ends its answer with the connection",
      type: "http",
      behaviour: (peer) => {
        peer.write("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok");
        peer.end();
      },
      detail: "answered 200",
    },
    { title: "accepts a connection", type: "tcp", behaviour: silent, detail: "connected" },
    {
      title: "answers a ping",
      type: "websocket",
      behaviour: speaksWebSocket,
      detail: "answered the ping",
    },
    {
      title: "greets before it answers a ping",
      type: "websocket",
      behaviour: (peer) => {
        speaksWebSocket(peer);
        peer.sendText("welcome");
        peer.send({ opcode: 10, payload: "unasked" });
      },
      detail: "answered the ping",
    },
  ];

  it.each(titled(well))("%s", async (_title, { type, behaviour, detail }) => {
    const { port } = await start(behaviour);
    expect(await probeOnce(port, type)).toEqual({ good: true, detail });
    expect(upstream?.peers).toHaveLength(1);
  });

  it("is a server of the ws package", async () => {
    const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
    await once(server, "listening");
    const closes: number[] = [];
    server.on("connection", (client) => client.on("close", (code) => void closes.push(code)));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    expect(await probeOnce(port, "websocket")).toEqual({ good: true, detail: "answered the ping" });
    await eventually(() => expect(closes).toEqual([1000]));
    server.close();
  });
});

describe("a probe finds a backend ill that", () => {
  const ill: readonly {
    readonly title: string;
    readonly type: ProbeType;
    readonly behaviour: Behaviour;
    readonly timeoutMs?: number;
    readonly detail: string;
  }[] = [
    ...[400, 404, 429, 500, 503].map((status) => ({
      title: `answers ${status}`,
      type: "http" as const,
      behaviour: answers(status, "no"),
      detail: `answered ${status}`,
    })),
    {
      title: "answers 500 and then hangs in the body",
      type: "http",
      behaviour: (peer) => peer.write("HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\nno"),
      detail: "answered 500",
    },
    {
      title: "accepts TCP and never answers",
      type: "http",
      behaviour: silent,
      timeoutMs: PATIENCE_MS,
      detail: `no answer within ${PATIENCE_MS} ms`,
    },
    {
      title: "sends a body that never ends",
      type: "http",
      behaviour: (peer) => peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"),
      timeoutMs: PATIENCE_MS,
      detail: `no end of the answer within ${PATIENCE_MS} ms`,
    },
    {
      title: "sends its head by drops",
      type: "http",
      behaviour: (peer) => drip(peer, "HTTP/1.1 200 OK\r\nX: ", "x"),
      timeoutMs: PATIENCE_MS,
      detail: `no answer within ${PATIENCE_MS} ms`,
    },
    {
      title: "sends its body by drops",
      type: "http",
      behaviour: (peer) => drip(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "x"),
      timeoutMs: PATIENCE_MS,
      detail: `no end of the answer within ${PATIENCE_MS} ms`,
    },
    {
      title: "resets",
      type: "http",
      behaviour: (peer) => peer.reset(),
      detail: "read ECONNRESET",
    },
    {
      title: "ends the connection for an answer",
      type: "http",
      behaviour: (peer) => peer.end(),
      detail: "other side closed",
    },
    {
      title: "ends the connection in the body",
      type: "http",
      behaviour: (peer) => {
        peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok");
        peer.end();
      },
      detail: "other side closed",
    },
    {
      title: "speaks TLS",
      type: "http",
      behaviour: (peer) => peer.socket.write(TLS_ALERT),
      detail: "answer is not HTTP/1.1",
    },
    {
      title: "sends a head without end",
      type: "http",
      behaviour: (peer) => {
        peer.write("HTTP/1.1 200 OK\r\n");
        flood(peer, Buffer.from(`X: ${"x".repeat(1_000)}\r\n`));
      },
      detail: "Headers Overflow Error",
    },
    {
      title: "switches protocols unasked",
      type: "http",
      behaviour: (peer) => peer.accept(),
      detail: "bad upgrade",
    },
    {
      title: "answers the handshake with 500",
      type: "websocket",
      behaviour: answers(500, "no"),
      detail: "answered 500",
    },
    {
      title: "answers the handshake with 200",
      type: "websocket",
      behaviour: answers(200, "ok"),
      detail: "answered 200",
    },
    {
      title: "lets the WebSocket handshake hang",
      type: "websocket",
      behaviour: silent,
      timeoutMs: PATIENCE_MS,
      detail: `no answer to the handshake within ${PATIENCE_MS} ms`,
    },
    {
      title: "never answers a ping",
      type: "websocket",
      behaviour: (peer) => peer.accept(),
      timeoutMs: PATIENCE_MS,
      detail: `no pong within ${PATIENCE_MS} ms`,
    },
    {
      title: "answers with pongs that nobody asked for",
      type: "websocket",
      behaviour: (peer) => {
        peer.accept();
        peer.send({ opcode: 10, payload: "" });
      },
      timeoutMs: PATIENCE_MS,
      detail: `no pong within ${PATIENCE_MS} ms`,
    },
    {
      title: "closes before its pong",
      type: "websocket",
      behaviour: (peer) => {
        peer.accept();
        peer.answersClose().sendClose(4406, "Subprotocol not acceptable");
      },
      detail: "closed with 4406 before its pong",
    },
    {
      title: "sends a false Sec-WebSocket-Accept",
      type: "websocket",
      behaviour: (peer) => peer.accept({ "Sec-WebSocket-Accept": "x" }),
      detail: "Invalid Sec-WebSocket-Accept header",
    },
    {
      title: "breaks the protocol",
      type: "websocket",
      behaviour: (peer) => {
        peer.accept();
        peer.send({ opcode: 3, payload: "" });
      },
      detail: "Invalid WebSocket frame: invalid opcode 3",
    },
    {
      title: "resets during the handshake",
      type: "websocket",
      behaviour: (peer) => peer.reset(),
      detail: "read ECONNRESET",
    },
    {
      title: "resets before its pong",
      type: "websocket",
      behaviour: (peer) => {
        peer.accept();
        peer.socket.once("data", () => peer.reset());
      },
      detail: "read ECONNRESET",
    },
    {
      title: "ends the connection during the handshake",
      type: "websocket",
      behaviour: (peer) => peer.end(),
      detail: "closed the connection during the handshake",
    },
    {
      title: "answers the handshake in TLS",
      type: "websocket",
      behaviour: (peer) => peer.socket.write(TLS_ALERT),
      detail: "Parse Error: Expected HTTP/, RTSP/ or ICE/",
    },
  ];

  it.each(titled(ill))("%s", async (_title, { type, behaviour, timeoutMs, detail }) => {
    const { port } = await start(behaviour);
    expect(await probeOnce(port, type, timeoutMs)).toEqual({ good: false, detail });
    expect(upstream?.peers).toHaveLength(1);
  });

  it.each(["http", "tcp", "websocket"] as const)("refuses the connection (%s)", async (type) => {
    const result = await probeOnce(await closedPort(), type);
    expect(result).toEqual({ good: false, detail: "connect ECONNREFUSED" });
  });

  it("ends the connection at once, and is not dialled a second time", async () => {
    const { port, peers } = await start(silent, (socket) => socket.end());
    expect(await probeOnce(port, "http")).toEqual({
      good: false,
      detail: "other side closed",
    });
    expect(peers).toHaveLength(1);
  });

  it.each(["http", "tcp", "websocket"] as const)("has no address (%s)", async (type) => {
    const target = { url: "ws://nowhere.invalid:1", host: "nowhere.invalid", port: 1 };
    const { good, detail } = await probe(target, configOf(type), new AbortController().signal);
    expect(good).toBe(false);
    expect(detail).toMatch(/^getaddrinfo E/);
  });

  it.each([
    ["http", "/a b"],
    ["websocket", "/a#b"],
  ] as const)("cannot be asked for its path (%s)", async (type, path) => {
    const { port, peers } = await start(silent);
    const { signal } = new AbortController();
    const result = await probe(backendAt(port), configOf(type, { path }), signal);
    expect(result.good).toBe(false);
    expect(peers.map(({ head }) => head).join("")).toBe("");
  });
});

describe("a probe", () => {
  it("asks in the name of the backend's URL, says who it is, and keeps nothing alive", async () => {
    const { port } = await start(answers(200));
    const backend = backendAt(port, "ws://chat.example:9001");
    await probe(backend, configOf("http"), new AbortController().signal);
    const peer = await upstream?.peer();
    expect(peer?.head.split("\r\n")[0]).toBe("GET /healthz?deep=1 HTTP/1.1");
    expect(peer?.header("host")).toBe("chat.example:9001");
    expect(peer?.header("user-agent")).toBe("softclose-health");
    expect(peer?.header("connection")).toBe("close");
  });

  it("shakes hands in the name of the backend's URL, too, and offers nothing", async () => {
    const { port } = await start(speaksWebSocket);
    const backend = backendAt(port, "ws://chat.example:9001/");
    await probe(backend, configOf("websocket"), new AbortController().signal);
    const peer = await upstream?.peer();
    expect(peer?.head.split("\r\n")[0]).toBe("GET /healthz?deep=1 HTTP/1.1");
    expect(peer?.header("host")).toBe("chat.example:9001");
    expect(peer?.header("user-agent")).toBe("softclose-health");
    expect(peer?.header("sec-websocket-protocol")).toBeNull();
    expect(peer?.header("sec-websocket-extensions")).toBeNull();
    const close = peer?.log.frames.find(({ opcode }) => opcode === 8);
    expect(close?.payload.readUInt16BE(0)).toBe(1000);
  });

  it("waits only briefly for a backend that never answers its Close", async () => {
    const { port } = await start(answersPing);
    expect(await probeOnce(port, "websocket")).toEqual({ good: true, detail: "answered the ping" });
  });

  it("reads no more of a huge body than it needs", async () => {
    let written = 0;
    const { port } = await start((peer) => {
      peer.write(`HTTP/1.1 200 OK\r\nContent-Length: ${2 ** 30}\r\n\r\n`);
      flood(peer, Buffer.alloc(65_536), (bytes) => {
        written += bytes;
      });
    });
    expect(await probeOnce(port, "http")).toEqual({ good: true, detail: "answered 200" });
    await upstream?.peers[0]?.ended();
    // What the kernel's buffers took, not what the backend had to say.
    expect(written).toBeLessThan(2 ** 25);
  });

  it("that is aborted before it begins makes no connection", async () => {
    const { port, peers } = await start(silent);
    const result = await probe(backendAt(port), configOf("http"), AbortSignal.abort());
    expect(result).toEqual({ good: false, detail: "aborted" });
    await connectAndLeave(port);
    expect(peers).toHaveLength(1);
  });
});

/** A port on which nobody listens: it was free a moment ago. */
async function closedPort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  return typeof address === "object" && address !== null ? address.port : 0;
}

/** Writes `chunk` again and again, as fast as it is taken, until the connection ends. */
function flood(peer: UpstreamPeer, chunk: Buffer, wrote: (bytes: number) => void = () => {}): void {
  const next = (): void => {
    if (peer.ending !== null || peer.socket.destroyed) return;
    peer.socket.write(chunk, (error) => {
      if (error) return;
      wrote(chunk.length);
      next();
    });
  };
  next();
}

/** A connection that was made after all others, so that those have been seen when it has. */
async function connectAndLeave(port: number): Promise<void> {
  const socket = tcpConnect(port, "127.0.0.1");
  await once(socket, "connect");
  await eventually(() => expect(upstream?.peers.length).toBeGreaterThan(0));
  socket.destroy();
}

/** What a TLS server says to a plain request: a fatal alert, unexpected_message. */
const TLS_ALERT = Buffer.from("15030300020250", "hex");
