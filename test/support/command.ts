/** The built `softclose` binary as a child process, for what it prints and how it ends. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { eventually } from "./eventually.ts";

const MAIN = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

export interface CommandOptions {
  /** Beside an environment without any SOFTCLOSE_ variable. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** The most file descriptors that it may have open. */
  readonly maxFiles?: number;
}

export interface CommandResult {
  /** Null: ended by a signal. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export class CommandProcess {
  readonly child: ChildProcess;
  stdout = "";
  stderr = "";
  readonly ended: Promise<CommandResult>;

  constructor(args: readonly string[], { env = {}, cwd, maxFiles }: CommandOptions = {}) {
    const inherited = Object.entries(process.env).filter(
      ([name]) => !/^SOFTCLOSE_|^NODE_/.test(name),
    );
    const command =
      maxFiles === undefined
        ? { file: process.execPath, args: [MAIN, ...args] }
        : {
            file: "/bin/sh",
            args: ["-c", `ulimit -n ${maxFiles}; exec "$@"`, "sh", process.execPath, MAIN, ...args],
          };
    this.child = spawn(command.file, command.args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...Object.fromEntries(inherited), ...env },
      ...(cwd === undefined ? {} : { cwd }),
    });
    this.child.stdout?.on("data", (bytes: Buffer) => {
      this.stdout += bytes.toString();
    });
    this.child.stderr?.on("data", (bytes: Buffer) => {
      this.stderr += bytes.toString();
    });
    this.ended = new Promise((resolve) => {
      this.child.on("close", (code) => {
        resolve({ code, stdout: this.stdout, stderr: this.stderr });
      });
    });
  }

  /** Log lines so far. */
  get lines(): Record<string, unknown>[] {
    const whole = this.stdout.slice(0, this.stdout.lastIndexOf("\n") + 1);
    return whole
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line));
  }

  /** Waits until `run` is ready. */
  async ready(): Promise<void> {
    await eventually(() => {
      if (this.lines.every(({ msg }) => msg !== "ready")) {
        throw new Error(`not ready; exit code ${this.child.exitCode}; ${this.stderr}`);
      }
    });
  }

  /** Port of a listener, by its name in the log. */
  port(listener: string): number {
    const address = this.lines.find((line) => line["listener"] === listener)?.["address"];
    const text = typeof address === "string" ? address : "";
    return Number(text.slice(text.lastIndexOf(":") + 1));
  }

  /** Ends it at once, if it still runs. */
  async stop(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill("SIGKILL");
    await this.ended;
  }
}

/** Runs a command that ends by itself. */
export function softclose(
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  return new CommandProcess(args, options).ended;
}
