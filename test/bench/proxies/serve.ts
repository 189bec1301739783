/** The common frame of the processes that the benchmark forks: argument, port, end. */
import type { Server } from "node:net";

/** The echo backend's port, the only argument of a proxy here. */
export function upstreamPort(): number {
  const port = Number(process.argv[2]);
  if (!Number.isInteger(port) || port <= 0) throw new Error("usage: PROXY UPSTREAM_PORT");
  return port;
}

/** Listens on a free loopback port and tells the benchmark which. */
export function serve(server: Server): void {
  server.listen({ port: 0, host: "127.0.0.1" }, () => {
    announce(boundPort(server));
  });
}

export function boundPort(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("not bound to a port");
  return address.port;
}

export function announce(port: number): void {
  process.on("disconnect", () => process.exit());
  // Nobody but the benchmark ends this process: Ctrl-C reaches the whole terminal group.
  process.on("SIGINT", () => {});
  process.send?.({ kind: "ready", port });
}
