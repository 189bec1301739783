/** `http-proxy` (by its maintained successor) in `ws` mode, wired as its documentation shows. */
import { createServer } from "node:http";
import { createProxyServer } from "http-proxy";
import { serve, upstreamPort } from "./serve.ts";

const proxy = createProxyServer({ target: `http://127.0.0.1:${upstreamPort()}`, ws: true });
// Peers that vanish are part of the load; without a listener the first one would end the process.
proxy.on("error", () => {});

const server = createServer((request, response) => proxy.web(request, response));
server.on("upgrade", (request, socket, head) => proxy.ws(request, socket, head));
serve(server);
