/** A gateway in front of raw backends, for what a pool does: what its tests share. */
import { expect } from "vitest";
import type { GatewayStatus } from "../../src/admin/gateway-view.ts";
import type { GatewayDependencies } from "../../src/gateway.ts";
import { PoliteRawClient } from "./clients.ts";
import { eventually } from "./eventually.ts";
import { startGateway, type TestGateway } from "./gateway.ts";
import type { RawClientOptions } from "./raw-client.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "./raw-upstream.ts";

type BackendStatus = GatewayStatus["pools"][number]["backends"][number];

/** Does as a good server does, and tells the client which one it is by its port. */
export const greets: Behaviour = (peer) => {
  peer.answersClose().accept();
  peer.sendText(String(peer.socket.localPort));
};

export interface PoolYaml {
  readonly urls: readonly string[];
  /** More keys of each backend. */
  readonly perBackend?: string;
  /** More keys of the pool. */
  readonly pool?: string;
  /** More keys at the top. */
  readonly more?: string;
}

/** One route, `all`, to one pool, `main`. */
export function poolYaml({ urls, perBackend = "", pool = "", more = "" }: PoolYaml): string {
  const backends = urls.map((url) => `{ url: "${url}", ${perBackend} }`).join(", ");
  return `routes: [{ name: all, pool: main }]\npools: { main: { backends: [${backends}], ${pool} } }\n${more}`;
}

export class PoolSetting {
  readonly upstreams: RawUpstream[] = [];
  readonly #timersBefore = activeTimers();
  #gateway: TestGateway | null = null;

  /** More backends; each keeps its behaviour. */
  async backends(count: number, behaviour: Behaviour = greets): Promise<RawUpstream[]> {
    const fresh = await Promise.all(
      Array.from({ length: count }, () => RawUpstream.start(behaviour)),
    );
    this.upstreams.push(...fresh);
    return fresh;
  }

  async start(yaml: string, dependencies: Partial<GatewayDependencies> = {}): Promise<TestGateway> {
    this.#gateway = await startGateway(yaml, dependencies);
    return this.#gateway;
  }

  get gateway(): TestGateway {
    if (this.#gateway === null) throw new Error("not started");
    return this.#gateway;
  }

  get queueLength(): number {
    return this.gateway.gateway.status().pools[0]?.queued ?? Number.NaN;
  }

  /** How the gateway sees a backend. */
  status(url: string): BackendStatus {
    const all = this.gateway.gateway.status().pools.flatMap(({ backends }) => backends);
    const found = all.find((backend) => backend.url === url);
    if (found === undefined) throw new Error(`no backend ${url}`);
    return found;
  }

  /** A client whose session stands. */
  async open(options: RawClientOptions = {}): Promise<PoliteRawClient> {
    const client = this.knock(options);
    await client.opened();
    return client;
  }

  /** A client that may have to wait. */
  knock(options: RawClientOptions = {}): PoliteRawClient {
    return new PoliteRawClient(this.gateway.port, "/", options);
  }

  /** A client that waits, behind all others. */
  async inLine(options: RawClientOptions = {}): Promise<PoliteRawClient> {
    const before = this.queueLength;
    const client = this.knock(options);
    await eventually(() => expect(this.queueLength).toBe(before + 1));
    return client;
  }

  /** Nothing may be left: no session, no slot, no timer. */
  async stop(): Promise<void> {
    await this.#gateway?.stopClean();
    await Promise.all(this.upstreams.map((upstream) => upstream.stop()));
    await eventually(() => expect(activeTimers()).toBeLessThanOrEqual(this.#timersBefore));
  }
}

/** Which backend serves the client: what `greets` has told it. */
export async function servedBy(client: PoliteRawClient): Promise<number> {
  const [greeting] = await client.log.received(1);
  return Number(String(greeting));
}

/** Connections with a handshake on which TCP has not ended. */
export function livePeers({ peers }: RawUpstream): UpstreamPeer[] {
  return peers.filter(({ head, ending }) => head.includes("Sec-WebSocket-Key") && ending === null);
}

/** Timers of this process that keep it alive; tests that compare two counts must not sleep meanwhile. */
export function activeTimers(): number {
  return process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
}
