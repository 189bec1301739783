/** The backends' processes: each keeps its port over all its lives, and hands in what it saw. */
import { freePort } from "../bench/free-port.ts";
import type { Processes, RunningProcess } from "../bench/processes.ts";
import type { UpstreamReport } from "./backend.ts";
import type { Entry, History } from "./history.ts";
import { BACKENDS } from "./settings.ts";

const MODULE = new URL("./backend.js", import.meta.url);

export class Backends {
  readonly reports = new Map<string, UpstreamReport[]>();
  readonly ports: number[] = [];
  readonly #processes: Processes;
  readonly #history: History;
  readonly #seed: number;
  readonly #running: RunningProcess[] = [];
  #lives = 0;

  private constructor(processes: Processes, history: History, seed: number) {
    this.#processes = processes;
    this.#history = history;
    this.#seed = seed;
  }

  static async start(processes: Processes, history: History, seed: number): Promise<Backends> {
    const backends = new Backends(processes, history, seed);
    for (let index = 0; index < BACKENDS; index += 1) {
      backends.ports.push(await freePort());
      await backends.#start(index);
    }
    return backends;
  }

  /** SIGKILL; `revive` ends it. */
  async kill(index: number): Promise<Entry> {
    const entry = this.#history.begin("killed", index);
    const running = this.#at(index);
    const exited = new Promise((resolve) => running.child.once("exit", resolve));
    running.child.kill("SIGKILL");
    await exited;
    await this.#processes.end(running);
    return entry;
  }

  /** SIGTERM: Close 1001 for every session, then a new process. */
  async restart(index: number): Promise<void> {
    const entry = this.#history.begin("restarted", index);
    await this.#processes.end(this.#at(index));
    await this.revive(index, entry);
  }

  async revive(index: number, entry: Entry): Promise<void> {
    await this.#start(index);
    this.#history.end(entry);
  }

  /** SIGSTOP; `thaw` ends it. */
  freeze(index: number): Entry {
    this.#at(index).child.kill("SIGSTOP");
    return this.#history.begin("frozen", index);
  }

  thaw(index: number, entry: Entry): void {
    this.#at(index).child.kill("SIGCONT");
    this.#history.end(entry);
  }

  async #start(index: number): Promise<void> {
    const args = [String(this.ports[index]), String(this.#seed), `${index}/${this.#lives}`];
    this.#lives += 1;
    const { running } = await this.#processes.fork(`backend ${index}`, MODULE, args);
    this.#running[index] = running;
    running.child.on("message", (message: { readonly reports?: readonly UpstreamReport[] }) => {
      for (const report of message.reports ?? []) this.#add(report);
    });
  }

  #add(report: UpstreamReport): void {
    const known = this.reports.get(report.session);
    if (known === undefined) this.reports.set(report.session, [report]);
    else known.push(report);
  }

  #at(index: number): RunningProcess {
    const running = this.#running[index];
    if (running === undefined) throw new Error(`no backend ${index}`);
    return running;
  }
}
