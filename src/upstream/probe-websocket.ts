/** The `websocket` probe: a real handshake, a ping, and good is its pong. Then Close 1000. */
import { WebSocket } from "ws";
import type { HealthConfig } from "../config/config.ts";
import {
  describe,
  PROBE_USER_AGENT,
  type ProbeResult,
  type ProbeTarget,
  runProbe,
} from "./probe-attempt.ts";

const PING_PAYLOAD = Buffer.from(PROBE_USER_AGENT);

/** For the backend's Close and its end of TCP: the verdict stands by then, and the next probe waits. */
const CLOSE_WAIT_MS = 1_000;

/** What a backend may greet with before its pong: as the default of `limits.maxMessageSize`. */
const MAX_GREETING_BYTES = 16 * 1024 * 1024;

/** No subprotocol and no extension is offered: a backend that insists on one is better probed by `http`. */
export function probeWebSocket(
  target: ProbeTarget,
  { path, timeoutMs }: Pick<HealthConfig, "path" | "timeoutMs">,
  signal: AbortSignal,
): Promise<ProbeResult> {
  return runProbe(target, timeoutMs, signal, (attempt) => {
    const socket = attempt.openSocket();
    if (socket === null) return;
    socket.once("connect", () => attempt.awaits("answer to the handshake"));
    const { host } = new URL(target.url);
    const probe = new WebSocket(`ws://${host}${path}`, {
      createConnection: () => socket,
      headers: { Host: host, "User-Agent": PROBE_USER_AGENT },
      perMessageDeflate: false,
      maxPayload: MAX_GREETING_BYTES,
    });
    attempt.onDone(() => probe.terminate());
    // Stays to the end: an attempt that is aborted while it connects makes one more error.
    probe.on("error", (error) => attempt.fail(wordsFor(error)));
    probe.on("unexpected-response", (_request, { statusCode }) => {
      attempt.fail(`answered ${statusCode ?? "nothing"}`);
    });
    probe.on("open", () => {
      attempt.awaits("pong");
      probe.ping(PING_PAYLOAD);
    });
    probe.on("pong", (payload) => {
      // RFC 6455 §5.5.3: a pong that nobody asked for is legal, and proves nothing.
      if (!payload.equals(PING_PAYLOAD)) return;
      attempt.leave("answered the ping", CLOSE_WAIT_MS);
      probe.close(1000);
    });
    probe.on("close", (code) => attempt.fail(`closed with ${code} before its pong`));
  });
}

function wordsFor(error: NodeJS.ErrnoException): string {
  // Node's word for a connection that ends before an answer; a reset has a system call.
  const isEnd = error.code === "ECONNRESET" && error.syscall === undefined;
  return isEnd ? "closed the connection during the handshake" : describe(error);
}
