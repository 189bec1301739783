/**
 * A gateway process between two links with faults, with a `ws` client and raw backends at the far ends.
 * What the tests of network faults share.
 */
import { afterAll, beforeAll, type TestContext } from "vitest";
import { type Account, expectAccount } from "../../support/account.ts";
import { type Ending, LibraryClient, oneClose } from "../../support/clients.ts";
import { eventually, LONG_MS } from "../../support/eventually.ts";
import type { GatewayProcess } from "../../support/gateway-process.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../../support/raw-upstream.ts";
import { answersPings } from "../../support/retry-setting.ts";
import { type Network, openNetwork, type Path, type PathOptions } from "./network.ts";

const CONTROL = 0x8;
export const HEARTBEATS_OFF = heartbeats("interval: 0s");
/** Kept small: what only a heartbeat can see is seen within two seconds. */
export const FAST_HEARTBEATS = heartbeats("interval: 500ms, timeout: 1s");

export function heartbeats(keys: string): string {
  return `heartbeat: { client: { ${keys} }, upstream: { ${keys} } }\n`;
}

export const SESSION_RETRY =
  "retry: { session: { enabled: true, timeout: 20s }, backoff: { initial: 200ms, max: 500ms } }\n";

/** For `describe.each`. */
export const WITHOUT_AND_WITH_RETRY: readonly (readonly [name: string, yaml: string])[] = [
  ["without session retry", ""],
  ["with session retry", SESSION_RETRY],
];

/** A backend that does as it should, and sends every message back. */
export const echoes: Behaviour = (peer) => {
  let seen = 0;
  peer.socket.on("data", () => {
    const { frames } = peer.log;
    for (const { opcode, fin, payload } of frames.slice(seen)) {
      if (opcode < CONTROL) peer.send({ opcode, fin, payload });
    }
    seen = frames.length;
  });
  answersPings(peer);
};

/** A `ws` client at the far end of the client's link. */
export class FarClient extends LibraryClient {
  /** What a browser's `onclose` would say; null: it has not been called. */
  wasClean: boolean | null = null;

  constructor(...args: ConstructorParameters<typeof LibraryClient>) {
    super(...args);
    this.socket.addEventListener("close", (event) => {
      this.wasClean = event.wasClean;
    });
  }

  async messagesReceived(count: number): Promise<string[]> {
    const messages = await eventually(() => this.log.received(count), LONG_MS);
    return messages.map(String);
  }

  async finished(): Promise<FarEnding> {
    const ending = await eventually(() => this.ended(), LONG_MS);
    return { ...ending, wasClean: this.wasClean };
  }
}

interface FarEnding extends Ending {
  readonly wasClean: boolean | null;
}

/** The ending that is promised. */
export function cleanEnd(code: number, reason: string): FarEnding {
  return { ...oneClose(code, reason), wasClean: true };
}

export interface SettingOptions extends PathOptions {
  /** One backend each, in the order in which they are tried. Default: one, which echoes. */
  readonly backends?: readonly Backend[];
  /** Keys of the pool. */
  readonly pool?: string;
  /** Default: 1s. */
  readonly closeTimeout?: string;
  /** Keys at the top. */
  readonly more?: string;
}

export interface Backend {
  readonly where: "far" | "near";
  readonly behaviour: Behaviour;
}

export const FAR: Backend = { where: "far", behaviour: echoes };
export const NEAR: Backend = { where: "near", behaviour: echoes };

export class FaultSetting {
  readonly path: Path;
  readonly upstreams: readonly RawUpstream[];
  readonly gateway: GatewayProcess;
  readonly #clients: FarClient[] = [];

  private constructor(path: Path, upstreams: readonly RawUpstream[], gateway: GatewayProcess) {
    this.path = path;
    this.upstreams = upstreams;
    this.gateway = gateway;
  }

