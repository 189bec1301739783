/** Backends as processes of their own, for what only the kernel does to one: SIGKILL and SIGSTOP. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** What a backend runs: both echo. */
type Program = "journalling-backend.mjs" | "deflating-backend.mjs";

/** A message as a backend has read it. */
export interface Arrival {
  readonly path: string;
  readonly session: string;
  /** How many upstreams the session had lost before. */
  readonly resume: number;
  readonly number: number;
}

export class BackendProcess {
  readonly #journal: string;
  readonly #program: string;
  #child: ChildProcess;
  port = 0;

  private constructor(journal: string, program: Program) {
    this.#journal = journal;
    this.#program = fileURLToPath(new URL(program, import.meta.url));
    this.#child = this.#spawn();
  }

  /** Starts one on a free port, which it keeps over restarts. `journal`: the file for its arrivals. */
  static async start(
    journal: string,
    program: Program = "journalling-backend.mjs",
  ): Promise<BackendProcess> {
    const backend = new BackendProcess(journal, program);
    await backend.#listening();
    return backend;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** Everything that it has ever read, as far as it was written down whole. */
  get arrivals(): Arrival[] {
    const text = readFileSync(this.#journal, "latin1");
    const whole = text.slice(0, text.lastIndexOf("\n") + 1);
    return whole
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => {
        const [path = "", session = "", resume, number] = line.split(" ");
        return { path, session, resume: Number(resume), number: Number(number) };
      });
  }

  /** Holds the process as it is: its sockets stay, and nobody answers. */
  freeze(): void {
    this.#child.kill("SIGSTOP");
  }

  /** Ends `freeze`. */
  thaw(): void {
    this.#child.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }

  /** On the same port, after `kill`. */
  async restart(): Promise<void> {
    this.#child = this.#spawn();
    await this.#listening();
  }

  #spawn(): ChildProcess {
    return spawn(process.execPath, [this.#program, String(this.port), this.#journal], {
      stdio: ["ignore", "pipe", "inherit"],
    });
  }

  async #listening(): Promise<void> {
    const { stdout } = this.#child;
    if (stdout === null) throw new Error("no output");
    const ended = once(this.#child, "exit").then(() => {
      throw new Error("the backend ended before it listened");
    });
    const [line]: Buffer[] = await Promise.race([once(stdout, "data"), ended]);
    ended.catch(() => undefined);
    this.port = Number(line?.toString());
  }
}
