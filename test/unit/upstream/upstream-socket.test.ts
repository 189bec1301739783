import { once } from "node:events";
import { createServer, type Server, type Socket } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { KEEP, ReadBuffers, UpstreamSocket } from "../../../src/upstream/upstream-socket.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { eventually } from "../../support/eventually.ts";

let server: Server;
let upstream: UpstreamSocket;
let backend: Socket;
let read = "";

beforeEach(async () => {
  server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const accepted = once(server, "connection");
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  upstream = new UpstreamSocket("127.0.0.1", port, new ReadBuffers(new SlabPool()));
  read = "";
  upstream.receiver = {
    received: (chunk) => {
      read += chunk.toString();
      return KEEP;
    },
  };
  await once(upstream.socket, "connect");
  [backend] = await accepted;
});

afterEach(async () => {
  upstream.socket.destroy();
  backend.destroy();
  server.close();
  await once(server, "close");
});

it.each([
  ["write", () => upstream.socket.write("late")],
  [
    "write of several chunks",
    () => {
      upstream.socket.cork();
      upstream.socket.write("late");
      upstream.socket.write("too");
      upstream.socket.uncork();
    },
  ],
])(
  "reads what a backend has sent before it reset, even after a failed %s",
  async (_name, write) => {
    const errors: (string | undefined)[] = [];
    upstream.socket.on("error", ({ code }: NodeJS.ErrnoException) => errors.push(code));
    upstream.socket.pause();
    backend.write("last words");
    await eventually(() => expect(backend.writableLength).toBe(0));
    backend.resetAndDestroy();
    await once(backend, "close");
    write();
    await eventually(() => expect(upstream.socket.writableLength).toBe(0));
    upstream.socket.resume();
    await once(upstream.socket, "close");
    expect(read).toBe("last words");
    expect(upstream.socket.destroyed).toBe(true);
  },
);

it("tells of a reset that follows what was read", async () => {
  const failed = once(upstream.socket, "error");
  backend.resetAndDestroy();
  expect(await failed).toMatchObject([{ code: "ECONNRESET" }]);
});
