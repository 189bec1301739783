/** The gateway under soak: its process, its public port, and what can be read from it. */
import { writeFileSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { freePort } from "../bench/free-port.ts";
import { openDescriptors, residentKib } from "../bench/process-stats.ts";
import type { Processes, RunningProcess } from "../bench/processes.ts";
import { Scrape } from "../bench/scrape.ts";

export interface Sample {
  cycles: number;
  residentKib: number;
  heapBytes: number;
  descriptors: number;
  sessionsActive: number;
  sessionsTotal: number;
  /** `softclose_session_ends_total` by cause. */
  ends: Map<string, number>;
}

const GATEWAY = new URL("../../../dist/main.js", import.meta.url);
const COLLECTOR = new URL("./collect-on-request.js", import.meta.url);

export class GatewayProcess {
  readonly port: number;
  readonly running: RunningProcess;
  readonly #adminPort: number;

  private constructor(running: RunningProcess, port: number, adminPort: number) {
    this.running = running;
    this.port = port;
    this.#adminPort = adminPort;
  }

  static async start(
    processes: Processes,
    upstreamPort: number,
    folder: string,
  ): Promise<GatewayProcess> {
    const port = await freePort();
    const adminPort = await freePort();
    const file = join(folder, "gateway.yaml");
    writeFileSync(
      file,
      `listeners:
  - { name: public, bind: "127.0.0.1:${port}" }
admin: { bind: "127.0.0.1:${adminPort}" }
routes:
  - { name: soak, pool: soak }
pools:
  soak:
    backends:
      - { url: "ws://127.0.0.1:${upstreamPort}" }
log: { level: error }
`,
    );
    const running = await processes.forkServer("softclose", GATEWAY, port, {
      args: ["run", "-c", file],
      execArgv: ["--expose-gc", "--import", COLLECTOR.href],
    });
    return new GatewayProcess(running, port, adminPort);
  }

  /** The heap after a full collection, and everything else at the same moment. */
  async sample(cycles: number): Promise<Sample> {
    await this.#collectGarbage();
    const scrape = new Scrape(await fetchText(this.#adminPort, "/metrics"));
    const ends = new Map<string, number>();
    for (const [labels, value] of scrape.series.get("softclose_session_ends_total") ?? []) {
      const cause = /cause="([^"]*)"/.exec(labels)?.[1];
      if (cause !== undefined) ends.set(cause, (ends.get(cause) ?? 0) + value);
    }
    return {
      cycles,
      residentKib: residentKib([this.running.pid]),
      heapBytes: scrape.total("nodejs_heap_size_used_bytes"),
      descriptors: openDescriptors(this.running.pid),
      sessionsActive: scrape.total("softclose_sessions_active"),
      sessionsTotal: scrape.total("softclose_sessions_total"),
      ends,
    };
  }

  async sessionsActive(): Promise<number> {
    const scrape = new Scrape(await fetchText(this.#adminPort, "/metrics"));
    return scrape.total("softclose_sessions_active");
  }

  #collectGarbage(): Promise<void> {
    return new Promise((resolve, reject) => {
      const { child } = this.running;
      const onExit = (): void => reject(new Error(`the gateway ended\n${this.running.output}`));
      child.once("exit", onExit);
      child.once("message", () => {
        child.off("exit", onExit);
        resolve();
      });
      child.send({ kind: "collect" });
    });
  }
}

function fetchText(port: number, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    // A connection of its own each time: a kept-alive one would count among the descriptors.
    const request = get({ host: "127.0.0.1", port, path, agent: false }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (part: string) => {
        text += part;
      });
      response.on("end", () => {
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`${path} answered ${response.statusCode}`));
      });
    });
    request.on("error", reject);
  });
}
