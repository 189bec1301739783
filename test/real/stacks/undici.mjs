/** The WebSocket of `undici`, or with `own` as an argument the one that Node brings. A client only. */
import { subscribe } from "node:diagnostics_channel";
import { WebSocket as InstalledWebSocket, ping } from "undici";
import { closed, obey, opened, ponged, received } from "./peer.mjs";

const WebSocket = process.argv[2] === "own" ? globalThis.WebSocket : InstalledWebSocket;

subscribe("undici:websocket:pong", ({ payload }) => ponged(payload));

obey({
  // It offers compression always, and never compresses what it sends.
  open({ url, subprotocols }) {
    const socket = new WebSocket(url, subprotocols);
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => use(socket));
    socket.addEventListener("message", ({ data }) => received(data, typeof data !== "string"));
    socket.addEventListener("error", ({ error, message }) => console.error(message, error));
    socket.addEventListener("close", ({ code, reason, wasClean }) =>
      closed(code, reason, wasClean),
    );
  },
});

function use(socket) {
  opened(
    {
      send: (bytes, binary) => socket.send(binary ? bytes : bytes.toString()),
      ping: (payload) => ping(socket, Buffer.from(payload)),
      close: (code, reason) => (code === null ? socket.close() : socket.close(code, reason)),
    },
    socket.protocol,
  );
}
