/**
 * A WebSocket stack that nobody here wrote, as a program of its own (`test/real/stacks`): it is told what to
 * do by lines of JSON, and tells what its API shows. Has one connection at a time.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { eventually } from "./eventually.ts";

const PROGRAMS = fileURLToPath(new URL("../real/stacks/", import.meta.url));

/** A message is told by what it is made of, as it may be large. */
export interface Sendable {
  readonly binary: boolean;
  /** Base64. */
  readonly part: string;
  /** How often `part` is repeated. */
  readonly times: number;
  /** Where the stack lets its user choose. */
  readonly fragments: number;
}

type Command =
  | { readonly do: "listen"; readonly subprotocols: readonly string[]; readonly deflate: boolean }
  | {
      readonly do: "open";
      readonly url: string;
      readonly subprotocols: readonly string[];
      readonly deflate: boolean;
    }
  | ({ readonly do: "send" } & Sendable)
  | { readonly do: "ping"; readonly payload: string }
  | { readonly do: "close"; readonly code: number | null; readonly reason: string };

interface Events {
  readonly listening: { readonly port: number };
  readonly open: { readonly subprotocol: string | null };
  readonly message: { readonly binary: boolean; readonly length: number; readonly sha256: string };
  readonly pong: { readonly payload: string };
  readonly close: {
    readonly code: number;
    readonly reason: string;
    /** Null: the stack does not say. */
    readonly clean: boolean | null;
  };
}

type StackEvent = { readonly event: keyof Events } & Record<string, unknown>;

/** How a stack is started. */
export interface StackProgram {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
}

export class Stack {
  readonly name: string;
  /** What was told and not taken yet, oldest first. */
  events: StackEvent[] = [];
  stderr = "";
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #ports = new Map<boolean, number>();
  #open = 0;

  constructor({ name, command, args }: StackProgram) {
    this.name = name;
    this.#child = spawn(command, args, { cwd: PROGRAMS, stdio: ["pipe", "pipe", "pipe"] });
    this.#exited = once(this.#child, "exit");
    const { stdin, stdout, stderr } = this.#child;
    if (stdin === null || stdout === null || stderr === null) throw new Error("no pipes");
    // A program that was killed cannot be told any more.
    stdin.on("error", () => undefined);
    createInterface({ input: stdout }).on("line", (line) => this.#hear(line));
    stderr.on("data", (text: Buffer) => {
      this.stderr += text.toString();
    });
  }

  /** Whether it can be used again: it runs, and nothing is open. */
  get idle(): boolean {
    return this.#open === 0 && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  tell(command: Command): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  /** Waits for the next event of this kind, and takes it. */
  next<Name extends keyof Events>(name: Name): Promise<Events[Name]> {
    return eventually(() => {
      const index = this.events.findIndex(({ event }) => event === name);
      const [found] = index === -1 ? [] : this.events.splice(index, 1);
      if (found === undefined) {
        const told = JSON.stringify(this.events);
        throw new Error(`${this.name}: no ${name}; told ${told}; ${this.stderr}`);
      }
      const { event: _event, ...fields } = found;
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own programs
      return fields as unknown as Events[Name];
    }, 20_000);
  }

  /** The port on which it listens, with or without compression. */
  async listen(subprotocols: readonly string[], deflate: boolean): Promise<number> {
    const known = this.#ports.get(deflate);
    if (known !== undefined) return known;
    this.tell({ do: "listen", subprotocols, deflate });
    const { port } = await this.next("listening");
    this.#ports.set(deflate, port);
    return port;
  }

  /** Ends the process at once, as a crash would. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  #hear(line: string): void {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own programs
    const told = JSON.parse(line) as StackEvent;
    this.events.push(told);
    if (told.event === "open") this.#open += 1;
    // One that never opened closes, too.
    if (told.event === "close") this.#open = Math.max(0, this.#open - 1);
  }
}

/** What a stack must tell of a message. */
export function arrivalOf({ binary, part, times }: Sendable): Events["message"] {
  const bytes = Buffer.from(part, "base64");
  const whole = Buffer.alloc(bytes.length * times, bytes);
  const sha256 = createHash("sha256").update(whole).digest("hex");
  return { binary, length: whole.length, sha256 };
}
