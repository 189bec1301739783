/** SIGTERM and SIGINT: nobody is cut off, nobody comes back all at once, and the exit code says how it went. */
import { once } from "node:events";
import { Agent, get } from "node:http";
import { connect, createServer } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { buildFrame } from "../support/frames.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { LightClient, LightUpstream, type LightUpstreamOptions } from "../support/light-peers.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

const upstreams: LightUpstream[] = [];
const processes: GatewayProcess[] = [];
const gateways: TestGateway[] = [];

afterEach(async () => {
  await Promise.all(processes.splice(0).map((gateway) => gateway.stop()));
  await Promise.all(gateways.splice(0).map(({ gateway }) => gateway.stop()));
  await Promise.all(upstreams.splice(0).map((started) => started.stop()));
});

async function upstream(options?: LightUpstreamOptions): Promise<LightUpstream> {
  const started = await LightUpstream.start(options);
  upstreams.push(started);
  return started;
}

async function startProcess(yaml: string): Promise<GatewayProcess> {
  const started = await GatewayProcess.start(yaml);
  processes.push(started);
  return started;
}

async function inProcess(yaml: string): Promise<TestGateway> {
  const started = await startGateway(yaml);
  gateways.push(started);
  return started;
}

async function open(
  port: number,
  count: number,
  answersClose = true,
): Promise<readonly LightClient[]> {
  const clients: LightClient[] = [];
  while (clients.length < count) {
    const some = Array.from(
      { length: Math.min(200, count - clients.length) },
      () => new LightClient(port, { answersClose }),
    );
    for (const outcome of await Promise.all(some.map((client) => client.outcome))) {
      expect(outcome).toBe("open");
    }
    clients.push(...some);
  }
  return clients;
}

async function readyz(url: string): Promise<number> {
  return (await fetch(`${url}/readyz`)).status;
}

/** Whether a TCP connection to `port` comes about. */
async function accepts(port: number): Promise<boolean> {
  const socket = connect({ host: "127.0.0.1", port });
  const accepted = await Promise.race([
    once(socket, "connect").then(() => true),
    once(socket, "error").then(
      () => false,
      () => false,
    ),
  ]).catch(() => false);
  socket.destroy();
  return accepted;
}

it("closes 1,000 sessions evenly over drain.timeout, each with 1012, and exits with 0", async () => {
  const backend = await upstream();
  const gateway = await startProcess(onePool([backend.url], "drain: { timeout: 5s }\n"));
  const clients = await open(gateway.port, 1_000);

  gateway.signal("SIGTERM");
  await Promise.all(clients.map(({ ended }) => ended));
  expect(await gateway.exited).toBe(0);

  expect(clients.map(({ close }) => close?.code)).toEqual(clients.map(() => 1012));
  const reason = /^gateway is shutting down; retry-after=\d+$/;
  expect(clients.filter(({ close }) => !reason.test(close?.reason ?? ""))).toEqual([]);
  expect(clients.every(({ closeFrames }) => closeFrames === 1)).toBe(true);
  expect(backend.closeCodes).toEqual(clients.map(() => 1001));

  // Seen from the run itself: by each tenth of it about a tenth more of the clients has been closed.
  const times = clients.map(({ closedAt }) => closedAt).toSorted((a, b) => a - b);
  const first = times[0] ?? Number.NaN;
  const span = (times.at(-1) ?? Number.NaN) - first;
  for (let tenth = 1; tenth < 10; tenth += 1) {
    const share = times.filter((at) => at <= first + (span * tenth) / 10).length / times.length;
    expect(Math.abs(share - tenth / 10)).toBeLessThan(0.15);
  }
  // Not a matter of speed: a gateway that does not wait has closed them all much earlier.
  expect(span).toBeGreaterThan(3_000);
  expect(gateway.records.filter(({ cause }) => cause === "draining")).toHaveLength(1_000);
}, 30_000);

