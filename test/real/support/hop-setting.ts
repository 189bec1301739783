/**
 * Backends, a gateway, hops and clients of one test, ended together also when it fails. Each test has a
 * setting of its own, so that those that mostly wait can do so at the same time.
 */
import { expect, type TestContext } from "vitest";
import type { ClientOptions } from "ws";
import { LibraryClient } from "../../support/clients.ts";
import { DeflateClient } from "../../support/deflate-client.ts";
import { eventually } from "../../support/eventually.ts";
import { startGateway, type TestGateway } from "../../support/gateway.ts";
import { HttpBackend, type HttpHandler } from "../../support/http-backend.ts";
import { type PoolYaml, poolYaml } from "../../support/pool-setting.ts";
import { RawUpstream } from "../../support/raw-upstream.ts";
import { EchoServer } from "./echo-server.ts";
import { Hop, type HopKind, type HopOptions } from "./hops.ts";

const PING = 0x9;

/** Nobody but the hops themselves has an eye on silence. */
export const NO_HEARTBEAT = "heartbeat: { client: { interval: 0s }, upstream: { interval: 0s } }\n";

/** Session retry that outlasts the restart of a hop on a busy machine. */
export function patientRetry(session = ""): string {
  return `retry: { session: { enabled: true, attempts: 100, timeout: 60s, ${session} }, backoff: { initial: 200ms, max: 500ms } }\n`;
}

/** A series of the metrics. */
export const RESUMED = 'softclose_resumes_total{route="all",outcome="resumed"}';

export class HopSetting {
  #gateway: TestGateway | null = null;
  readonly #clients: (LibraryClient | DeflateClient)[] = [];
  readonly #hops: Hop[] = [];
  readonly #backends: { stop(): Promise<void> }[] = [];

  constructor({ onTestFinished }: TestContext) {
    onTestFinished(() => this.#stop());
  }

  async echo(): Promise<EchoServer> {
    const server = await EchoServer.start();
    this.#backends.push(server);
    return server;
  }

  /** A backend that takes connections and says nothing. */
  async silent(): Promise<RawUpstream> {
    const upstream = await RawUpstream.start(() => undefined);
    this.#backends.push(upstream);
    return upstream;
  }

  async http(handler: HttpHandler): Promise<HttpBackend> {
    const backend = await HttpBackend.start(handler);
    this.#backends.push(backend);
    return backend;
  }

  /** One, which dials `urls` in their order; `more`: top-level keys; `pool`: more keys of the pool. */
  async startGateway(
    urls: readonly string[],
    more = "",
    { pool = "" }: Pick<PoolYaml, "pool"> = {},
  ): Promise<TestGateway> {
    const yaml = poolYaml({ urls, pool: `balance: roundRobin, ${pool}`, more });
    this.#gateway = await startGateway(yaml);
    return this.#gateway;
  }

  async hop(kind: HopKind, options: HopOptions): Promise<Hop> {
    const hop = await Hop.start(kind, options);
    this.#hops.push(hop);
    return hop;
  }

  /** A client whose handshake is under way. */
  knock(port: number, options: ClientOptions = {}): LibraryClient {
    const client = new LibraryClient(port, "/", options);
    this.#clients.push(client);
    return client;
  }

  /** A client whose session stands: it has had an echo. */
  async open(port: number, options: ClientOptions = {}): Promise<LibraryClient> {
    const client = this.knock(port, options);
    await client.opened();
    await echoed(client, "hello");
    return client;
  }

  /** A client that compresses everything. */
  deflating(port: number): DeflateClient {
    const client = new DeflateClient(`ws://127.0.0.1:${port}`, false);
    this.#clients.push(client);
    return client;
  }

  /** Nothing may be left of any session once everybody else is gone. */
  async #stop(): Promise<void> {
    for (const { socket } of this.#clients) socket.terminate();
    await Promise.all(this.#hops.map((hop) => hop.stop()));
    try {
      await this.#gateway?.stopClean();
    } finally {
      await this.#gateway?.gateway.stop();
      await Promise.all(this.#backends.map((backend) => backend.stop()));
    }
  }
}

/** Waits for the echo of `text`, which the client has not sent before. */
export async function echoed(client: LibraryClient, text: string): Promise<void> {
  client.sendText(text);
  await eventually(() => expect(client.log.messages.map(String)).toContain(text));
}

export function pingsSeen({ log }: LibraryClient): number {
  return log.frames.filter(({ opcode }) => opcode === PING).length;
}
