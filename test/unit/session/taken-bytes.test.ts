import { connect, createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { Leg } from "../../../src/session/leg.ts";
import { takenBytes } from "../../../src/session/taken-bytes.ts";
import { eventually } from "../../support/eventually.ts";
import { HIGH_WATER_MARK_BYTES } from "./fake-socket.ts";

/** More than the kernel keeps for a connection. */
const CHUNK = Buffer.alloc(64 * 2 ** 20);
const SOME_BYTES = 16 * 2 ** 20;

let server: Server;
let socket: Socket;
let peer: Socket;

beforeEach(async () => {
  server = createServer({ pauseOnConnect: true });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" ? (address?.port ?? 0) : 0;
  const accepted = new Promise<Socket>((resolve) => server.once("connection", resolve));
  socket = connect({ host: "127.0.0.1", port });
  peer = await accepted;
});

afterEach(async () => {
  socket.destroy();
  peer.destroy();
  await new Promise((resolve) => server.close(resolve));
});

/** Waits until the kernel takes nothing more. */
async function stuck(): Promise<number> {
  let before = -1;
  let same = 0;
  return await eventually(() => {
    const taken = takenBytes(socket);
    same = taken === before ? same + 1 : 0;
    before = taken;
    if (same < 20) throw new Error("still taking");
    return taken;
  });
}

/** The peer takes some of the chunk, and then nothing again. */
async function takeSome(): Promise<void> {
  peer.on("data", () => {
    if (peer.bytesRead >= SOME_BYTES) peer.pause();
  });
  peer.resume();
  await eventually(() => expect(peer.bytesRead).toBeGreaterThanOrEqual(SOME_BYTES));
  await stuck();
}

it("counts what the kernel has taken of a chunk that is not through yet", async () => {
  socket.write(CHUNK);
  const before = await stuck();
  expect(before).toBeLessThan(CHUNK.length);
  await takeSome();
  expect(takenBytes(socket)).toBeGreaterThan(before);
  expect(socket.writableLength).toBe(CHUNK.length);
});

it("lets a leg see that its peer takes something, long before a write is through", async () => {
  let nowMs = 1_000;
  const owner = {
    legRead: () => null,
    legBlocked: () => undefined,
    legDrained: () => undefined,
    legEnded: () => undefined,
    legGone: () => undefined,
  };
  const source = { socket, receiver: null };
  const leg = new Leg("client", source, owner, HIGH_WATER_MARK_BYTES, { now: () => nowMs });
  leg.write(CHUNK);
  await stuck();
  expect(leg.stalledSince(nowMs)).toBe(1_000);
  nowMs = 5_000;
  expect(leg.stalledSince(nowMs)).toBe(1_000);
  await takeSome();
  expect(leg.stalledSince(nowMs)).toBe(5_000);
});

it("still answers when the socket is closed", async () => {
  socket.destroy();
  await new Promise((resolve) => socket.once("close", resolve));
  expect(takenBytes(socket)).toBeLessThanOrEqual(0);
});
