/**
 * An echo backend that is made to be killed: `node journalling-backend.mjs PORT JOURNAL`. Each message
 * goes to the journal before it is echoed, and before any ping behind it is answered, so that neither
 * an echo nor a pong ever speaks of something that is not in there. A line is `path session resume message`.
 */
import { openSync, writeSync } from "node:fs";
import { WebSocketServer } from "ws";

const [port, journal] = process.argv.slice(2);
// A write to a file survives the writer, where a pipe's last bytes would wait in its event loop.
const file = openSync(journal, "a");
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), backlog: 4096 });

server.on("connection", (socket, { headers, url }) => {
  const from = [url, headers["softclose-session"], headers["softclose-resume"] ?? 0].join(" ");
  socket.on("error", () => undefined);
  socket.on("message", (data) => {
    // One Buffer: the library's default for what it hands out.
    if (!Buffer.isBuffer(data)) throw new Error("not a Buffer");
    const text = data.toString("latin1");
    writeSync(file, `${from} ${text}\n`);
    socket.send(text);
  });
});
server.on("listening", () => process.stdout.write(`${server.address().port}\n`));
