/** A network namespace, and the process that lives in it (`namespace-agent.mjs`). */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Server, Socket } from "node:net";
import { fileURLToPath } from "node:url";
import { pathOf } from "../../support/programs.ts";

const PROGRAM = fileURLToPath(new URL("namespace-agent.mjs", import.meta.url));

interface Message {
  readonly id: number;
  readonly answer?: { readonly text?: string };
  readonly error?: string;
}

interface Reply {
  readonly text: string;
  readonly handle: unknown;
}

interface Waiting {
  readonly resolve: (reply: Reply) => void;
  readonly reject: (error: Error) => void;
}

export class NamespaceAgent {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #waiting = new Map<number, Waiting>();
  #orders = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#exited = once(child, "exit").then(() => this.#failAll());
    child.on("message", (message, handle) => this.#answered(message, handle));
  }

  /** Starts one in a new namespace, in which only the loopback interface is up. */
  static async start(): Promise<NamespaceAgent> {
    const child = spawn(pathOf("unshare"), ["--net", process.execPath, PROGRAM], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const agent = new NamespaceAgent(child);
    await agent.#reply(0);
    await agent.ip(["link set dev lo up"]);
    return agent;
  }

  get pid(): number {
    const { pid } = this.#child;
    if (pid === undefined) throw new Error("not started");
    return pid;
  }

  /** Lines of `ip -batch`. */
  async ip(lines: readonly string[]): Promise<void> {
    await this.#order("ip", { program: pathOf("ip"), lines });
  }

  async setSysctl(path: string, value: string): Promise<void> {
    await this.#order("sysctl", { path, value });
  }

  /** The body of an answer. */
  async get(url: string): Promise<string> {
    return (await this.#order("get", { url })).text;
  }

  async connect(host: string, port: number): Promise<Socket> {
    const { handle } = await this.#order("connect", { host, port });
    if (!(handle instanceof Socket)) throw new Error("no socket");
    return handle;
  }

  /** On a free port. */
  async listen(host: string): Promise<Server> {
    const { handle } = await this.#order("listen", { host });
    if (!(handle instanceof Server)) throw new Error("no server");
    return handle;
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  #order(order: string, details: object): Promise<Reply> {
    this.#orders += 1;
    const reply = this.#reply(this.#orders);
    this.#child.send({ id: this.#orders, order, ...details });
    return reply;
  }

  #reply(id: number): Promise<Reply> {
    return new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
  }

  #answered(message: unknown, handle: unknown): void {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- from our own program
    const { id, answer, error } = message as Message;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) waiting?.resolve({ text: answer?.text ?? "", handle });
    else waiting?.reject(new Error(error));
  }

  #failAll(): void {
    for (const { reject } of this.#waiting.values()) reject(new Error("the agent has ended"));
    this.#waiting.clear();
  }
}
