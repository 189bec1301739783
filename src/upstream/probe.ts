/** Probing a backend in the way that its pool's `health.type` says. */
import type { HealthConfig } from "../config/config.ts";
import { type ProbeResult, type ProbeTarget, runProbe } from "./probe-attempt.ts";
import { probeHttp } from "./probe-http.ts";
import { probeWebSocket } from "./probe-websocket.ts";

/**
 * Never rejects; settles within the timeout (`websocket`: and its short goodbye), or at once when
 * `signal` is aborted, and leaves no socket behind. A probe takes no slot and is no session.
 */
export type Probe = (
  target: ProbeTarget,
  config: HealthConfig,
  signal: AbortSignal,
) => Promise<ProbeResult>;

export const probe: Probe = (target, config, signal) => {
  switch (config.type) {
    case "http":
      return probeHttp(target, config, signal);
    case "tcp":
      return probeTcp(target, config, signal);
    case "websocket":
      return probeWebSocket(target, config, signal);
  }
};

/** Good: the connection came about. What the backend would do with it is not asked. */
const probeTcp: Probe = (target, { timeoutMs }, signal) =>
  runProbe(target, timeoutMs, signal, (attempt) => {
    attempt.openSocket()?.on("connect", () => attempt.succeed("connected"));
  });
