/** `websocket` from npm, as client and as server; a server echoes. It has no compression. */
import { createServer } from "node:http";
import websocket from "websocket";
import { closed, listening, obey, opened, ponged, received } from "./peer.mjs";

/** A server's own limit for a frame is 64 KiB, too little for messages that a client sends in one. */
const LIMITS = { maxReceivedFrameSize: 1024 * 1024, maxReceivedMessageSize: 1024 * 1024 };

obey({
  open({ url, subprotocols }) {
    const client = new websocket.client(LIMITS);
    client.on("connect", use);
    client.on("connectFailed", (error) => closed(1006, error.message));
    client.connect(url, subprotocols);
  },
  listen({ subprotocols }) {
    const httpServer = createServer();
    const server = new websocket.server({ httpServer, ...LIMITS });
    server.on("request", (request) => {
      const { requestedProtocols, origin } = request;
      const chosen = subprotocols.find((one) => requestedProtocols.includes(one));
      const connection = request.accept(chosen, origin);
      use(connection);
      connection.on("message", ({ utf8Data, binaryData }) =>
        connection.send(binaryData ?? utf8Data),
      );
    });
    httpServer.listen(0, "127.0.0.1", () => listening(httpServer));
  },
});

function use(connection) {
  connection.on("message", ({ type, utf8Data, binaryData }) =>
    received(binaryData ?? utf8Data, type === "binary"),
  );
  connection.on("pong", ponged);
  connection.on("error", (error) => console.error(error));
  connection.on("close", (code, reason) => closed(code, reason));
  opened(
    {
      // It makes fragments of 16 KiB by itself.
      send: (bytes, binary) => connection.send(binary ? bytes : bytes.toString()),
      ping: (payload) => connection.ping(payload),
      close: (code, reason) => connection.close(code, reason),
    },
    connection.protocol,
  );
}
