/** `@fastify/http-proxy` with its WebSocket support switched on and nothing else. */
import httpProxy from "@fastify/http-proxy";
import { fastify } from "fastify";
import { announce, boundPort, upstreamPort } from "./serve.ts";

const app = fastify();
await app.register(httpProxy, { upstream: `http://127.0.0.1:${upstreamPort()}`, websocket: true });
await app.listen({ port: 0, host: "127.0.0.1" });
announce(boundPort(app.server));