it("exits with 1 when it had to destroy clients that never answer their Close", async () => {
  const backend = await upstream();
  // The last of the polite ones have a tenth of it to answer in.
  const gateway = await startProcess(onePool([backend.url], "drain: { timeout: 2s }\n"));
  const deaf = await open(gateway.port, 3, false);
  const polite = await open(gateway.port, 3);

  gateway.signal("SIGTERM");
  expect(await gateway.exited).toBe(1);
  await Promise.all(polite.map(({ ended }) => ended));
  for (const { close } of [...deaf, ...polite]) expect(close?.code).toBe(1012);
  expect(gateway.lines.find(({ msg }) => msg === "drained")).toMatchObject({ destroyed: 3 });
  for (const { socket } of deaf) socket.destroy();
});

it("a client that has closed gets its echo, also if the upstream never answers", async () => {
  const silent = await RawUpstream.start();
  const gateway = await startProcess(onePool([silent.url], "drain: { timeout: 500ms }\n"));
  const client = new RawClient(gateway.port);
  expect(await client.answered()).toBe(101);
  client.sendClose(4000, "done");
  await (await silent.peer()).log.frame(8);
  gateway.signal("SIGTERM");
  expect(await client.ended()).toBe("fin");
  expect(client.log.closes).toEqual([{ code: 4000, reason: "done" }]);
  expect(await gateway.exited).toBe(1);
  const sent = { client: { sent: 4000, received: 4000 } };
  expect(gateway.records).toMatchObject([{ cause: "clientClosed", ...sent }]);
  await silent.stop();
});

it("takes SIGINT as SIGTERM", async () => {
  const backend = await upstream();
  const gateway = await startProcess(onePool([backend.url], "drain: { timeout: 300ms }\n"));
  const clients = await open(gateway.port, 5);
  gateway.signal("SIGINT");
  expect(await gateway.exited).toBe(0);
  for (const client of clients) expect(await client.ended).toMatchObject({ code: 1012 });
});

it("exits with 0 and at once when there is nothing to drain", async () => {
  const backend = await upstream();
  const gateway = await startProcess(onePool([backend.url], "drain: { timeout: 1h }\n"));
  gateway.signal("SIGTERM");
  expect(await gateway.exited).toBe(0);
});

it("ends at once at the second signal", async () => {
  const backend = await upstream();
  const gateway = await startProcess(onePool([backend.url], "drain: { timeout: 1h }\n"));
  const clients = await open(gateway.port, 3, false);
  gateway.signal("SIGTERM");
  await clients[0]?.outcome;
  await eventually(() => expect(gateway.lines.some(({ msg }) => msg === "draining")).toBe(true));
  gateway.signal("SIGTERM");
  expect(await gateway.exited).toBe(1);
  for (const { socket } of clients) socket.destroy();
});

describe("with drain.delay", () => {
  it("is not ready at once, still accepts meanwhile, then accepts no more", async () => {
    const backend = await upstream();
    const gateway = await startProcess(
      onePool([backend.url], "drain: { delay: 1s, timeout: 2s }\n"),
    );
    const [before] = await open(gateway.port, 1);
    expect(await readyz(gateway.adminUrl)).toBe(200);

    gateway.signal("SIGTERM");
    await eventually(async () => expect(await readyz(gateway.adminUrl)).toBe(503));
    expect((await fetch(`${gateway.adminUrl}/healthz`)).status).toBe(200);
    const [late] = await open(gateway.port, 1);
    expect(before?.close).toBeNull();

    await eventually(async () => expect(await accepts(gateway.port)).toBe(false));
    expect(await before?.ended).toMatchObject({ code: 1012 });
    expect(await late?.ended).toMatchObject({ code: 1012 });
    expect(await gateway.exited).toBe(0);
  });
});

