/**
 * A gateway between a stack as client and servers, with a tap on each leg: client - tap - gateway - tap -
 * server; and the stacks themselves, which are kept from test to test.
 */
import { expect } from "vitest";
import { onePool, startGateway, type TestGateway } from "./gateway.ts";
import { arrivalOf, type Sendable, Stack, type StackProgram } from "./stack.ts";
import { type TappedConnection, WireTap } from "./wire-tap.ts";

/** What a client offers, and what the servers support of it. */
export const OFFERED = ["first", "second"];
const SUPPORTED = ["second"];

export interface Setting {
  /** Default: true. */
  readonly deflate?: boolean;
  /** Default: none. */
  readonly subprotocols?: readonly string[];
  /** Top-level keys of the configuration. */
  readonly more?: string;
}

export class Meeting {
  readonly gateway: TestGateway;
  readonly client: Stack;
  readonly #servers: readonly Stack[];
  readonly #clientTap: WireTap;
  readonly #serverTaps: readonly WireTap[];

  private constructor(
    gateway: TestGateway,
    client: Stack,
    servers: readonly Stack[],
    clientTap: WireTap,
    serverTaps: readonly WireTap[],
  ) {
    this.gateway = gateway;
    this.client = client;
    this.#servers = servers;
    this.#clientTap = clientTap;
    this.#serverTaps = serverTaps;
  }

  /** Of a client with stacks. Nothing is open yet. Remember `stop`. */
  static async among(client: Stack, servers: readonly Stack[], setting: Setting): Promise<Meeting> {
    const deflate = setting.deflate ?? true;
    const ports = await Promise.all(servers.map((server) => server.listen(SUPPORTED, deflate)));
    return await Meeting.#prepare(client, servers, ports, setting.more);
  }

  /** The same with a server that is no stack. */
  static async before(client: Stack, port: number, more = ""): Promise<Meeting> {
    return await Meeting.#prepare(client, [], [port], more);
  }

  static async #prepare(
    client: Stack,
    servers: readonly Stack[],
    ports: readonly number[],
    more = "",
  ): Promise<Meeting> {
    const serverTaps = await Promise.all(ports.map((port) => WireTap.start(port)));
    const urls = serverTaps.map(({ url }) => url);
    const gateway = await startGateway(onePool(urls, more));
    const clientTap = await WireTap.start(gateway.port);
    return new Meeting(gateway, client, servers, clientTap, serverTaps);
  }

  /** The first server that was dialled. */
  get server(): Stack {
    const index = this.#serverTaps.findIndex(({ connections }) => connections.length > 0);
    const server = this.#servers[index];
    if (server === undefined) throw new Error("no server was dialled");
    return server;
  }

  get clientLeg(): TappedConnection {
    return this.#clientTap.only;
  }

  /** The only one. */
  get upstreamLeg(): TappedConnection {
    const [leg, ...others] = this.upstreamLegs;
    if (leg === undefined || others.length > 0) throw new Error(`${others.length} other legs`);
    return leg;
  }

  /** Server by server. */
  get upstreamLegs(): TappedConnection[] {
    return this.#serverTaps.flatMap(({ connections }) => connections);
  }

  get legs(): TappedConnection[] {
    return [this.clientLeg, ...this.upstreamLegs];
  }

  /** The client begins. */
  dial({ subprotocols = [], deflate = true }: Setting = {}): void {
    this.client.tell({ do: "open", url: this.#clientTap.url, subprotocols, deflate });
  }

  /** The same, and both sides say that the session is open. */
  async open(setting: Setting = {}): Promise<void> {
    this.dial(setting);
    const subprotocol = setting.subprotocols === undefined ? null : SUPPORTED[0];
    expect(await this.client.next("open")).toEqual({ subprotocol });
    expect(await this.server.next("open")).toEqual({ subprotocol });
  }

  /** A message to the server, which echoes it. */
  async say(message: Sendable, server = this.server): Promise<void> {
    this.client.tell({ do: "send", ...message });
    expect(await server.next("message")).toEqual(arrivalOf(message));
    expect(await this.client.next("message")).toEqual(arrivalOf(message));
  }

  /** A message to the client. */
  async push(message: Sendable, server = this.server): Promise<void> {
    server.tell({ do: "send", ...message });
    expect(await this.client.next("message")).toEqual(arrivalOf(message));
  }

  /** The client closes. */
  async part(server = this.server): Promise<void> {
    this.client.tell({ do: "close", code: 1000, reason: "" });
    expect(await this.client.next("close")).toMatchObject({ code: 1000 });
    expect(await server.next("close")).toMatchObject({ code: 1000 });
  }

  async stop(): Promise<void> {
    try {
      await this.gateway.stopClean();
    } finally {
      await Promise.all([this.#clientTap, ...this.#serverTaps].map((tap) => tap.stop()));
    }
  }
}

/** The stacks that run, each in its place: the same one may stand on both sides. */
export class StackPlaces {
  readonly #running = new Map<string, Stack>();

  /** The stack that runs in this place, or a new one where a test has left it unusable. */
  async take(place: string, program: StackProgram): Promise<Stack> {
    const known = this.#running.get(place);
    if (known?.name === program.name && known.idle) {
      known.events = [];
      return known;
    }
    await known?.kill();
    const stack = new Stack(program);
    this.#running.set(place, stack);
    return stack;
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#running.values()].map((stack) => stack.kill()));
    this.#running.clear();
  }
}
