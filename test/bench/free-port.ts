/** Ports for programs that cannot choose one themselves, or must keep theirs over several lives. */
import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/**
 * Below the range that Linux chooses from by itself (ip_local_port_range): nobody else on a busy machine is
 * given such a port before its program binds it, or while that is down.
 */
const [FIRST_PORT, LAST_PORT] = [20_000, 29_999];
const ATTEMPTS = 100;

/** A port of 127.0.0.1 on which nobody listens. */
export async function freePort(): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    const port = randomInt(FIRST_PORT, LAST_PORT + 1);
    if (await isFree(port)) return port;
    if (attempt === ATTEMPTS) throw new Error(`no free port of ${ATTEMPTS}`);
  }
}

function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
