/**
 * `npm run chaos`: clients and backends that do everything wrong, backends that die, stop and come back,
 * reloads and drains in between, through one gateway that lives for the whole run and one that is
 * deployed anew all the time. Exits 1 if a session ended in a way that nothing explains, a counter does
 * not add up, or something is left over. The seed repeats the stories and the order of events.
 * Flags: --minutes N (also fractions), --seed N.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { boundedRun } from "../bench/bounded-run.ts";
import { median } from "../bench/measurements.ts";
import { residentKib } from "../bench/process-stats.ts";
import type { Processes } from "../bench/processes.ts";
import { Scrape } from "../bench/scrape.ts";
import { Random } from "../support/random.ts";
import { Backends } from "./backends.ts";
import { play } from "./client-parts.ts";
import { disagreements, imbalance, shrunkCounters } from "./counters.ts";
import { Disruptions } from "./disruptions.ts";
import { GatewayLife, type Holdings } from "./gateway-life.ts";
import { History } from "./history.ts";
import { judge } from "./judge.ts";
import { type Played, type Problem, printReport } from "./report.ts";
import { CAP, FIRST_VARIATION } from "./settings.ts";
import { addressOf, drawStory, type Story } from "./story.ts";

const DEFAULT_MINUTES = 5;
/** Beyond the run itself: the last sessions, and what they leave. */
const RUN_LIMIT_EXTRA_MS = 3 * 60_000;

/** Between two clients, on the average of both ends. */
const CLIENT_EVERY_MS = { least: 4, most: 30 };
/** Who connects to the gateway that is deployed anew. */
const ROLLING_SHARE = 0.35;
/** A life of that gateway, up to SIGTERM. */
const LIFE_MS = { least: 5_000, most: 9_000 };
/** How long it still gets clients then, as a load balancer has to notice first; in `drain.delay`. */
const STILL_ROUTED_MS = 200;
/** `drain.delay`, `drain.timeout` and `close.timeout`, and a busy machine. */
const SHUTDOWN_LIMIT_MS = 20_000;

const WARM_UP_CLIENTS = 200;
const WATCH_EVERY_MS = 1_000;
const SETTLE_LIMIT_MS = 15_000;

const HEAP_GROWTH = 1.1;
const HEAP_SLACK_BYTES = 4 * 1024 * 1024;
/** Floods and stalled clients come and go; the heap is the finer measure. */
const RESIDENT_GROWTH = 1.25;
const RESIDENT_SLACK_KIB = 24 * 1024;

interface Sample {
  readonly heapBytes: number;
  readonly residentKib: number;
}

class Chaos {
  readonly played: Played[] = [];
  readonly problems: Problem[] = [];
  readonly lives: GatewayLife[] = [];
  readonly samples: Sample[] = [];
  readonly #seed: number;
  readonly #processes: Processes;
  readonly #folder: string;
  readonly #backends: Backends;
  readonly #history: History;
  readonly #steady: GatewayLife;
  readonly #playing = new Set<Promise<void>>();
  #rolling: GatewayLife | null = null;
  #clients = 0;
  #isOver = false;
  /** The longest that this process, not the gateway, was busy with something else. */
  ownStallMs = 0;

  private constructor(
    seed: number,
    processes: Processes,
    folder: string,
    history: History,
    backends: Backends,
    steady: GatewayLife,
  ) {
    this.#seed = seed;
    this.#processes = processes;
    this.#folder = folder;
    this.#history = history;
    this.#backends = backends;
    this.#steady = steady;
    this.lives.push(steady);
  }

  static async start(seed: number, processes: Processes, folder: string): Promise<Chaos> {
    const history = new History();
    const backends = await Backends.start(processes, history, seed);
    const steady = await GatewayLife.start(
      processes,
      folder,
      "steady",
      backends.ports,
      FIRST_VARIATION,
      history,
    );
    return new Chaos(seed, processes, folder, history, backends, steady);
  }

