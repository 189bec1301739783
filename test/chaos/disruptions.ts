/**
 * What happens to backends and gateways between the clients, drawn from the seed. At most two backends
 * are out at once, so that session retry always has somewhere to go; but now and then all are.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Random } from "../support/random.ts";
import type { Backends } from "./backends.ts";
import type { GatewayLife } from "./gateway-life.ts";
import {
  BACKENDS,
  BAD_CONFIGS,
  configOf,
  FIRST_VARIATION,
  type Variation,
  vary,
} from "./settings.ts";

type Event =
  | "kill"
  | "restart"
  | "freezeShort"
  | "freezeLong"
  | "drain"
  | "remove"
  | "reload"
  | "badReload"
  | "adminClose"
  | "blackout";

const WEIGHTS: Readonly<Record<Event, number>> = {
  kill: 20,
  restart: 10,
  freezeShort: 8,
  freezeLong: 6,
  drain: 10,
  remove: 6,
  reload: 10,
  badReload: 5,
  adminClose: 15,
  blackout: 2,
};

const MAX_OUT = 2;
const BLACKOUT_DUE = 8;
/** Long enough to be found out by `heartbeat.upstream`; short enough not to be. */
const FREEZE_LONG_MS = 5_500;
const FREEZE_SHORT_MS = 800;
const SESSIONS_ASKED_FOR = 200;

export class Disruptions {
  readonly counts: Partial<Record<Event, number>> = {};
  /** Reloads that did not do what they should. */
  readonly problems: string[] = [];
  readonly #backends: Backends;
  readonly #gateway: GatewayLife;
  readonly #random: Random;
  readonly #out = new Set<number>();
  readonly #running = new Set<Promise<void>>();
  #variation: Variation = FIRST_VARIATION;
  #isStopped = false;
  /** Only one of those that write the file does so at a time. */
  #isReloading = false;

  /** `gateway`: the one that is reloaded, drained from and asked. Backends serve every gateway. */
  constructor(seed: number, backends: Backends, gateway: GatewayLife) {
    this.#random = Random.of(seed, "disruptions");
    this.#backends = backends;
    this.#gateway = gateway;
  }

