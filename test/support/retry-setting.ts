/** A gateway with session retry in front of raw backends: what the tests of session retry share. */
import { expect } from "vitest";
import { PoliteRawClient } from "./clients.ts";
import { eventually } from "./eventually.ts";
import { startGateway, type TestGateway } from "./gateway.ts";
import type { RawClientOptions } from "./raw-client.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "./raw-upstream.ts";

export const FAST_BACKOFF = "backoff: { initial: 50ms, max: 100ms, jitter: 0 }";
/** No backend is dialled again as long as a test lasts, unless it gives up. */
export const SLOW_BACKOFF = "backoff: { initial: 20s, max: 20s, jitter: 0 }";

export const accepts: Behaviour = (peer) => peer.answersClose().accept();

/** Accepts, and answers pings as a library would. */
export const answersPings: Behaviour = (peer) => {
  let answered = 0;
  peer.socket.on("data", () => {
    const pings = peer.log.frames.filter(({ opcode }) => opcode === 9);
    for (const { payload } of pings.slice(answered)) peer.send({ opcode: 0xa, payload });
    answered = pings.length;
  });
  accepts(peer);
};

export interface Setting {
  /** Keys of `retry.session`. */
  readonly session?: string;
  readonly backoff?: string;
  /** One backend each. */
  readonly backends?: readonly Behaviour[];
  /** More keys of each backend. */
  readonly perBackend?: string;
  /** More keys at the top. */
  readonly more?: string;
}

export class RetrySetting {
  upstreams: RawUpstream[] = [];
  #gateway: TestGateway | null = null;

  async start({
    session = "attempts: 6",
    backoff = FAST_BACKOFF,
    backends = [accepts, accepts],
    perBackend = "",
    more = "",
  }: Setting = {}): Promise<TestGateway> {
    this.upstreams = await Promise.all(backends.map((behaviour) => RawUpstream.start(behaviour)));
    const urls = this.upstreams.map(({ url }) => `{ url: "${url}" ${perBackend} }`).join(", ");
    this.#gateway = await startGateway(`
routes: [{ name: all, pool: main }]
pools: { main: { backends: [${urls}] } }
retry: { session: { enabled: true, ${session} }, ${backoff} }
${more}
`);
    return this.#gateway;
  }

  get gateway(): TestGateway {
    if (this.#gateway === null) throw new Error("not started");
    return this.#gateway;
  }

  async open(options: RawClientOptions = {}): Promise<PoliteRawClient> {
    const client = new PoliteRawClient(this.gateway.port, "/", options);
    await client.opened();
    return client;
  }

  /** Connections with their request read. */
  get handshakes(): UpstreamPeer[] {
    return this.upstreams.flatMap(({ peers }) => peers).filter(({ head }) => head !== "");
  }

  /** The peer that serves the session now, once there have been `count` of them. */
  serving(count = 1): Promise<UpstreamPeer> {
    return eventually(() => {
      const peers = this.handshakes;
      const live = peers.find(({ ending, socket }) => ending === null && !socket.destroyed);
      if (peers.length < count || live === undefined) throw new Error(`${peers.length} handshakes`);
      return live;
    });
  }

  /** The session waits for an upstream. */
  async waiting(): Promise<void> {
    await eventually(() => {
      expect(this.gateway.gateway.sessions(1)[0]?.state).toBe("retrying");
      expect(this.gateway.slots).toBe(0);
    });
  }

  async leave(client: PoliteRawClient): Promise<void> {
    client.sendClose(1000);
    await this.gateway.recorded();
  }

  /** Nothing may be left of any session. */
  async stop(): Promise<void> {
    await this.#gateway?.stopClean();
    await Promise.all(this.upstreams.map((upstream) => upstream.stop()));
  }
}

export const texts = (payloads: readonly Buffer[]): string[] => payloads.map(String);
