/** Failures in real traffic take a backend out for a while; nothing that is the clients' doing ever does. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { readSeries, titled } from "../support/outcome.ts";
import {
  greets,
  livePeers,
  PoolSetting,
  type PoolYaml,
  poolYaml,
  servedBy,
} from "../support/pool-setting.ts";
import type { Behaviour, RawUpstream, UpstreamPeer } from "../support/raw-upstream.ts";

const ONE_DIAL = "retry: { connect: { attempts: 1 } }\n";

let setting: PoolSetting;

beforeEach(() => {
  setting = new PoolSetting();
});

afterEach(async () => {
  await setting.stop();
});

const echoes: Behaviour = (peer) => {
  greets(peer);
  let echoed = 0;
  peer.socket.on("data", () => {
    const messages = peer.log.messages.slice(echoed);
    echoed += messages.length;
    for (const message of messages) peer.sendText(String(message));
  });
};

/** Loses the client as soon as that says something. */
const dies: Behaviour = (peer) => {
  greets(peer);
  peer.socket.on("data", () => {
    if (peer.log.messages.length > 0) peer.reset();
  });
};

const says =
  (code: number): Behaviour =>
  (peer) => {
    greets(peer);
    peer.sendClose(code);
  };
const answers =
  (status: number): Behaviour =>
  (peer) =>
    peer.write(`HTTP/1.1 ${status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`);

async function start(
  count: number,
  behaviour: Behaviour,
  ejection: string,
  { pool = "", ...rest }: Partial<PoolYaml> = {},
): Promise<RawUpstream[]> {
  const upstreams = await setting.backends(count, behaviour);
  const urls = upstreams.map(({ url }) => url);
  await setting.start(
    poolYaml({ urls, pool: `ejection: { ${ejection} }, ${pool}`, more: ONE_DIAL, ...rest }),
  );
  return upstreams;
}

function isEjected({ url }: RawUpstream): boolean {
  return setting.status(url).ejected;
}

/** The one of `upstreams` that serves the client. */
async function whoServes(
  client: PoliteRawClient,
  upstreams: readonly RawUpstream[],
): Promise<RawUpstream> {
  const port = await servedBy(client);
  const found = upstreams.find((upstream) => upstream.port === port);
  if (found === undefined) throw new Error(`nobody at ${port}`);
  return found;
}

async function ejections(): Promise<number> {
  const series = (await readSeries(setting.gateway))("softclose_ejections_total");
  return Object.values(series).reduce((sum, value) => sum + value, 0);
}

/** For how long a backend was taken out, each time. */
function durations({ url }: RawUpstream): unknown[] {
  return setting.gateway.lines
    .filter(({ msg, backend }) => msg === "backend ejected after failures" && backend === url)
    .map(({ durationMs }) => durationMs);
}

/** A client that comes, says something, has its answer and leaves, again and again until told to stop. */
async function comesAndGoes(isOver: () => boolean): Promise<number[]> {
  const codes: number[] = [];
  while (!isOver()) {
    const client = setting.knock();
    await client.opened();
    client.sendText("hello");
    await eventually(() => {
      expect(client.log.messages.length + client.log.closes.length).toBeGreaterThan(1);
    });
    if (client.log.closes.length === 0) client.sendClose(1000);
    codes.push((await client.ended()).told.code);
  }
  return codes;
}

