/**
 * The load generator: a process of its own that does one job at a time, as told over IPC. It checks
 * what comes back before and after each window, so that no number stems from a proxy that drops,
 * repeats or changes messages.
 */
import { setTimeout as delay } from "node:timers/promises";
import { ClientConnection, type ClientHandlers } from "./client-connection.ts";
import { maskedFrame, OPCODE_BINARY } from "./frames.ts";
import type {
  EchoJob,
  EchoResult,
  HandshakeJob,
  HandshakeResult,
  IdleJob,
  IdleResult,
  Job,
  JobResult,
} from "./jobs.ts";
import { LatencyHistogram } from "./latency-histogram.ts";
import { cpuTime, residentKib } from "./process-stats.ts";

/** Connections opened at the same moment: well below every listen backlog (511 in Node). */
const OPENING_AT_ONCE = 50;

/** What is in flight at the end of a window arrives in milliseconds; this is for a proxy that hangs. */
const STALL_MS = 10_000;

const SMALL_PAYLOAD_BYTES = 64;

/** A session that is to be closed in a moment cannot have ended before. */
const ignoreEnd: (error: Error | undefined) => void = () => {};

/** One job's connections, and the promises of what they are waited for. */
class Fleet {
  readonly connections: ClientConnection[] = [];
  readonly #port: number;
  readonly #payload: Buffer;
  readonly #frame: Buffer;

