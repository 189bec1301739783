import { connect, createServer, type Socket } from "node:net";
import { expect, it } from "vitest";
import { textAnswer, writeAnswer } from "../../../src/edge/http-answer.ts";

async function answered(write: (socket: Socket) => void, request: string): Promise<string> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => write(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const client = connect(port, "127.0.0.1");
  client.write(request);
  let text = "";
  client.on("data", (bytes: Buffer) => {
    text += bytes.toString("latin1");
  });
  await new Promise((resolve) => client.on("close", resolve));
  await new Promise((resolve) => server.close(resolve));
  return text;
}

it("writes status, headers, length and body, and closes", async () => {
  const answer = textAnswer(426, "caf\u00e9", { Upgrade: "websocket" });
  expect(await answered((socket) => writeAnswer(socket, answer), "x")).toBe(
    "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\nUpgrade: websocket\r\n" +
      "Content-Length: 6\r\nConnection: close\r\n\r\ncaf\u00c3\u00a9\n",
  );
});

it("has a reason for a status of which nobody knows", async () => {
  const answer = { status: 499, headerLines: "X: caf\u00e9\r\n", body: Buffer.alloc(0) };
  expect(await answered((socket) => writeAnswer(socket, answer), "x")).toBe(
    "HTTP/1.1 499 Unknown\r\nX: caf\u00e9\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
  );
});

it("reaches a peer that is still sending: no reset overtakes the answer", async () => {
  const answer = textAnswer(400, "no");
  const text = await answered((socket) => writeAnswer(socket, answer), "x".repeat(4 * 1024 * 1024));
  expect(text).toContain("400 Bad Request");
  expect(text.endsWith("no\n")).toBe(true);
});