describe("one flapping backend of three under load", () => {
  it("is out for longer each time, has one trial at a time, and comes back; the others never notice", async () => {
    let isIll = false;
    const flaps: Behaviour = (peer) => (isIll ? dies(peer) : echoes(peer));
    const [flapping] = await setting.backends(1, flaps);
    const steady = await setting.backends(2, echoes);
    if (flapping === undefined) throw new Error("no upstream");
    const urls = [flapping, ...steady].map(({ url }) => url);
    const ejection = "ejection: { failures: 5, window: 10s, duration: 300ms, maxDuration: 900ms }";
    await setting.start(poolYaml({ urls, pool: ejection }));
    const { url } = flapping;

    const long = await Promise.all(Array.from({ length: 30 }, () => setting.open()));
    const ports = await Promise.all(long.map(servedBy));
    const lasting = long.filter((_, index) => ports[index] !== flapping.port);
    const doomed = long.filter((_, index) => ports[index] === flapping.port);
    expect([lasting.length, doomed.length]).toEqual([20, 10]);
    let said = 0;
    const talking = setInterval(() => {
      said += 1;
      for (const client of lasting) client.sendText(String(said));
    }, 20);
    let isOver = false;
    const load = Array.from({ length: 4 }, () => comesAndGoes(() => isOver));
    await eventually(() => expect(setting.gateway.records.length).toBeGreaterThan(20));
    expect([isEjected(flapping), await ejections()]).toEqual([false, 0]);

    isIll = true;
    for (const peer of livePeers(flapping)) peer.reset();
    for (const client of doomed) expect((await client.ended()).told.code).toBe(1014);
    await eventually(() => expect(isEjected(flapping)).toBe(true));
    const labels = `{pool="main",backend="${url}"}`;
    expect(await setting.gateway.metric(`softclose_backend_ejected${labels}`)).toBe(1);
    expect(await setting.gateway.metric(`softclose_backend_up${labels}`)).toBe(0);
    // What was on its way when it was ejected may still arrive; then nothing but trials does.
    await eventually(() => expect(setting.status(url).connections).toBe(0));
    const before = flapping.peers.length;
    await eventually(() => expect(durations(flapping)).toEqual([300, 600, 900, 900]));
    expect(flapping.peers.length - before).toBe(3);
    expect(await setting.gateway.metric(`softclose_ejections_total${labels}`)).toBe(4);

    isIll = false;
    await eventually(() => expect(isEjected(flapping)).toBe(false));
    expect(await setting.gateway.metric(`softclose_backend_ejected${labels}`)).toBe(0);
    expect(await setting.gateway.metric(`softclose_backend_up${labels}`)).toBe(1);
    const again = flapping.peers.length;
    await eventually(() => expect(flapping.peers.length).toBeGreaterThan(again + 10));

    isOver = true;
    const codes = (await Promise.all(load)).flat();
    const lost = codes.filter((code) => code !== 1000);
    expect(lost.every((code) => code === 1014)).toBe(true);
    // Five led to the ejection, or were on their way when it came; then one a trial.
    expect(lost.length).toBeLessThanOrEqual(5 + 4 + 3);
    clearInterval(talking);
    for (const client of lasting) {
      const messages = await client.log.received(said + 1);
      expect(messages.slice(1).map(Number)).toEqual(
        Array.from({ length: said }, (_, index) => index + 1),
      );
      expect(client.log.closes).toEqual([]);
      client.sendClose(1000);
    }
    await Promise.all(lasting.map((client) => client.ended()));
    expect(durations(flapping)).toHaveLength(4);
    for (const { url: other } of steady) {
      const series = `softclose_ejections_total{pool="main",backend="${other}"}`;
      expect(await setting.gateway.metric(series)).toBe(0);
    }
  }, 40_000);
});