describe("what has not become a session", () => {
  it("a handshake whose upstream is being dialled gets 1012 with a time to come back", async () => {
    let aborted = 0;
    const backend = await upstream({
      onRequest: (_accept, socket) => {
        socket.on("close", () => {
          aborted += 1;
        });
      },
    });
    const gateway = await inProcess(onePool([backend.url], "drain: { timeout: 300ms }\n"));
    const client = new LightClient(gateway.port);
    await eventually(() => expect(backend.connections).toBe(1));
    const drained = gateway.gateway.drain();
    expect(await client.outcome).toMatchObject({
      code: 1012,
      reason: expect.stringMatching(/; retry-after=\d+$/),
    });
    expect(await drained).toBe(0);
    await eventually(() => expect(aborted).toBe(1));
    expect(gateway.slots).toBe(0);
    expect(gateway.records).toMatchObject([{ cause: "draining", refused: true }]);
  });

  it("a refused client that has more to send is not cut off before it has read its Close", async () => {
    const backend = await upstream({ onRequest: () => undefined });
    const gateway = await startProcess(onePool([backend.url], "drain: { timeout: 5s }\n"));
    // More than is read ahead of a 101: what lies unread in the kernel would make our end a reset.
    const frame = buildFrame({ opcode: 2, mask: Buffer.alloc(4), payload: Buffer.alloc(8_000) });
    const early = Buffer.concat(Array.from({ length: 64 }, () => frame));
    const client = new RawClient(gateway.port, { early });
    await eventually(() => expect(client.socket.bytesWritten).toBeGreaterThan(early.length));
    await eventually(() => expect(backend.connections).toBe(1));

    gateway.signal("SIGTERM");
    await client.log.frame(8);
    expect(client.log.closes).toMatchObject([{ code: 1012 }]);
    client.sendClose(1012);
    expect(await client.ended()).toBe("fin");
    expect(await gateway.exited).toBe(0);
  });

  it("a handshake on a connection that was kept alive gets 1012, too", async () => {
    const backend = await upstream({
      onRequest: (accept, socket, path) => {
        if (path === "/plain") {
          socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        } else accept();
      },
    });
    const gateway = await inProcess(
      onePool([backend.url], "drain: { delay: 0s, timeout: 400ms }\n"),
    );
    const [holding] = await open(gateway.port, 1, false);
    const socket = connect({ host: "127.0.0.1", port: gateway.port });
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString("latin1");
    });
    socket.on("error", () => undefined);
    // A request whose head is not complete is not idle: the connection outlives the first step.
    socket.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n");
    await once(socket, "connect");
    const drained = gateway.gateway.drain();
    socket.write(
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    await eventually(() => expect(text).toContain("gateway is shutting down; retry-after="));
    expect(text).toMatch(/^HTTP\/1\.1 101 /);
    holding?.socket.destroy();
    await drained;
    socket.destroy();
  });

  it("a plain HTTP request that is being answered is finished", async () => {
    let answer: (() => void) | undefined;
    const backend = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.once("data", () => {
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst");
        answer = () => void socket.write("later");
      });
    });
    await new Promise<void>((resolve) => backend.listen(0, "127.0.0.1", resolve));
    const address = backend.address();
    const port = typeof address === "object" ? address?.port : 0;
    const gateway = await inProcess(
      onePool([`ws://127.0.0.1:${port}`], "drain: { timeout: 5s }\n"),
    );
    const agent = new Agent({ keepAlive: true });
    const body = new Promise<string>((resolve, reject) => {
      const request = get({ host: "127.0.0.1", port: gateway.port, agent }, (response) => {
        let text = "";
        response.on("data", (chunk: Buffer) => {
          text += chunk.toString();
        });
        response.on("end", () => resolve(text));
        response.on("error", reject);
      });
      request.on("error", reject);
    });
    await eventually(() => expect(answer).toBeDefined());
    const drained = gateway.gateway.drain();
    await eventually(async () => expect(await accepts(gateway.port)).toBe(false));
    answer?.();
    expect(await body).toBe("firstlater");
    agent.destroy();
    expect(await drained).toBe(0);
    backend.close();
  });
});
