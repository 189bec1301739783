/** Session retry under a real protocol: a GraphQL subscription outlives the backend that served it. */
import { createServer, type Server } from "node:http";
// By its path: the test's own import would find a second copy of the library, which it refuses.
import {
  GraphQLInt,
  GraphQLNonNull,
  GraphQLObjectType,
  GraphQLSchema,
  GraphQLString,
} from "graphql/index.js";
import { type Client, createClient } from "graphql-ws";
import { useServer } from "graphql-ws/use/ws";
import { afterEach, expect, it } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";

const SUBSCRIPTION = "subscription { tick { backend n } }";

interface Tick {
  readonly backend: string;
  readonly n: number;
}

/** A GraphQL server whose only subscription yields a value whenever the test says so. */
class GraphqlBackend {
  readonly name: string;
  readonly #server: Server;
  readonly #endpoint: WebSocketServer;
  readonly #waiting: ((done: boolean) => void)[] = [];
  #ticks = 0;
  /** What came, in order: `connection_init`, `subscribe`, and so on. */
  readonly received: string[] = [];
  isMute = false;

  private constructor(name: string, server: Server) {
    this.name = name;
    this.#server = server;
    this.#endpoint = new WebSocketServer({ server });
    this.#endpoint.on("connection", (socket) => {
      socket.on("message", (data: Buffer) => this.received.push(JSON.parse(data.toString()).type));
    });
    // A login that never comes through: the library acknowledges once this has settled.
    const onConnect = () => (this.isMute ? new Promise<boolean>(() => undefined) : true);
    useServer({ schema: this.#schema(), onConnect }, this.#endpoint);
  }

  static async start(name: string): Promise<GraphqlBackend> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new GraphqlBackend(name, server);
  }

  get url(): string {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return `ws://127.0.0.1:${address.port}`;
  }

  get isServing(): boolean {
    return this.#waiting.length > 0;
  }

  /** The next value of every subscription. */
  async tick(): Promise<void> {
    await eventually(() => {
      if (!this.isServing) throw new Error("nobody has subscribed");
    });
    for (const next of this.#waiting.splice(0)) next(false);
  }

  /** As a kill would: every socket reset, no Close, and nobody listens any more. */
  async kill(): Promise<void> {
    for (const client of this.#endpoint.clients) client.terminate();
    for (const next of this.#waiting.splice(0)) next(true);
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async *#values(): AsyncGenerator<{ tick: Tick }> {
    while (true) {
      const isOver = await new Promise<boolean>((resolve) => this.#waiting.push(resolve));
      if (isOver) return;
      this.#ticks += 1;
      yield { tick: { backend: this.name, n: this.#ticks } };
    }
  }

  #schema(): GraphQLSchema {
    const tick = new GraphQLObjectType({
      name: "Tick",
      fields: {
        backend: { type: new GraphQLNonNull(GraphQLString) },
        n: { type: new GraphQLNonNull(GraphQLInt) },
      },
    });
    return new GraphQLSchema({
      query: new GraphQLObjectType({
        name: "Query",
        fields: { name: { type: GraphQLString, resolve: () => this.name } },
      }),
      subscription: new GraphQLObjectType({
        name: "Subscription",
        fields: { tick: { type: tick, subscribe: () => this.#values() } },
      }),
    });
  }
}

let backends: GraphqlBackend[] = [];
let gateway: TestGateway;
let client: Client;

afterEach(async () => {
  await client.dispose();
  await gateway.stopClean();
  await Promise.all(backends.map((backend) => backend.kill()));
});

/** The library's client, and everything that it and its subscription were told. */
async function subscribe(session: string, isMute = false) {
  const a = await GraphqlBackend.start("A");
  const b = await GraphqlBackend.start("B");
  backends = [a, b];
  for (const backend of backends) backend.isMute = isMute;
  gateway = await startGateway(
    onePool(
      [a.url, b.url],
      `retry: { session: { enabled: true, ${session} }, backoff: { initial: 50ms, max: 100ms } }`,
    ),
  );
  const seen = { ticks: [] as Tick[], errors: [] as unknown[], completes: 0 };
  const told = { connected: 0, closes: [] as unknown[], messages: [] as string[] };
  client = createClient({
    url: gateway.url(),
    webSocketImpl: WebSocket,
    retryAttempts: 0,
    lazyCloseTimeout: 0,
    on: {
      connected: () => (told.connected += 1),
      closed: (event) => told.closes.push(event),
      message: ({ type }) => told.messages.push(type),
    },
  });
  const unsubscribe = client.subscribe<{ tick: Tick }>(
    { query: SUBSCRIPTION },
    {
      next: ({ data }) => {
        if (data) seen.ticks.push(data.tick);
      },
      error: (error) => seen.errors.push(error),
      complete: () => (seen.completes += 1),
    },
  );
  return { a, b, seen, told, unsubscribe };
}

/** Which of the two serves the subscription, and the other one. */
function split(a: GraphqlBackend, b: GraphqlBackend) {
  return eventually(() => {
    if (a.isServing === b.isServing) throw new Error("not one of the two");
    return a.isServing ? ([a, b] as const) : ([b, a] as const);
  });
}

it("keeps a graphql-ws subscription alive across the death of its backend", async () => {
  const { a, b, seen, told, unsubscribe } = await subscribe("replay: { first: 2, swallow: 1 }");
  const [first, second] = await split(a, b);
  await first.tick();
  await first.tick();
  await eventually(() => expect(seen.ticks).toHaveLength(2));
  await first.kill();
  await second.tick();
  await second.tick();
  await eventually(() => expect(seen.ticks).toHaveLength(4));
  expect(seen).toEqual({
    ticks: [
      { backend: first.name, n: 1 },
      { backend: first.name, n: 2 },
      { backend: second.name, n: 1 },
      { backend: second.name, n: 2 },
    ],
    errors: [],
    completes: 0,
  });
  // The login was repeated to the new backend, and its answer did not reach the client.
  expect(second.received).toEqual(["connection_init", "subscribe"]);
  expect(told).toEqual({
    connected: 1,
    closes: [],
    messages: ["connection_ack", "next", "next", "next", "next"],
  });
  unsubscribe();
  const [record] = await gateway.recorded();
  expect(record).toMatchObject({
    cause: "clientClosed",
    subprotocol: "graphql-transport-ws",
    resumes: 1,
    dials: 2,
    client: { sent: 1000, received: 1000 },
  });
});

it("unsubscribes at the new backend what was subscribed at the old one", async () => {
  const { a, b, seen, unsubscribe } = await subscribe("replay: { first: 2, swallow: 1 }");
  const [first, second] = await split(a, b);
  await first.kill();
  await second.tick();
  await eventually(() => expect(seen.ticks).toEqual([{ backend: second.name, n: 1 }]));
  unsubscribe();
  await eventually(() => {
    expect(second.received).toEqual(["connection_init", "subscribe", "complete"]);
  });
  await gateway.recorded();
  expect([seen.errors, seen.completes]).toEqual([[], 1]);
});

it("lets the login's answer through where the first backend died before it gave one", async () => {
  const { a, b, seen, told } = await subscribe("replay: { first: 2, swallow: 1 }", true);
  const [first, second] = await eventually(() => {
    if (a.received.length + b.received.length === 0) throw new Error("no login yet");
    return a.received.length > 0 ? [a, b] : [b, a];
  });
  if (first === undefined || second === undefined) throw new Error("no backends");
  second.isMute = false;
  await first.kill();
  await second.tick();
  await eventually(() => expect(seen.ticks).toEqual([{ backend: second.name, n: 1 }]));
  expect(told).toEqual({ connected: 1, closes: [], messages: ["connection_ack", "next"] });
  expect(second.received).toEqual(["connection_init", "subscribe"]);
  expect(seen.errors).toEqual([]);
});
