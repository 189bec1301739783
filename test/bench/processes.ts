/**
 * Every process that the benchmark starts, so that each is ended by its pid: at the end, on an error
 * and on a signal. Also the two ways to learn that one is ready: its IPC message or its open port.
 */
import { type ChildProcess, fork, type StdioOptions, spawn } from "node:child_process";
import * as net from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { processTree } from "./process-stats.ts";

const START_TIMEOUT_MS = 15_000;
const POLL_MS = 20;

/** Between SIGTERM and SIGKILL. */
const END_TIMEOUT_MS = 3_000;

/** The end of a process's output, for the message when it cannot start. */
const OUTPUT_TAIL_CHARS = 2_000;

const IPC_STDIO: StdioOptions = ["ignore", "pipe", "pipe", "ipc"];

export interface RunningProcess {
  name: string;
  child: ChildProcess;
  pid: number;
  /** What it wrote last, on both streams. */
  output: string;
}

export class Processes {
  readonly #running = new Map<number, RunningProcess>();

  /** Forks a compiled module of ours; resolves with the port that it announces. */
  async fork(
    name: string,
    module: URL,
    args: string[] = [],
  ): Promise<{ running: RunningProcess; port: number }> {
    const child = fork(module, args, { stdio: IPC_STDIO });
    const running = this.#track(name, child);
    const port = await new Promise<number>((resolve, reject) => {
      const timer = setTimeout(() => reject(notStarted(running, "in time")), START_TIMEOUT_MS);
      child.once("message", (message: { port: number }) => {
        clearTimeout(timer);
        resolve(message.port);
      });
      child.once("exit", () => {
        clearTimeout(timer);
        reject(notStarted(running, "at all"));
      });
    });
    return { running, port };
  }

  /** Starts a program; resolves as soon as `port` accepts connections. */
  async spawn(
    name: string,
    command: string,
    args: string[],
    port: number,
  ): Promise<RunningProcess> {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    return await this.#untilOpen(this.#track(name, child), port);
  }

  /** The same for a Node program with an IPC channel, which it need not know of. */
  async forkServer(
    name: string,
    module: URL,
    port: number,
    options: { args: string[]; execArgv: string[] },
  ): Promise<RunningProcess> {
    const child = fork(module, options.args, { stdio: IPC_STDIO, execArgv: options.execArgv });
    return await this.#untilOpen(this.#track(name, child), port);
  }

  async #untilOpen(running: RunningProcess, port: number): Promise<RunningProcess> {
    const { child } = running;
    let spawnError: Error | undefined;
    child.once("error", (error) => {
      spawnError = error;
    });
    const deadline = performance.now() + START_TIMEOUT_MS;
    while (!(await accepts(port))) {
      if (spawnError !== undefined) throw spawnError;
      if (hasEnded(child)) throw notStarted(running, "at all");
      if (performance.now() > deadline) throw notStarted(running, "in time");
      await delay(POLL_MS);
    }
    return running;
  }

  /** SIGTERM, then SIGKILL; resolves when the process is gone. */
  async end(running: RunningProcess): Promise<void> {
    const { child, pid } = running;
    if (!hasEnded(child)) {
      const descendants = processTree(pid).slice(1);
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      await Promise.race([exited, delay(END_TIMEOUT_MS, undefined, { ref: false })]);
      if (!hasEnded(child)) {
        for (const descendant of descendants) kill(descendant);
        child.kill("SIGKILL");
        await exited;
      }
    }
    this.#running.delete(pid);
  }

  async endAll(): Promise<void> {
    await Promise.all([...this.#running.values()].map((running) => this.end(running)));
  }

  /** Synchronous last resort, for an `exit` listener. */
  killAll(): void {
    for (const { child, pid } of this.#running.values()) {
      if (hasEnded(child)) continue;
      for (const member of processTree(pid)) kill(member);
    }
  }

  #track(name: string, child: ChildProcess): RunningProcess {
    const running: RunningProcess = { name, child, pid: child.pid ?? 0, output: "" };
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        running.output = (running.output + text).slice(-OUTPUT_TAIL_CHARS);
      });
    }
    child.on("error", () => {
      // It could not be started; `exit` does not follow, so it is forgotten here.
      this.#running.delete(running.pid);
    });
    if (child.pid !== undefined) this.#running.set(child.pid, running);
    return running;
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function hasEnded(child: ChildProcess): boolean {
  return child.exitCode !== null || child.signalCode !== null;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself in the meantime.
  }
}

function notStarted(running: RunningProcess, how: string): Error {
  return new Error(`${running.name} did not start ${how}\n${running.output}`.trimEnd());
}
