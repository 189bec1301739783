/** `faye-websocket`, as client and as server; a server echoes. */
import { createServer } from "node:http";
import WebSocket from "faye-websocket";
import deflateExtension from "permessage-deflate";
import { closed, listening, obey, opened, ponged, received } from "./peer.mjs";

obey({
  open({ url, subprotocols, deflate }) {
    use(new WebSocket.Client(url, subprotocols, optionsOf(deflate)));
  },
  listen({ subprotocols, deflate }) {
    const server = createServer();
    server.on("upgrade", (request, tcp, head) => {
      const socket = new WebSocket(request, tcp, head, subprotocols, optionsOf(deflate));
      use(socket);
      socket.on("message", ({ data }) => socket.send(data));
    });
    server.listen(0, "127.0.0.1", () => listening(server));
  },
});

function optionsOf(deflate) {
  return { extensions: deflate ? [deflateExtension] : [] };
}

function use(socket) {
  socket.on("open", () => opened(connectionOf(socket), socket.protocol));
  socket.on("message", ({ data }) => received(data, typeof data !== "string"));
  socket.on("error", ({ message }) => console.error(message));
  socket.on("close", ({ code, reason }) => closed(code, reason));
}

function connectionOf(socket) {
  return {
    send: (bytes, binary) => socket.send(binary ? bytes : bytes.toString()),
    ping: (payload) => socket.ping(payload, () => ponged(payload)),
    close: (code, reason) => socket.close(code, reason),
  };
}
