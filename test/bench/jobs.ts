/** What the benchmark asks of its load generator, and what it gets back: the messages on their IPC. */

interface Target {
  port: number;
  /** The proxy's processes; the generator samples them at the very edges of its window. */
  pids: number[];
}

export interface EchoJob extends Target {
  kind: "echo";
  connections: number;
  payloadBytes: number;
  inFlight: number;
  warmUpMs: number;
  measureMs: number;
}

export interface HandshakeJob extends Target {
  kind: "handshakes";
  concurrency: number;
  warmUpMs: number;
  measureMs: number;
}

export interface IdleJob extends Target {
  kind: "idle";
  warmUpSessions: number;
  sessions: number;
  settleMs: number;
}

export type Job = EchoJob | HandshakeJob | IdleJob;

export interface EchoResult {
  kind: "echo";
  cpuUsPerMessage: number;
  /** The share of it that was spent outside the kernel. */
  userUsPerMessage: number;
  messagesPerSecond: number;
  p50Us: number;
  p99Us: number;
}

export interface HandshakeResult {
  kind: "handshakes";
  handshakesPerSecond: number;
  cpuUsPerHandshake: number;
}

export interface IdleResult {
  kind: "idle";
  kibPerSession: number;
}

export interface FailedResult {
  kind: "failed";
  reason: string;
}

export type JobResult = EchoResult | HandshakeResult | IdleResult | FailedResult;