  async run(durationMs: number): Promise<Disruptions> {
    const before = await this.#warmUp();
    const disruptions = new Disruptions(this.#seed, this.#backends, this.#steady);
    const disrupting = disruptions.run();
    const deploying = this.#reported(this.#deploy());
    const watching = this.#reported(this.#watch());
    await this.#sendClients(performance.now() + durationMs);
    disruptions.stop();
    await disrupting;
    this.#isOver = true;
    await Promise.all([deploying, watching, ...this.#playing]);
    await this.#reported(this.#settle(before));
    for (const detail of disruptions.problems) this.#add("reload", detail);
    for (const { name, errors } of this.lives) {
      for (const error of errors) this.#add("errors in the log", `${name}: ${error}`);
    }
    this.#judge();
    return disruptions;
  }

  /** A gateway that has died is no reason to say nothing about it. */
  async #reported(part: Promise<void>): Promise<void> {
    try {
      await part;
    } catch (error) {
      this.#add("exit code", `the run could not go on: ${String(error)}`);
    }
  }

  /** Code is compiled, pools and metrics exist: what is there now must be there in the end. */
  async #warmUp(): Promise<Holdings> {
    for (let count = 0; count < WARM_UP_CLIENTS; count += 1) {
      this.#send(this.#steady, true);
      await delay(CLIENT_EVERY_MS.least);
    }
    await Promise.all(this.#playing);
    await this.#emptied();
    return await this.#steady.holdings();
  }

  async #sendClients(until: number): Promise<void> {
    const random = Random.of(this.#seed, "arrivals");
    while (performance.now() < until) {
      const rolling = random.chance(ROLLING_SHARE) ? this.#rolling : null;
      this.#send(rolling ?? this.#steady);
      const pauseMs = random.int(CLIENT_EVERY_MS.least, CLIENT_EVERY_MS.most);
      const before = performance.now();
      await delay(pauseMs);
      this.ownStallMs = Math.max(this.ownStallMs, performance.now() - before - pauseMs);
    }
  }

  #send(life: GatewayLife, isWarmUp = false): void {
    const drawn = drawStory(this.#seed, this.#clients);
    const story: Story = isWarmUp ? { ...drawn, client: "talks" } : drawn;
    this.#clients += 1;
    const playing = this.#play(life, story).finally(() => this.#playing.delete(playing));
    this.#playing.add(playing);
  }

  async #play(life: GatewayLife, story: Story): Promise<void> {
    this.played.push({ client: await play(life.ports.listener, story), life });
  }

  /** One life after the other; each ends by SIGTERM, with sessions. */
  async #deploy(): Promise<void> {
    const random = Random.of(this.#seed, "deploys");
    for (let number = 1; !this.#isOver; number += 1) {
      const life = await GatewayLife.start(
        this.#processes,
        this.#folder,
        `rolling-${number}`,
        this.#backends.ports,
        FIRST_VARIATION,
        this.#history,
      );
      this.lives.push(life);
      this.#rolling = life;
      const ends = performance.now() + random.int(LIFE_MS.least, LIFE_MS.most);
      while (performance.now() < ends && !this.#isOver) await delay(50);
      const down = life.shutDown(SHUTDOWN_LIMIT_MS);
      await delay(STILL_ROUTED_MS);
      this.#rolling = null;
      const exit = await down;
      // It may have to destroy sessions, of clients that take nothing or have gone.
      const right = life.destroyed > 0 ? 1 : 0;
      if (exit !== right) this.#add("exit code", `${life.name}: ${exit}, not ${right}`);
    }
  }

  /** What must hold at every moment. */
  async #watch(): Promise<void> {
    let before: Scrape | null = null;
    while (!this.#isOver) {
      const scrape = new Scrape(await this.#steady.metrics());
      for (const detail of imbalance(scrape)) this.#add("counters", detail);
      for (const detail of before === null ? [] : shrunkCounters(before, scrape)) {
        this.#add("counters", detail);
      }
      before = scrape;
      const { pools } = await this.#steady.status();
      for (const { url, connections } of pools.find(({ name }) => name === "capped")?.backends ??
        []) {
        if (connections > CAP) this.#add("cap", `${connections} connections at ${url}`);
      }
      const { heapBytes } = await this.#steady.holdings();
      this.samples.push({ heapBytes, residentKib: residentKib([this.#steady.running.pid]) });
      await delay(WATCH_EVERY_MS);
    }
  }

  /** Nothing may be left of any session. */
  async #settle(before: Holdings): Promise<void> {
    const left = await this.#emptied();
    if (left !== "") this.#add("left over", left);
    for (const detail of await this.#heldMoreThan(before)) this.#add("left over", detail);
    const scrape = new Scrape(await this.#steady.metrics());
    for (const detail of [...imbalance(scrape), ...disagreements(scrape, this.#steady.records)]) {
      this.#add("counters", detail);
    }
    const exit = await this.#steady.shutDown(SHUTDOWN_LIMIT_MS);
    if (exit !== 0) this.#add("exit code", `steady: ${exit}`);
    this.#judgeMemory();
  }

  /** Waits until nothing is held that was not held before; probes come and go. What is, then. */
  async #heldMoreThan(before: Holdings): Promise<string[]> {
    const deadline = performance.now() + SETTLE_LIMIT_MS;
    for (;;) {
      const { resources } = await this.#steady.holdings();
      const more = Object.entries(resources)
        .filter(([name, count]) => count > (before.resources[name] ?? 0))
        .map(([name, count]) => `${count} of ${name}, there were ${before.resources[name] ?? 0}`);
      if (more.length === 0 || performance.now() > deadline) return more;
      await delay(50);
    }
  }

  /** Waits until sessions, slots and queues are empty; what is left then. */
  async #emptied(): Promise<string> {
    const deadline = performance.now() + SETTLE_LIMIT_MS;
    for (;;) {
      const { sessions, pools, leaving } = await this.#steady.status();
      const backends = [...pools.flatMap((pool) => pool.backends), ...leaving];
      const slots = backends.reduce((sum, { connections }) => sum + connections, 0);
      const queued = pools.reduce((sum, pool) => sum + pool.queued, 0);
      if (sessions + slots + queued === 0) return "";
      if (performance.now() > deadline)
        return `${sessions} sessions, ${slots} slots, ${queued} queued`;
      await delay(50);
    }
  }

  #judgeMemory(): void {
    const quarter = Math.max(1, Math.floor(this.samples.length / 4));
    const early = this.samples.slice(quarter, 2 * quarter);
    const late = this.samples.slice(-quarter);
    if (early.length === 0) return;
    const heapEarly = median(early.map(({ heapBytes }) => heapBytes));
    const heapLate = median(late.map(({ heapBytes }) => heapBytes));
    if (heapLate > heapEarly * HEAP_GROWTH + HEAP_SLACK_BYTES) {
      this.#add("memory", `heap: second quarter ${mib(heapEarly)}, last quarter ${mib(heapLate)}`);
    }
    const residentEarly = median(early.map((sample) => sample.residentKib));
    const residentLate = median(late.map((sample) => sample.residentKib));
    if (residentLate > residentEarly * RESIDENT_GROWTH + RESIDENT_SLACK_KIB) {
      const [from, to] = [mib(residentEarly * 1024), mib(residentLate * 1024)];
      this.#add("memory", `RSS: second quarter ${from}, last quarter ${to}`);
    }
  }

  #judge(): void {
    // What this program itself was late, it may be late to note, too.
    this.#history.slackMs += this.ownStallMs;
    for (const { history } of this.lives) history.slackMs += this.ownStallMs;
    const records = new Map<string, GatewayLife["records"]>();
    for (const record of this.lives.flatMap((life) => life.records)) {
      const known = records.get(record.clientIp);
      if (known === undefined) records.set(record.clientIp, [record]);
      else known.push(record);
    }
    for (const { client, life } of this.played) {
      const { story, facts } = client;
      const found = records.get(addressOf(story.index)) ?? [];
      const reports = this.#backends.reports.get(found[0]?.session ?? "") ?? [];
      const { history, drainsFrom, closedByAdmin } = life;
      const port = Number(found[0]?.backend?.split(":")[2]);
      const wrong = judge({
        story,
        facts,
        records: found,
        reports,
        history,
        drainsFrom,
        closedByAdmin,
        backend: this.#backends.ports.indexOf(port),
      });
      for (const what of wrong) {
        const { echoes, ...shown } = facts;
        const context = { life: life.name, story, facts: shown, echoes: echoes.length, reports };
        this.#add("sessions", `${what}\n    ${JSON.stringify({ ...context, records: found })}`);
      }
    }
  }

  #add(what: string, detail: string): void {
    this.problems.push({ what, detail });
  }
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function positive(flag: string, text: string | undefined, fallback: number): number {
  const value = text === undefined ? fallback : Number(text);
  if (!Number.isFinite(value) || value <= 0) throw new Error(`--${flag} must be a positive number`);
  return value;
}

const { values } = parseArgs({
  options: { minutes: { type: "string" }, seed: { type: "string" } },
});
const minutes = positive("minutes", values.minutes, DEFAULT_MINUTES);
const seed = positive("seed", values.seed, (Date.now() % 1_000_000) + 1);

await boundedRun(
  "chaos",
  minutes * 60_000 + RUN_LIMIT_EXTRA_MS,
  async (processes, folder): Promise<boolean> => {
    console.log(`seed ${seed}, ${minutes} minutes`);
    const chaos = await Chaos.start(seed, processes, folder);
    const disruptions = await chaos.run(minutes * 60_000);
    printReport(chaos, disruptions);
    if (chaos.problems.length > 0) {
      console.log(`\nagain: npm run chaos -- --minutes ${minutes} --seed ${seed}`);
    }
    return chaos.problems.length === 0;
  },
);
