/** The floor: two sockets piped into each other. No HTTP, no frames, no policy. */
import * as net from "node:net";
import { serve, upstreamPort } from "./serve.ts";

const port = upstreamPort();

serve(
  net.createServer({ noDelay: true }, (client) => {
    const upstream = net.connect({ host: "127.0.0.1", port, noDelay: true });
    client.pipe(upstream);
    upstream.pipe(client);
    client.on("error", () => upstream.destroy());
    upstream.on("error", () => client.destroy());
  }),
);