  constructor(port: number, payloadBytes: number) {
    this.#port = port;
    // A pattern without period 4, or a wrongly rotated mask key would go unnoticed.
    this.#payload = Buffer.from(
      Array.from({ length: payloadBytes }, (_, i) => (i * 31 + (i >> 8)) & 0xff),
    );
    this.#frame = maskedFrame(OPCODE_BINARY, this.#payload);
  }

  frames(count: number): Buffer {
    return Buffer.concat(Array.from({ length: count }, () => this.#frame));
  }

  /** Opens `count` sessions; each has proven both its legs by an echoed message. */
  async open(count: number, handlersAfterwards?: ClientHandlers): Promise<void> {
    for (let opened = 0; opened < count; opened += OPENING_AT_ONCE) {
      const batch = Math.min(OPENING_AT_ONCE, count - opened);
      const sessions = Array.from({ length: batch }, () => this.openOne(handlersAfterwards));
      this.connections.push(...(await Promise.all(sessions)));
    }
  }

  openOne(handlersAfterwards?: ClientHandlers): Promise<ClientConnection> {
    return new Promise((resolve, reject) => {
      let proven = false;
      const stalled = setTimeout(() => reject(new Error("no session in time")), STALL_MS);
      const connection = new ClientConnection(this.#port, "/", {
        onOpen: () => {
          connection.capture();
          connection.write(this.#frame);
        },
        onMessages: (_, count) => {
          if (proven) {
            handlersAfterwards?.onMessages(connection, count);
            return;
          }
          proven = true;
          clearTimeout(stalled);
          if (connection.takeCaptured().equals(this.#payload)) resolve(connection);
          else reject(new Error("the echo differs from what was sent"));
        },
        onEnd: (_, error) => {
          clearTimeout(stalled);
          if (!proven) reject(error ?? new Error("connection ended before its echo"));
          else handlersAfterwards?.onEnd(connection, error);
        },
      });
    });
  }

  async closeAll(ended: () => number): Promise<void> {
    for (const connection of this.connections) connection.close();
    await until(() => ended() === this.connections.length, "sessions did not close");
  }
}

async function until(condition: () => boolean, otherwise: string): Promise<void> {
  const deadline = performance.now() + STALL_MS;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(otherwise);
    await delay(5);
  }
}

async function echo(job: EchoJob): Promise<EchoResult> {
  const fleet = new Fleet(job.port, job.payloadBytes);
  const latencies = new LatencyHistogram();
  const bursts = Array.from({ length: job.inFlight + 1 }, (_, count) => fleet.frames(count));
  const one = fleet.frames(1);
  let running = true;
  let messages = 0;
  let ended = 0;
  let failure: Error | undefined;

  const send = (connection: ClientConnection, count: number): void => {
    connection.outstanding += count;
    connection.write(bursts[count] ?? one);
  };
  await fleet.open(job.connections, {
    onOpen: () => {},
    onMessages: (connection, count) => {
      const now = performance.now();
      messages += count;
      latencies.add(now - connection.sentAtMs, count);
      connection.outstanding -= count;
      if (connection.outstanding < 0) failure ??= new Error("more echoes than messages");
      if (!running) return;
      connection.sentAtMs = now;
      send(connection, count);
    },
    onEnd: (_, error) => {
      ended++;
      failure ??= error;
    },
  });
  for (const connection of fleet.connections) {
    connection.sentAtMs = performance.now();
    send(connection, job.inFlight);
  }
  await delay(job.warmUpMs);

  const cpuBefore = cpuTime(job.pids);
  const startedAt = performance.now();
  messages = 0;
  latencies.reset();
  await delay(job.measureMs);
  const measured = messages;
  const elapsedMs = performance.now() - startedAt;
  const cpuAfter = cpuTime(job.pids);
  const result: EchoResult = {
    kind: "echo",
    cpuUsPerMessage: (cpuAfter.totalUs - cpuBefore.totalUs) / measured,
    userUsPerMessage: (cpuAfter.userUs - cpuBefore.userUs) / measured,
    messagesPerSecond: (measured * 1000) / elapsedMs,
    p50Us: latencies.percentileUs(0.5),
    p99Us: latencies.percentileUs(0.99),
  };

  running = false;
  const allBack = (): boolean =>
    failure !== undefined || fleet.connections.every((connection) => connection.outstanding === 0);
  await until(allBack, "messages were lost");
  for (const connection of fleet.connections) connection.capture();
  for (const connection of fleet.connections) send(connection, 1);
  await until(allBack, "messages were lost after the window");
  if (failure !== undefined) throw failure;
  const [first, ...others] = fleet.connections.map((connection) => connection.takeCaptured());
  if (first?.length !== job.payloadBytes || others.some((captured) => !captured.equals(first))) {
    throw new Error("an echo after the window differs from what was sent");
  }
  await fleet.closeAll(() => ended);
  return result;
}

async function handshakes(job: HandshakeJob): Promise<HandshakeResult> {
  const fleet = new Fleet(job.port, SMALL_PAYLOAD_BYTES);
  const load = { running: true };
  let established = 0;
  const cycle = async (): Promise<void> => {
    while (load.running) {
      let onEnd = ignoreEnd;
      const connection = await fleet.openOne({
        onOpen: () => {},
        onMessages: () => {},
        onEnd: (_, error) => onEnd(error),
      });
      established++;
      await new Promise<void>((resolve, reject) => {
        onEnd = (error) => (error === undefined ? resolve() : reject(error));
        connection.close();
      });
    }
  };
  const cycles = Promise.all(Array.from({ length: job.concurrency }, cycle));
  // A cycle that fails during the windows is reported when the cycles are awaited below.
  cycles.catch(() => {});
  await delay(job.warmUpMs);
  const cpuBefore = cpuTime(job.pids);
  const startedAt = performance.now();
  established = 0;
  await delay(job.measureMs);
  const measured = established;
  const elapsedMs = performance.now() - startedAt;
  const cpuAfter = cpuTime(job.pids);
  load.running = false;
  await cycles;
  return {
    kind: "handshakes",
    handshakesPerSecond: (measured * 1000) / elapsedMs,
    cpuUsPerHandshake: (cpuAfter.totalUs - cpuBefore.totalUs) / measured,
  };
}

async function idle(job: IdleJob): Promise<IdleResult> {
  let ended = 0;
  let failure: Error | undefined;
  const handlers: ClientHandlers = {
    onOpen: () => {},
    onMessages: () => {},
    onEnd: (_, error) => {
      ended++;
      failure ??= error;
    },
  };
  const warmUp = new Fleet(job.port, SMALL_PAYLOAD_BYTES);
  await warmUp.open(job.warmUpSessions, handlers);
  await warmUp.closeAll(() => ended);
  await delay(job.settleMs);
  const baselineKib = residentKib(job.pids);

  ended = 0;
  const fleet = new Fleet(job.port, SMALL_PAYLOAD_BYTES);
  await fleet.open(job.sessions, handlers);
  await delay(job.settleMs);
  const loadedKib = residentKib(job.pids);
  if (ended > 0) throw failure ?? new Error("idle sessions were closed");
  await fleet.closeAll(() => ended);
  return { kind: "idle", kibPerSession: (loadedKib - baselineKib) / job.sessions };
}

async function perform(job: Job): Promise<JobResult> {
  try {
    if (job.kind === "echo") return await echo(job);
    if (job.kind === "handshakes") return await handshakes(job);
    return await idle(job);
  } catch (error) {
    return { kind: "failed", reason: error instanceof Error ? error.message : String(error) };
  }
}

process.on("message", (job: Job) => {
  void perform(job).then((result) => process.send?.(result));
});
process.on("disconnect", () => process.exit());
// Nobody but the benchmark ends this process: Ctrl-C reaches the whole terminal group.
process.on("SIGINT", () => {});
process.send?.({ kind: "ready", port: 0 });
