/**
 * An echo backend with permessage-deflate that is made to be killed: `node deflating-backend.mjs PORT`.
 * Everything is compressed, and its own messages refer to earlier ones.
 */
import { WebSocketServer } from "ws";

const [port] = process.argv.slice(2);
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(port),
  perMessageDeflate: { threshold: 0 },
  // A relayed long frame comes in many fragments.
  maxFragments: 0,
  maxBufferedChunks: 0,
});

server.on("connection", (socket) => {
  socket.on("error", () => undefined);
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
server.on("listening", () => process.stdout.write(`${server.address().port}\n`));
