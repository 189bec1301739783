/** One life of a gateway's process: what it logs, what its admin listener says, and how it ends. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { GatewayStatus } from "../../src/admin/gateway-view.ts";
import type { SessionRecord } from "../../src/session/record.ts";
import { freePort } from "../bench/free-port.ts";
import type { Processes, RunningProcess } from "../bench/processes.ts";
import { History } from "./history.ts";
import { configOf, type Ports, type Variation } from "./settings.ts";

const MAIN = new URL("../../../dist/main.js", import.meta.url);
const COLLECTOR = new URL("../soak/collect-on-request.js", import.meta.url);
const REQUEST_LIMIT_MS = 10_000;

/** As the gateway logs it: what is nothing is left out. */
export type LoggedRecord = Pick<
  SessionRecord,
  | "session"
  | "durationMs"
  | "route"
  | "backend"
  | "clientIp"
  | "cause"
  | "client"
  | "upstream"
  | "messages"
  | "dials"
  | "resumes"
> &
  Partial<Pick<SessionRecord, "refused" | "dropped" | "detail">>;

/** What the process holds at one moment. */
export interface Holdings {
  readonly heapBytes: number;
  /** Sockets, listeners, timers, by Node's names for them. */
  readonly resources: Readonly<Record<string, number>>;
}

export class GatewayLife {
  readonly name: string;
  readonly ports: Ports;
  /** What has been done to backends for this gateway only. */
  readonly history: History;
  readonly records: LoggedRecord[] = [];
  /** Log lines that tell of a bug of the gateway's own. */
  readonly errors: string[] = [];
  /** Sessions that were closed through the admin API. */
  readonly closedByAdmin = new Set<string>();
  /** Sessions that it had to destroy at the end of its drain, as it logs. */
  destroyed = 0;
  /** From when on it shuts down. */
  drainsFrom = Number.POSITIVE_INFINITY;
  readonly running: RunningProcess;
  readonly #file: string;
  #rest = "";

  private constructor(
    name: string,
    ports: Ports,
    history: History,
    running: RunningProcess,
    file: string,
  ) {
    this.name = name;
    this.ports = ports;
    this.history = history;
    this.running = running;
    this.#file = file;
    // The readiness line may have come already; records have not.
    running.child.stdout?.on("data", (text: string) => this.#read(text));
    running.child.stderr?.on("data", (text: string) => this.errors.push(text));
    running.child.once("exit", (code, signal) => {
      const isOver = this.drainsFrom < Number.POSITIVE_INFINITY;
      if (!isOver) this.errors.push(`it ended by itself: ${code ?? signal}\n${running.output}`);
    });
  }

  static async start(
    processes: Processes,
    folder: string,
    name: string,
    backends: readonly number[],
    variation: Variation,
    wider: History,
  ): Promise<GatewayLife> {
    const ports = { listener: await freePort(), admin: await freePort(), backends };
    const file = join(folder, `${name}.yaml`);
    writeFileSync(file, configOf(ports, variation));
    const running = await processes.forkServer(name, MAIN, ports.listener, {
      args: ["run", "-c", file],
      execArgv: ["--expose-gc", "--import", COLLECTOR.href],
    });
    return new GatewayLife(name, ports, new History(wider), running, file);
  }

  /** The file is watched: that is all it takes. */
  writeConfig(text: string): void {
    writeFileSync(this.#file, text);
  }

  async status(): Promise<GatewayStatus> {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own admin API
    return JSON.parse(await this.request("/api/status")) as GatewayStatus;
  }

  metrics(): Promise<string> {
    return this.request("/metrics");
  }

  async request(path: string, method = "GET", body?: string): Promise<string> {
    const response = await fetch(`http://127.0.0.1:${this.ports.admin}${path}`, {
      method,
      signal: AbortSignal.timeout(REQUEST_LIMIT_MS),
      headers: { Connection: "close" },
      ...(body === undefined ? {} : { body }),
    });
    return await response.text();
  }

  /** After a full collection. */
  holdings(): Promise<Holdings> {
    return new Promise((resolve, reject) => {
      const { child } = this.running;
      const limit = setTimeout(() => reject(new Error("it does not answer")), REQUEST_LIMIT_MS);
      child.once("message", (holdings: Holdings) => {
        clearTimeout(limit);
        resolve(holdings);
      });
      child.send({ kind: "collect" });
    });
  }

  /** SIGTERM; resolves to its exit code. */
  async shutDown(limitMs: number): Promise<number | string> {
    const { child } = this.running;
    this.drainsFrom = performance.now();
    const exited = new Promise<number | string>((resolve) => {
      child.once("close", (code, signal) => resolve(code ?? signal ?? "nothing"));
    });
    child.kill("SIGTERM");
    const late = new Promise<string>((resolve) => {
      setTimeout(() => resolve(`nothing within ${limitMs / 1000} s`), limitMs).unref();
    });
    return await Promise.race([exited, late]);
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) {
      const parsed = JSON.parse(line);
      if (parsed.cause !== undefined) this.records.push(parsed);
      if (parsed.msg === "drained") this.destroyed = parsed.destroyed;
      // A file that is no good is the run's own doing.
      const isBad = parsed.level === "error" || parsed.level === "fatal";
      if (isBad && parsed.outcome !== "invalid" && parsed.cause === undefined)
        this.errors.push(line);
    }
  }
}
