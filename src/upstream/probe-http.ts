/** The `http` probe: GET, and good is an answer with 2xx or 3xx that comes to its end in time. */
import { type buildConnector, Client, errors } from "undici";
import type { HealthConfig } from "../config/config.ts";
import {
  describe,
  PROBE_USER_AGENT,
  type ProbeAttempt,
  type ProbeResult,
  type ProbeTarget,
  runProbe,
} from "./probe-attempt.ts";

/** A health page is small; of a larger one the beginning is proof enough, and the rest is not read. */
export const MAX_PROBE_BODY_BYTES = 64 * 1024;

/**
 * A redirect is good, and not followed: whoever answers it is alive, and where it leads is another
 * server's health. The body of a bad status is not waited for.
 */
export function probeHttp(
  target: ProbeTarget,
  { path, timeoutMs }: Pick<HealthConfig, "path" | "timeoutMs">,
  signal: AbortSignal,
): Promise<ProbeResult> {
  return runProbe(target, timeoutMs, signal, (attempt) => {
    const { host } = new URL(target.url);
    // One client for each probe, over the attempt's socket: no connection is kept alive, so that each
    // probe proves that the backend still accepts. Its own timeouts are off: the attempt has one for all.
    const client = new Client(`http://${host}`, {
      connect: connectorOf(attempt),
      headersTimeout: 0,
      bodyTimeout: 0,
    });
    attempt.onDone(() => void client.destroy());
    ask(attempt, client, path, host).catch((error: unknown) => attempt.fail(wordsFor(error)));
  });
}

async function ask(
  attempt: ProbeAttempt,
  client: Client,
  path: string,
  host: string,
): Promise<void> {
  const { statusCode, body } = await client.request({
    method: "GET",
    path,
    headers: { host, "user-agent": PROBE_USER_AGENT, accept: "*/*" },
    // `Connection: close`.
    reset: true,
  });
  // It breaks when the attempt ends early, which is no news; without a listener it would end the process.
  body.on("error", () => undefined);
  const detail = `answered ${statusCode}`;
  if (statusCode < 200 || statusCode > 399) {
    attempt.fail(detail);
    return;
  }
  attempt.awaits("end of the answer");
  let bytes = 0;
  for await (const chunk of body) {
    bytes += Buffer.byteLength(chunk);
    if (bytes >= MAX_PROBE_BODY_BYTES) break;
  }
  attempt.succeed(detail);
}

/** Hands out the attempt's socket, once. */
function connectorOf(attempt: ProbeAttempt): buildConnector.connector {
  return (_options, callback) => {
    const socket = attempt.openSocket();
    if (socket === null) {
      // undici dials again when a connection ends before the request went out.
      callback(new Error("other side closed"), null);
      return;
    }
    const onClose = (): void => callback(new Error("not connected"), null);
    socket.once("close", onClose);
    socket.once("connect", () => {
      socket.removeListener("close", onClose);
      attempt.awaits("answer");
      callback(null, socket);
    });
  };
}

function wordsFor(error: unknown): string {
  // The parser's own words name states of its grammar.
  return error instanceof errors.HTTPParserError ? "answer is not HTTP/1.1" : describe(error);
}