describe("what counts", () => {
  interface Case {
    readonly title: string;
    readonly backend?: Behaviour;
    /** What the client does once it is in. */
    readonly client?: (client: PoliteRawClient, peer: UpstreamPeer | undefined) => void;
    readonly more?: string;
    readonly cause: string;
  }

  const faults: readonly Case[] = [
    { title: "a Close with 1011", backend: says(1011), cause: "upstreamClosed" },
    { title: "a Close with 1014", backend: says(1014), cause: "upstreamClosed" },
    {
      title: "a reset",
      backend: (peer) => {
        greets(peer);
        setImmediate(() => peer.reset());
      },
      cause: "upstreamLost",
    },
    {
      title: "an end without a Close",
      backend: (peer) => {
        peer.accept();
        peer.end();
      },
      cause: "upstreamLost",
    },
    {
      title: "no answer to the heartbeat",
      backend: (peer) => peer.accept(),
      more: "heartbeat: { upstream: { interval: 100ms, timeout: 100ms } }\n",
      cause: "upstreamUnresponsive",
    },
    { title: "an answer of 500", backend: answers(500), cause: "upstreamRejected" },
    { title: "an answer of 503", backend: answers(503), cause: "upstreamRejected" },
    {
      title: "a dial that is cut off",
      backend: (peer) => peer.reset(),
      cause: "upstreamUnreachable",
    },
    {
      title: "a dial that times out",
      backend: () => undefined,
      more: "",
      cause: "upstreamUnreachable",
    },
  ];

  it.each(titled(faults))(
    "as a backend's fault: %s",
    async (_, { backend = greets, more = "", cause }) => {
      // Both do the same, so whoever gets the sessions, one is ejected, and the other may not be.
      const upstreams = await start(
        2,
        backend,
        "failures: 2, window: 1h, duration: 1h, maxDuration: 1h",
        {
          pool: "connectTimeout: 250ms",
          more: ONE_DIAL + more,
        },
      );
      for (let count = 0; count < 6; count += 1) {
        await setting.knock().raw.ended();
        await setting.gateway.recorded(count + 1);
      }
      expect(setting.gateway.records.map((record) => record.cause)).toEqual(Array(6).fill(cause));
      expect(upstreams.map(isEjected).filter(Boolean)).toHaveLength(1);
      expect(await ejections()).toBe(1);
    },
  );

  const innocent: readonly Case[] = [
    ...[1000, 1001, 1008, 1009, 1012, 1013, 3000, 4000].map((code) => ({
      title: `a Close with ${code}`,
      backend: says(code),
      cause: "upstreamClosed",
    })),
    {
      title: "a Close without a code",
      backend: (peer) => {
        greets(peer);
        peer.send({ opcode: 8 });
      },
      cause: "upstreamClosed",
    },
    ...[400, 401, 403, 404, 429].map((status) => ({
      title: `an answer of ${status}`,
      backend: answers(status),
      cause: "upstreamRejected",
    })),
    {
      title: "a client that closes",
      client: (client) => client.sendClose(1000),
      cause: "clientClosed",
    },
    {
      title: "a client that closes with 1011",
      client: (client) => client.sendClose(1011),
      cause: "clientClosed",
    },
    { title: "a client that is lost", client: (client) => client.raw.reset(), cause: "clientLost" },
    {
      title: "a client that breaks the protocol",
      client: (client) => client.raw.send({ opcode: 3, payload: "?" }),
      cause: "clientProtocolError",
    },
    {
      title: "a message of the client that is too big",
      client: (client) => client.sendText("x".repeat(2_000)),
      more: "limits: { maxMessageSize: 1KiB }\n",
      cause: "messageTooBig",
    },
    {
      title: "a client that takes nothing",
      client: (client, peer) => {
        client.raw.socket.pause();
        peer?.send({ opcode: 2, payload: Buffer.alloc(16 * 1024 * 1024) });
      },
      more: "limits: { slowConsumerTimeout: 200ms, maxMessageSize: 64MiB }\nclose: { timeout: 100ms }\n",
      cause: "slowConsumer",
    },
    {
      title: "a client that says too much",
      client: (client) => {
        for (let i = 0; i < 20; i += 1) client.sendText("!");
      },
      more: "limits: { messageRate: 1, messageBurst: 2 }\n",
      cause: "rateLimited",
    },
    {
      title: "a client that answers no heartbeat",
      more: "heartbeat: { client: { interval: 50ms, timeout: 50ms } }\n",
      cause: "clientUnresponsive",
    },
    { title: "idleness", more: "limits: { idleTimeout: 100ms }\n", cause: "idle" },
    { title: "age", more: "limits: { maxConnectionAge: 100ms }\n", cause: "maxAge" },
    {
      title: "a session that the admin closes",
      client: () => {
        for (const { session } of setting.gateway.gateway.sessions(100)) {
          setting.gateway.gateway.closeSession(session);
        }
      },
      cause: "adminClosed",
    },
  ];

  it.each(titled(innocent))("as nobody's fault: %s", async (_, one) => {
    const { backend = greets, client: act, more = "", cause } = one;
    const upstreams = await start(
      2,
      backend,
      "failures: 1, window: 1h, duration: 1h, maxDuration: 1h",
      {
        more: ONE_DIAL + more,
      },
    );
    for (let count = 0; count < 4; count += 1) {
      const client = setting.knock();
      if (act !== undefined) {
        const server = await whoServes(client, upstreams);
        act(client, server.peers.at(-1));
      }
      await setting.gateway.recorded(count + 1);
      client.raw.socket.destroy();
    }
    const causes = setting.gateway.records.map((record) => record.cause);
    expect(causes).toEqual(Array(4).fill(cause));
    expect(upstreams.map(isEjected)).toEqual([false, false]);
    expect(await ejections()).toBe(0);
  });

  it("as nobody's fault: a client that leaves while it is dialled", async () => {
    const upstreams = await start(2, () => undefined, "failures: 1, window: 1h");
    for (let count = 0; count < 4; count += 1) {
      const client = setting.knock();
      const before = upstreams.reduce((sum, { peers }) => sum + peers.length, 0);
      await eventually(() => {
        const now = upstreams.reduce((sum, { peers }) => sum + peers.length, 0);
        expect(now).toBe(before + (client.raw.ending === null ? 1 : 0));
        expect(setting.gateway.slots).toBe(1);
      });
      client.raw.reset();
      await eventually(() => expect(setting.gateway.slots).toBe(0));
    }
    expect(await ejections()).toBe(0);
  });
});

