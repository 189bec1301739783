/** permessage-deflate goes through end to end: the peers agree on it, the gateway never inflates. */
import { createHash } from "node:crypto";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type ServerOptions, WebSocket, WebSocketServer } from "ws";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";

const MIB = 2 ** 20;
/** Around every length form of the header, of the hold limit, and of a deflate window. */
const SIZES = [1, 125, 126, 4_096, 32_769, 65_535, 65_536, 65_537, 200_001, MIB];

let gateway: TestGateway;
let server: WebSocketServer;

afterEach(async () => {
  await gateway.stopClean();
  for (const socket of server.clients) socket.terminate();
  await new Promise((resolve) => server.close(resolve));
});

type LibraryOptions = NonNullable<ServerOptions["perMessageDeflate"]>;
type DeflateOptions = Partial<Exclude<LibraryOptions, boolean>> | boolean;

interface Peers {
  readonly client: WebSocket;
  readonly upstream: WebSocket;
}

async function startPeers(
  clientOptions: DeflateOptions,
  serverOptions: DeflateOptions,
): Promise<Peers> {
  server = new WebSocketServer({
    host: "127.0.0.1",
    port: 0,
    perMessageDeflate: optionsFor(serverOptions),
  });
  await new Promise((resolve) => server.once("listening", resolve));
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- it listens on TCP
  const { port } = server.address() as AddressInfo;
  gateway = await startGateway(onePool([`ws://127.0.0.1:${port}`]));
  const connected = new Promise<WebSocket>((resolve) => server.once("connection", resolve));
  const client = new WebSocket(gateway.url(), { perMessageDeflate: optionsFor(clientOptions) });
  await new Promise((resolve, reject) => {
    client.once("open", resolve);
    client.once("error", reject);
  });
  return { client, upstream: await connected };
}

/** All of them can be left out, whatever this project's other declarations of `ws` say. */
function optionsFor(options: DeflateOptions): LibraryOptions {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- see above
  return options as LibraryOptions;
}

/** Text-like (compresses well) and noise-like (grows when deflated) bytes, always the same ones. */
function payloads(size: number): Buffer[] {
  const repeated = Buffer.alloc(size, "soft close, hard facts; ");
  const noise = Buffer.alloc(size);
  for (let at = 0; at < size; at += 32) {
    createHash("sha256").update(`${size} ${at}`).digest().copy(noise, at);
  }
  return [repeated, noise];
}

/** Messages from one end as they come out of the other. */
function received(socket: WebSocket, count: number): Promise<{ data: Buffer; binary: boolean }[]> {
  const messages: { data: Buffer; binary: boolean }[] = [];
  return new Promise((resolve, reject) => {
    socket.on("message", (data, binary) => {
      if (Buffer.isBuffer(data)) messages.push({ data, binary });
      if (messages.length === count) resolve(messages);
    });
    socket.on("error", reject);
    socket.on("close", (code) => reject(new Error(`closed with ${code}`)));
  });
}

async function expectByteExact(from: WebSocket, to: WebSocket): Promise<void> {
  const sent = SIZES.flatMap((size) => payloads(size));
  const arriving = received(to, sent.length * 2);
  for (const payload of sent) {
    from.send(payload);
    sendInFragments(from, payload);
  }
  const arrived = await arriving;
  for (const [index, payload] of sent.entries()) {
    for (const message of [arrived[2 * index], arrived[2 * index + 1]]) {
      expect(message?.binary).toBe(true);
      // Compared whole, not shown: a difference in a megabyte is unreadable.
      expect(message?.data.equals(payload)).toBe(true);
    }
  }
}

function sendInFragments(socket: WebSocket, payload: Buffer): void {
  const step = Math.ceil(payload.length / 3);
  for (let at = 0; at < payload.length; at += step) {
    const fin = at + step >= payload.length;
    socket.send(payload.subarray(at, at + step), { fin, binary: true });
  }
}

async function closeCleanly({ client, upstream }: Peers): Promise<void> {
  const closed = new Promise<number>((resolve) => client.once("close", resolve));
  const closedUpstream = new Promise<number>((resolve) => upstream.once("close", resolve));
  client.close(1000);
  expect(await closed).toBe(1000);
  expect(await closedUpstream).toBe(1000);
}

describe("with permessage-deflate", () => {
  it.each([
    { name: "with context takeover on both ends", takeover: true },
    { name: "without context takeover on either end", takeover: false },
  ])("relays messages of every size, whole and fragmented, $name", async ({ takeover }) => {
    const options = {
      threshold: 0,
      serverNoContextTakeover: !takeover,
      clientNoContextTakeover: !takeover,
    };
    const peers = await startPeers(options, options);
    expect(peers.client.extensions).toContain("permessage-deflate");
    expect(peers.upstream.extensions).toBe(peers.client.extensions);
    await expectByteExact(peers.client, peers.upstream);
    await expectByteExact(peers.upstream, peers.client);
    await closeCleanly(peers);
    const [record] = await gateway.recorded();
    expect(record?.messages).toEqual({
      clientToUpstream: SIZES.length * 4,
      upstreamToClient: SIZES.length * 4,
    });
    // What went over the wire was deflated, so less than what was said.
    const said = 4 * SIZES.reduce((sum, size) => sum + size, 0);
    expect(record?.bytes.clientToUpstream).toBeLessThan(said);
  });

  it("keeps text as text, and compressed beside uncompressed messages apart", async () => {
    const peers = await startPeers({ threshold: 100 }, { threshold: 100 });
    const texts = ["", "a", "ü€😀".repeat(10), "x".repeat(99), "y".repeat(70_000), "z"];
    const arriving = received(peers.upstream, texts.length);
    for (const text of texts) peers.client.send(text);
    expect((await arriving).map(({ data }) => data.toString())).toEqual(texts);
    await closeCleanly(peers);
  });

  it("takes over the window sizes that the ends have agreed on", async () => {
    const peers = await startPeers(
      { threshold: 0, clientMaxWindowBits: 10, serverMaxWindowBits: 11 },
      { threshold: 0 },
    );
    expect(peers.client.extensions).toContain("permessage-deflate");
    await expectByteExact(peers.client, peers.upstream);
    await expectByteExact(peers.upstream, peers.client);
    await closeCleanly(peers);
  });
});

describe("without permessage-deflate", () => {
  it.each([
    { who: "client", client: false, upstream: true },
    { who: "upstream", client: true, upstream: false },
  ])("relays messages as they are when the $who does not want it", async ({ client, upstream }) => {
    const peers = await startPeers(client, upstream);
    expect(peers.client.extensions).toBe("");
    expect(peers.upstream.extensions).toBe("");
    await expectByteExact(peers.client, peers.upstream);
    await expectByteExact(peers.upstream, peers.client);
    await closeCleanly(peers);
  });
});
