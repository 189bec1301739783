/** `ws`, as client and as server; a server echoes. */
import { WebSocket, WebSocketServer } from "ws";
import { closed, listening, obey, opened, ponged, received } from "./peer.mjs";

/** Everything is compressed. */
const COMPRESSION = { threshold: 0 };

obey({
  open({ url, subprotocols, deflate }) {
    const socket = new WebSocket(url, subprotocols, { perMessageDeflate: deflate && COMPRESSION });
    socket.on("open", () => use(socket));
    watch(socket);
  },
  listen({ subprotocols, deflate }) {
    const server = new WebSocketServer({
      host: "127.0.0.1",
      port: 0,
      perMessageDeflate: deflate && COMPRESSION,
      handleProtocols: (offered) => subprotocols.find((one) => offered.has(one)) ?? false,
    });
    server.on("listening", () => listening(server));
    server.on("connection", (socket) => {
      use(socket);
      watch(socket);
      socket.on("message", (data, binary) => socket.send(data, { binary }));
    });
  },
});

function use(socket) {
  opened(
    {
      send(bytes, binary, fragments) {
        const size = Math.ceil(bytes.length / fragments);
        for (let part = 0; part < fragments; part += 1) {
          const fin = part === fragments - 1;
          socket.send(bytes.subarray(part * size, (part + 1) * size), { binary, fin });
        }
      },
      ping: (payload) => socket.ping(payload),
      close: (code, reason) => (code === null ? socket.close() : socket.close(code, reason)),
    },
    socket.protocol,
  );
}

function watch(socket) {
  socket.on("message", (data, binary) => received(data, binary));
  socket.on("pong", ponged);
  socket.on("error", (error) => console.error(error));
  socket.on("close", (code, reason) => closed(code, reason));
}