describe("how many may be out", () => {
  it.each([
    [1, 0],
    [2, 1],
    [3, 1],
    [4, 2],
  ])("of %i that all die at once: %i", async (count, most) => {
    let isIll = true;
    const behaviour: Behaviour = (peer) => (isIll ? greets(peer) : echoes(peer));
    const upstreams = await start(
      count,
      behaviour,
      "failures: 2, window: 1h, duration: 1h, maxDuration: 1h",
    );
    const clients = await Promise.all(Array.from({ length: count * 5 }, () => setting.open()));
    await Promise.all(clients.map(servedBy));
    for (const upstream of upstreams) for (const peer of livePeers(upstream)) peer.reset();
    for (const client of clients) expect((await client.ended()).told.code).toBe(1014);
    await setting.gateway.recorded(count * 5);
    expect(upstreams.map(isEjected).filter(Boolean)).toHaveLength(most);
    const { backends } = setting.gateway.gateway.status().pools[0] ?? { backends: [] };
    expect(backends.filter(({ up }) => up)).toHaveLength(count);
    isIll = false;
    const late = await setting.open();
    expect(isEjected(await whoServes(late, upstreams))).toBe(false);
    late.sendClose(1000);
    await setting.gateway.recorded(count * 5 + 1);
  });

  it("is asked again when a backend leaves the pool: one that stays has to serve", async () => {
    const upstreams = await start(
      2,
      dies,
      "failures: 2, window: 1h, duration: 1h, maxDuration: 1h",
    );
    const [first, second] = upstreams;
    if (first === undefined || second === undefined) throw new Error("no upstreams");
    while (!upstreams.some(isEjected)) {
      const client = await setting.open();
      client.sendText("hello");
      await client.ended();
    }
    const out = isEjected(first) ? first : second;
    const other = out === first ? second : first;
    setting.gateway.gateway.drainBackend(other.url);
    expect(isEjected(out)).toBe(false);
    const client = await setting.open();
    expect(await servedBy(client)).toBe(out.port);
    client.sendClose(1000);
    await client.ended();
  });
});

/** A pool of two with `out` ejected. */
async function withOneOut(
  duration: string,
  behaviour: (isOut: boolean) => Behaviour,
  more: Partial<PoolYaml> = {},
): Promise<{ out: RawUpstream; other: RawUpstream; heal: () => void }> {
  let isIll = true;
  const ill = await setting.backends(1, (peer) => (isIll ? dies(peer) : behaviour(true)(peer)));
  const well = await setting.backends(1, (peer) => behaviour(false)(peer));
  const [out, other] = [...ill, ...well];
  if (out === undefined || other === undefined) throw new Error("no upstreams");
  const { pool = "", ...rest } = more;
  await setting.start(
    poolYaml({
      urls: [out.url, other.url],
      pool: `ejection: { failures: 1, window: 1h, duration: ${duration}, maxDuration: 1h }, ${pool}`,
      ...rest,
    }),
  );
  while (!isEjected(out)) {
    const client = await setting.open();
    const port = await servedBy(client);
    if (port === out.port) client.sendText("hello");
    else client.sendClose(1000);
    await client.ended();
  }
  await eventually(() => expect(setting.gateway.slots).toBe(0));
  return { out, other, heal: () => (isIll = false) };
}

