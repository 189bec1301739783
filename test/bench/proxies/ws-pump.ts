/** What one would write first: a `ws` server whose every connection opens a `ws` client. */
import { createServer } from "node:http";
import { type RawData, WebSocket, WebSocketServer } from "ws";
import { serve, upstreamPort } from "./serve.ts";

const port = upstreamPort();
const server = createServer();
const gateway = new WebSocketServer({ server });

gateway.on("connection", (client, request) => {
  const upstream = new WebSocket(`ws://127.0.0.1:${port}${request.url ?? "/"}`);
  const early: { data: RawData; binary: boolean }[] = [];
  client.on("message", (data, binary) => {
    if (upstream.readyState === WebSocket.OPEN) upstream.send(data, { binary });
    else early.push({ data, binary });
  });
  upstream.on("open", () => {
    for (const { data, binary } of early.splice(0)) upstream.send(data, { binary });
  });
  upstream.on("message", (data, binary) => client.send(data, { binary }));
  client.on("close", () => upstream.close());
  upstream.on("close", () => client.close());
  client.on("error", () => upstream.terminate());
  upstream.on("error", () => client.terminate());
});

serve(server);
