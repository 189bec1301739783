/** The built gateway as a process of its own: for signals, exit codes, and memory that is only its. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually, LONG_MS } from "./eventually.ts";
import { completeConfig } from "./gateway.ts";

const MAIN = fileURLToPath(new URL("../../dist/main.js", import.meta.url));

interface SessionView {
  readonly state: string;
  readonly bytes: { readonly clientToUpstream: number; readonly upstreamToClient: number };
}

interface Status {
  readonly sessions: number;
  readonly routes: readonly { readonly name: string }[];
  readonly lastReload: { readonly outcome: string; readonly problems: readonly string[] } | null;
  readonly pools: readonly { readonly backends: readonly { readonly connections: number }[] }[];
}

/** Where a gateway runs. */
export interface Place {
  /** Runs a command there, which is given behind it. */
  readonly command: readonly string[];
  /** The body of an HTTP answer, asked for there. */
  get(url: string): Promise<string>;
}

const BESIDE_THE_TEST: Place = {
  command: [],
  get: async (url) => await (await fetch(url)).text(),
};

export class GatewayProcess {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #place: Place;
  /** Parsed log lines so far. */
  readonly lines: Record<string, unknown>[] = [];
  stderr = "";
  #rest = "";
  /** Resolves to the exit code; null: ended by a signal. */
  readonly exited: Promise<number | null>;

  private constructor(child: ChildProcess, folder: string, place: Place) {
    this.#child = child;
    this.#folder = folder;
    this.#place = place;
    child.stdout?.on("data", (text: Buffer) => this.#read(text.toString()));
    child.stderr?.on("data", (text: Buffer) => {
      this.stderr += text.toString();
    });
    this.exited = new Promise((resolve) => child.on("exit", (code) => resolve(code)));
  }

  /**
   * Starts `softclose run -c` and waits until it is ready. `yaml` needs routes and pools only, like
   * that of `startGateway`. `nodeOptions`: for Node itself. Remember `stop` at the end.
   */
  static async start(
    yaml: string,
    nodeOptions: readonly string[] = [],
    place: Place = BESIDE_THE_TEST,
  ): Promise<GatewayProcess> {
    const folder = mkdtempSync(join(tmpdir(), "softclose-test-"));
    const file = join(folder, "gateway.yaml");
    writeFileSync(file, completeConfig(yaml));
    return await GatewayProcess.startWith(file, folder, nodeOptions, place);
  }

  /** The same with a file that is there; `folder` is removed at the end. */
  static async startWith(
    file: string,
    folder: string,
    nodeOptions: readonly string[] = [],
    place: Place = BESIDE_THE_TEST,
  ): Promise<GatewayProcess> {
    const gatewayCommand = [process.execPath, ...nodeOptions, MAIN, "run", "-c", file];
    const [program = "", ...args] = [...place.command, ...gatewayCommand];
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    const gateway = new GatewayProcess(child, folder, place);
    const ended = gateway.exited.then((code) => {
      throw new Error(`ended with ${code}; ${gateway.stderr}`);
    });
    try {
      await Promise.race([gateway.#ready(), ended]);
    } catch (error) {
      await gateway.stop();
      throw error;
    }
    return gateway;
  }

  get port(): number {
    return Number(this.#address("test").split(":")[1]);
  }

  get adminUrl(): string {
    return `http://${this.#address("admin")}`;
  }

  url(path = "/"): string {
    return `ws://127.0.0.1:${this.port}${path}`;
  }

  async status(): Promise<Status> {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own admin API
    return JSON.parse(await this.#place.get(`${this.adminUrl}/api/status`)) as Status;
  }

  async sessions(): Promise<SessionView[]> {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own admin API
    return JSON.parse(await this.#place.get(`${this.adminUrl}/api/sessions`)) as SessionView[];
  }

  /** The value of one series of `/metrics`; NaN where it is not there. */
  async metric(series: string): Promise<number> {
    const text = await this.#place.get(`${this.adminUrl}/metrics`);
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
    return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
  }

  /** Slots taken, backend by backend. */
  async slots(): Promise<number[]> {
    const { pools } = await this.status();
    return pools.flatMap(({ backends }) => backends.map(({ connections }) => connections));
  }

  /** Records that were logged, oldest first. */
  get records(): Record<string, unknown>[] {
    return this.lines.filter(({ cause }) => cause !== undefined);
  }

  /** Resident memory, in bytes. */
  residentBytes(): number {
    const status = readFileSync(`/proc/${this.#child.pid}/status`, "latin1");
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends it at once, if it still runs. */
  async stop(): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill("SIGKILL");
    await this.exited;
    rmSync(this.#folder, { recursive: true });
  }

  #ready(): Promise<void> {
    return eventually(() => {
      if (this.lines.every(({ msg }) => msg !== "ready")) {
        throw new Error(`not ready; ${this.stderr}`);
      }
    }, LONG_MS);
  }

  #address(listener: string): string {
    const line = this.lines.find((candidate) => candidate["listener"] === listener);
    return String(line?.["address"]);
  }

  #read(text: string): void {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.lines.push(JSON.parse(line));
  }
}