describe("a trial", () => {
  it("is one session: while it is dialled the others go elsewhere", async () => {
    const held: UpstreamPeer[] = [];
    const { out, other, heal } = await withOneOut("100ms", (isOut) =>
      isOut ? (peer) => void held.push(peer) : greets,
    );
    heal();
    const before = out.peers.length;
    // Who comes while it is out is served by the other; one of those who come later is the trial.
    const clients: PoliteRawClient[] = [];
    await eventually(() => {
      clients.push(setting.knock());
      expect(held).toHaveLength(1);
    });
    for (let i = 0; i < 10; i += 1) clients.push(setting.knock());
    await eventually(() => expect(livePeers(other)).toHaveLength(clients.length - 1));
    expect(out.peers.length).toBe(before + 1);
    expect(isEjected(out)).toBe(true);
    for (const peer of held) greets(peer);
    await Promise.all(clients.map((client) => client.opened()));
    // It has not passed yet: it has to live, or to end well.
    expect(isEjected(out)).toBe(true);
    const ports = await Promise.all(clients.map(servedBy));
    clients[ports.indexOf(out.port)]?.sendClose(1000);
    await eventually(() => expect(isEjected(out)).toBe(false));
    for (const client of clients) client.sendClose(1000);
    await Promise.all(clients.map((client) => client.ended()));
  });

  it("that its client leaves says nothing: the next session is the trial", async () => {
    const { out, heal } = await withOneOut("100ms", (isOut) => (isOut ? () => undefined : greets));
    heal();
    const before = out.peers.length;
    const clients: PoliteRawClient[] = [];
    await eventually(() => {
      clients.push(setting.knock());
      expect(out.peers.length).toBe(before + 1);
    });
    for (const client of clients) client.raw.reset();
    await eventually(() => expect(setting.gateway.slots).toBe(0));
    expect([isEjected(out), await ejections()]).toEqual([true, 1]);
    const next = [setting.knock(), setting.knock()];
    await eventually(() => expect(out.peers.length).toBe(before + 2));
    for (const client of next) client.raw.reset();
    await eventually(() => expect(setting.gateway.slots).toBe(0));
  });

  it("is the turn of the first in line, when all others are full", async () => {
    const { out, other, heal } = await withOneOut("500ms", () => greets, {
      perBackend: "maxConnections: 1",
      pool: "queue: { size: 10, timeout: 1h }",
    });
    heal();
    const first = await setting.open();
    expect(await servedBy(first)).toBe(other.port);
    const head = await setting.inLine();
    const last = await setting.inLine();
    // Nothing happens but that time passes.
    await head.opened();
    expect(await servedBy(head)).toBe(out.port);
    expect(setting.queueLength).toBe(1);
    head.sendClose(1000);
    await last.opened();
    expect(await servedBy(last)).toBe(out.port);
    expect(isEjected(out)).toBe(false);
    for (const client of [first, last]) client.sendClose(1000);
    await Promise.all([first, last].map((client) => client.ended()));
  });
});

it("is seen by no client where session retry is on", async () => {
  const upstreams = await start(
    2,
    echoes,
    "failures: 3, window: 1h, duration: 1h, maxDuration: 1h",
    {
      more: "retry: { session: { enabled: true } }\n",
    },
  );
  const clients = await Promise.all(Array.from({ length: 8 }, () => setting.open()));
  const [first, second] = upstreams;
  if (first === undefined || second === undefined) throw new Error("no upstreams");
  for (const peer of livePeers(first)) peer.reset();
  await eventually(() => expect(livePeers(second)).toHaveLength(8));
  expect(upstreams.map(isEjected)).toEqual([true, false]);
  for (const client of clients) client.sendClose(1000);
  await Promise.all(clients.map((client) => client.ended()));
});

it("ends by a reload that turns it off", async () => {
  const upstreams = await start(2, dies, "failures: 1, window: 1h, duration: 1h, maxDuration: 1h");
  const client = await setting.open();
  client.sendText("hello");
  await client.ended();
  expect(upstreams.map(isEjected).filter(Boolean)).toHaveLength(1);
  const urls = upstreams.map(({ url }) => url);
  await setting.gateway.reload(poolYaml({ urls, pool: "ejection: { failures: 0 }" }));
  expect(upstreams.map(isEjected)).toEqual([false, false]);
});
