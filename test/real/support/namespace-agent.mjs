/**
 * Lives in a network namespace and opens there what the test asks for. A socket stays in the namespace in
 * which it was opened, whoever holds it: so it is handed over to the test, whose peers work as they do
 * everywhere. Ends with the test's process, and the namespace with it.
 */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";

const ORDERS = {
  /** Runs lines of `ip -batch`. */
  ip: async ({ program, lines }) => {
    execFileSync(program, ["-batch", "-"], { input: lines.join("\n") });
    return {};
  },
  sysctl: async ({ path, value }) => {
    writeFileSync(`/proc/sys/${path}`, value);
    return {};
  },
  connect: ({ host, port }) =>
    new Promise((resolve, reject) => {
      const socket = connect({ host, port, noDelay: true });
      socket.once("error", reject);
      socket.once("connect", () => resolve({ handle: socket }));
    }),
  listen: ({ host }) =>
    new Promise((resolve, reject) => {
      const server = createServer();
      server.once("error", reject);
      server.listen(0, host, () => resolve({ port: server.address().port, handle: server }));
    }),
  /** An HTTP GET, as the test itself has no way in. */
  get: async ({ url }) => ({ text: await (await fetch(url)).text() }),
};

async function obey({ id, order, ...details }) {
  try {
    const { handle, ...answer } = await ORDERS[order](details);
    // A server would go on accepting here, too.
    process.send({ id, answer }, handle, () => handle?.close?.());
  } catch (error) {
    process.send({ id, error: String(error) });
  }
}

process.on("message", (message) => void obey(message));
process.on("disconnect", () => process.exit());
process.send({ id: 0, answer: {} });
