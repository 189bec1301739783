/** Listening on the first free port from a wished one on: a demo must start beside other programs. */
import type { Server } from "node:net";

const TRIES = 50;

/** The port in use. Rejects with the last error when `tries` ports in a row cannot be had. */
export async function listenNear(
  server: Server,
  host: string,
  port: number,
  tries: number = TRIES,
): Promise<number> {
  for (let tried = 1; ; tried++, port++) {
    try {
      return await listen(server, host, port);
    } catch (error) {
      if (!isTaken(error) || tried >= tries || port >= 65_535) throw error;
    }
  }
}

/** Whether trying another port may help. */
export function isTaken(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EADDRINUSE";
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error): void => {
      server.removeListener("listening", onListening);
      reject(error);
    };
    const onListening = (): void => {
      server.removeListener("error", onError);
      const address = server.address();
      resolve(typeof address === "object" && address !== null ? address.port : port);
    };
    server.once("error", onError);
    server.once("listening", onListening);
    server.listen({ host, port });
  });
}