  static async start(
    network: Network,
    { backends = [FAR], pool = "", closeTimeout = "1s", more = "", ...options }: SettingOptions,
  ): Promise<FaultSetting> {
    const path = await network.openPath(options);
    const upstreams: RawUpstream[] = [];
    for (const { where, behaviour } of backends) {
      const { server, url } = await path.listen(where);
      upstreams.push(RawUpstream.over(server, url, behaviour));
    }
    const urls = upstreams.map(({ url }) => `{ url: "${url}" }`).join(", ");
    const yaml = `routes: [{ name: all, pool: main }]
pools: { main: { balance: roundRobin, backends: [${urls}], ${pool} } }
close: { timeout: ${closeTimeout} }
${more}`;
    try {
      return new FaultSetting(path, upstreams, await path.startGateway(yaml));
    } catch (error) {
      await Promise.all(upstreams.map((upstream) => upstream.stop()));
      throw error;
    }
  }

  /** A client that has got its 101, or will. */
  async client(): Promise<FarClient> {
    const socket = await this.path.connect();
    const client = new FarClient(0, "/", { createConnection: () => socket });
    this.#clients.push(client);
    return client;
  }

  async open(): Promise<FarClient> {
    const client = await this.client();
    await eventually(() => client.opened(), LONG_MS);
    return client;
  }

  /** The same, when a message has gone there and back. */
  async openEchoing(): Promise<FarClient> {
    const client = await this.open();
    client.sendText("hello");
    await client.messagesReceived(1);
    return client;
  }

  /** The peer of a session at a backend. */
  peer(backend = 0, index = 0): Promise<UpstreamPeer> {
    return eventually(async () => await this.upstream(backend).peer(index), LONG_MS);
  }

  upstream(backend: number): RawUpstream {
    const upstream = this.upstreams[backend];
    if (upstream === undefined) throw new Error(`no backend ${backend}`);
    return upstream;
  }

  /** Waits for record number `index`, which must be this one; nothing of any session may be left. */
  expectAccount(account: Account, index = 0): Promise<Record<string, unknown>> {
    return expectAccount(this.gateway, account, index);
  }

  /** 1006s that no client saw. */
  absorbed(outcome: "closed" | "resumed"): Promise<number> {
    const series = `softclose_absorbed_drops_total{route="all",outcome="${outcome}"}`;
    return this.gateway.metric(series);
  }

  /** Dials of a backend that came out so. */
  dials(backend: number, outcome: "connected" | "timeout"): Promise<number> {
    const labels = `pool="main",backend="${this.upstream(backend).url}",outcome="${outcome}"`;
    return this.gateway.metric(`softclose_dials_total{${labels}}`);
  }

  /** Pings of the gateway that one side has answered, and the time that it took in all. */
  async heartbeats(side: "client" | "upstream"): Promise<{ count: number; seconds: number }> {
    const name = "softclose_heartbeat_rtt_seconds";
    return {
      count: await this.gateway.metric(`${name}_count{side="${side}"}`),
      seconds: await this.gateway.metric(`${name}_sum{side="${side}"}`),
    };
  }

  async stop(): Promise<void> {
    for (const { socket } of this.#clients) socket.terminate();
    await this.gateway.stop();
    await Promise.all(this.upstreams.map((upstream) => upstream.stop()));
  }
}

/** A network for the tests of one file, which may run at once. */
export class FileNetwork {
  #network: Network | null = null;

  constructor() {
    beforeAll(async () => {
      this.#network = await openNetwork();
    });
    afterAll(async () => await this.#network?.close());
  }

  /** Starts what a test needs; it is stopped at the end of the test, of which `context` is. */
  async start(context: TestContext, options: SettingOptions = {}): Promise<FaultSetting> {
    if (this.#network === null) throw new Error("no network yet");
    const setting = await FaultSetting.start(this.#network, options);
    context.onTestFinished(() => setting.stop());
    return setting;
  }
}

/** How long a fault lasts: a part of what is tested, not a wait for something. */
export async function lasts(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}
