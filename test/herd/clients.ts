/**
 * The herd: a process of its own with thousands of clients that connect at once, and connect again at
 * once whenever they are turned away, whatever they are told.
 */
import { setTimeout as delay } from "node:timers/promises";
import { ClientConnection } from "../bench/client-connection.ts";
import type { HerdJob, HerdResult } from "./jobs.ts";

/** Each address has its own 28,000 ephemeral ports, and no handshake waits for one to be free again. */
const ADDRESSES = 8;

const TURNED_AWAY = 1013;

/** After the end of the run, for those who have just connected to be answered. */
const SETTLE_MS = 3_000;

class Herd {
  readonly #job: HerdJob;
  /** Of those who were turned away, from `connect` to the end of TCP. */
  readonly #tookMs: number[] = [];
  readonly #unclean = new Map<string, number>();
  /** A 101 says nothing yet: a refusal has one, too, with the Close right behind it. */
  readonly #open = new Set<ClientConnection>();
  #running = true;
  #handshakes = 0;
  #turnedAway = 0;

  constructor(job: HerdJob) {
    this.#job = job;
  }

  async run(): Promise<HerdResult> {
    for (let client = 0; client < this.#job.clients; client += 1) this.#connect(client);
    await delay(this.#job.durationMs);
    this.#running = false;
    await delay(SETTLE_MS);
    this.#tookMs.sort((a, b) => a - b);
    return {
      handshakes: this.#handshakes,
      admitted: this.#open.size,
      turnedAway: this.#turnedAway,
      unclean: Object.fromEntries(this.#unclean),
      p50Ms: percentile(this.#tookMs, 0.5),
      p99Ms: percentile(this.#tookMs, 0.99),
    };
  }

  #connect(client: number): void {
    this.#handshakes += 1;
    const connectedAtMs = performance.now();
    const connection: ClientConnection = new ClientConnection(
      this.#job.port,
      "/",
      {
        onOpen: () => this.#open.add(connection),
        onMessages: () => undefined,
        onEnd: (_, error) => {
          this.#open.delete(connection);
          this.#count(connection.closeCode, error, performance.now() - connectedAtMs);
          if (this.#running) this.#connect(client);
        },
      },
      `127.0.0.${1 + (client % ADDRESSES)}`,
    );
  }

  #count(closeCode: number | undefined, error: Error | undefined, tookMs: number): void {
    if (error === undefined && closeCode === TURNED_AWAY) {
      this.#turnedAway += 1;
      this.#tookMs.push(tookMs);
      return;
    }
    const what = error?.message ?? `Close ${closeCode ?? "none"}`;
    this.#unclean.set(what, (this.#unclean.get(what) ?? 0) + 1);
  }
}

function percentile(sorted: readonly number[], share: number): number {
  return sorted[Math.floor(sorted.length * share)] ?? Number.NaN;
}

process.on("message", (job: HerdJob) => {
  void new Herd(job).run().then((result) => process.send?.(result));
});
process.on("disconnect", () => process.exit());
// Nobody but the main program ends this process: Ctrl-C reaches the whole terminal group.
process.on("SIGINT", () => undefined);
process.send?.({ kind: "ready", port: 0 });