  /** Goes on until `stop`; then everything is put right again before it resolves. */
  async run(): Promise<void> {
    for (let number = 1; !this.#isStopped; number += 1) {
      // Each run has one at least.
      const isDue = number >= BLACKOUT_DUE && this.counts.blackout === undefined;
      const event = isDue && this.#out.size === 0 ? "blackout" : this.#random.weighted(WEIGHTS);
      const random = Random.of(this.#random.int(0, 2 ** 31), event);
      const running = this.#carryOut(event, random).catch((error: unknown) => {
        this.problems.push(`${event}: ${String(error)}`);
      });
      this.#running.add(running);
      void running.then(() => this.#running.delete(running));
      await delay(random.int(200, 1_200));
    }
    await Promise.all(this.#running);
  }

  stop(): void {
    this.#isStopped = true;
  }

  async #carryOut(event: Event, random: Random): Promise<void> {
    switch (event) {
      case "kill":
        return await this.#withOne(random, event, (backend) =>
          this.#kill(backend, random.int(0, 2_500)),
        );
      case "restart":
        return await this.#withOne(random, event, (backend) => this.#backends.restart(backend));
      case "freezeShort":
      case "freezeLong": {
        const ms = event === "freezeLong" ? FREEZE_LONG_MS : FREEZE_SHORT_MS;
        return await this.#withOne(random, event, async (backend) => {
          const entry = this.#backends.freeze(backend);
          await delay(ms);
          this.#backends.thaw(backend, entry);
        });
      }
      case "drain":
        return await this.#withOne(random, event, (backend) => this.#drain(backend, random));
      case "remove":
        return await this.#withOne(random, event, (backend) => this.#remove(backend, random));
      case "reload":
        // One that is about something else leaves out what is left out already.
        return await this.#reload(random, this.#variation.without);
      case "badReload":
        return await this.#badReload(random);
      case "adminClose":
        return await this.#closeByAdmin(random);
      case "blackout":
        return await this.#blackout(random);
    }
  }

  /** With a backend to which nothing else happens, if one can be spared. */
  async #withOne(
    random: Random,
    event: Event,
    disrupt: (backend: number) => Promise<void>,
  ): Promise<void> {
    const backend = random.int(0, BACKENDS - 1);
    if (this.#out.size >= MAX_OUT || this.#out.has(backend)) return;
    this.#count(event);
    this.#out.add(backend);
    await disrupt(backend);
    this.#out.delete(backend);
  }

  async #kill(backend: number, outMs: number): Promise<void> {
    const entry = await this.#backends.kill(backend);
    await delay(outMs);
    await this.#backends.revive(backend, entry);
  }

  async #drain(backend: number, random: Random): Promise<void> {
    const url = `ws://127.0.0.1:${this.#backends.ports[backend]}`;
    const entry = this.#gateway.history.begin("drained", backend);
    await this.#gateway.request("/api/backends/drain", "POST", JSON.stringify({ url }));
    await delay(random.int(500, 4_000));
    await this.#gateway.request("/api/backends/undrain", "POST", JSON.stringify({ url }));
    this.#gateway.history.end(entry);
  }

  /** Out of the file for a while, and back. */
  async #remove(backend: number, random: Random): Promise<void> {
    if (this.#isReloading) return;
    const entry = this.#gateway.history.begin("removed", backend);
    await this.#reload(random, backend);
    await delay(random.int(500, 4_000));
    while (this.#isReloading) await delay(50);
    await this.#reload(random, null);
    this.#gateway.history.end(entry);
  }

  async #reload(random: Random, without: number | null): Promise<void> {
    if (this.#isReloading) return;
    this.#isReloading = true;
    this.#count("reload");
    this.#variation = vary(random, this.#variation.number + 1, without);
    this.#gateway.writeConfig(configOf(this.#gateway.ports, this.#variation));
    const answer = await this.#gateway.request("/api/reload", "POST");
    // The watcher of the file may have been first.
    if (!/"outcome":"(?:applied|unchanged)"/.test(answer)) this.problems.push(`reload: ${answer}`);
    this.#isReloading = false;
  }

  async #badReload(random: Random): Promise<void> {
    if (this.#isReloading) return;
    this.#isReloading = true;
    this.#count("badReload");
    this.#gateway.writeConfig(random.pick(BAD_CONFIGS));
    const answer = await this.#gateway.request("/api/reload", "POST");
    if (!/"outcome":"invalid"/.test(answer)) this.problems.push(`bad reload: ${answer}`);
    this.#gateway.writeConfig(configOf(this.#gateway.ports, this.#variation));
    this.#isReloading = false;
  }

  async #closeByAdmin(random: Random): Promise<void> {
    this.#count("adminClose");
    const text = await this.#gateway.request(`/api/sessions?limit=${SESSIONS_ASKED_FOR}`);
    const sessions: readonly { readonly session: string }[] = JSON.parse(text);
    if (sessions.length === 0) return;
    const { session } = random.pick(sessions);
    this.#gateway.closedByAdmin.add(session);
    await this.#gateway.request(`/api/sessions/${session}`, "DELETE");
  }

  /** All backends at once. */
  async #blackout(random: Random): Promise<void> {
    if (this.#out.size > 0) return;
    this.#count("blackout");
    // Longer than some sessions look for another upstream.
    const outMs = random.int(300, 6_000);
    const all = Array.from({ length: BACKENDS }, (_, index) => index);
    for (const backend of all) this.#out.add(backend);
    await Promise.all(all.map((backend) => this.#kill(backend, outMs)));
    this.#out.clear();
  }

  #count(event: Event): void {
    this.counts[event] = (this.counts[event] ?? 0) + 1;
  }
}
