/** What tests of active health share: settings, backends well and ill, and the count of what is left. */
import type { HealthConfig } from "../../src/config/config.ts";
import type { Backend } from "../../src/upstream/backend.ts";
import { makeBackend } from "./pool-config.ts";
import type { Behaviour, UpstreamPeer } from "./raw-upstream.ts";

export type ProbeType = HealthConfig["type"];

/** The timeout where one is awaited: room for a noisy machine to come as far as the step that is meant. */
export const PATIENCE_MS = 400;

/** Those of this process, either end. */
export function tcpSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "TCPSocketWrap").length;
}

export function configOf(type: ProbeType, more: Partial<HealthConfig> = {}): HealthConfig {
  return {
    type,
    path: "/healthz?deep=1",
    intervalMs: 20,
    timeoutMs: 5_000,
    rise: 2,
    fall: 3,
    closeSessions: false,
    ...more,
  };
}

export function backendAt(port: number, url = `ws://127.0.0.1:${port}`): Backend {
  return makeBackend({ url, port, maxConnections: 1 });
}

export const answers =
  (status: number, body = "", more = ""): Behaviour =>
  (peer) => {
    peer.write(`HTTP/1.1 ${status} X\r\nContent-Length: ${body.length}\r\n${more}\r\n${body}`);
  };

export const silent: Behaviour = () => undefined;

/** Accepts a WebSocket and answers its ping, and nothing else: no Close. */
export const answersPing: Behaviour = (peer) => {
  peer.accept();
  peer.socket.on("data", () => {
    const ping = peer.log.frames.find(({ opcode }) => opcode === 9);
    if (ping !== undefined) peer.send({ opcode: 10, payload: ping.payload });
  });
};

/** A backend's side of a WebSocket that is well. */
export const speaksWebSocket: Behaviour = (peer) => {
  answersPing(peer);
  peer.answersClose();
};

/** Turns of the event loop between two drops: too slowly to fill any limit. */
const TURNS = 200;

/** Sends `first`, then a drop at a time, until the connection ends; needs no timer. */
export function drip(peer: UpstreamPeer, first: string, drop: string): void {
  peer.write(first);
  let turn = 0;
  const next = (): void => {
    if (peer.ending !== null || peer.socket.destroyed) return;
    turn += 1;
    if (turn % TURNS === 0) peer.socket.write(drop);
    setImmediate(next);
  };
  next();
}
