/** The short form of the soak: after many sessions that ended in every way, everything is as before. */
import { afterEach, beforeEach, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { LightClient, LightUpstream } from "../support/light-peers.ts";

const CYCLES = 2_000;
const AT_ONCE = 50;

let upstream: LightUpstream;
let gateway: TestGateway;

beforeEach(async () => {
  upstream = await LightUpstream.start({
    onRequest: (accept, socket, path) => {
      if (path === "/reset") socket.resetAndDestroy();
      else if (path === "/forbidden") socket.end("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
      else if (path !== "/silent") accept();
    },
    onMessage: (socket, payload) => {
      if (payload.toString() === "reset") socket.resetAndDestroy();
      else if (payload.toString() === "end") socket.end();
      else if (payload.toString() === "close") socket.write(Buffer.from([0x88, 2, 0x0f, 0xa1]));
      else if (payload.toString() === "rsv") socket.write(Buffer.from([0xb1, 0]));
    },
  });
  gateway = await startGateway(
    onePool(
      [upstream.url],
      "retry: { connect: { attempts: 1 } }\nlimits: { maxMessageSize: 100 }\n",
    ),
  );
});

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

interface Ending {
  readonly path?: string;
  readonly cause: string;
  /** What happens in the session once it is open; default: only the handshake counts. */
  readonly act?: (client: LightClient) => void;
  /** What happens as soon as the handshake has been sent. */
  readonly early?: (client: LightClient) => void;
}

const ENDINGS: readonly Ending[] = [
  { cause: "clientClosed", act: (client) => client.leave() },
  { cause: "clientLost", act: (client) => client.socket.resetAndDestroy() },
  { cause: "clientLost", act: (client) => client.socket.end() },
  { cause: "clientProtocolError", act: (client) => client.socket.write(Buffer.from([0x81, 0])) },
  { cause: "messageTooBig", act: (client) => client.sendText("x".repeat(101)) },
  { cause: "upstreamLost", act: (client) => client.sendText("reset") },
  { cause: "upstreamLost", act: (client) => client.sendText("end") },
  { cause: "upstreamClosed", act: (client) => client.sendText("close") },
  { cause: "upstreamProtocolError", act: (client) => client.sendText("rsv") },
  { cause: "upstreamUnreachable", path: "/reset" },
  { cause: "upstreamRejected", path: "/forbidden" },
  {
    cause: "clientLost",
    path: "/silent",
    early: (client) => client.socket.once("connect", () => client.socket.end()),
  },
];

async function cycle({ cause, path, act, early }: Ending): Promise<void> {
  const client = new LightClient(gateway.port, path === undefined ? {} : { path });
  early?.(client);
  const outcome = await client.outcome;
  if (act !== undefined && outcome !== "open") throw new Error(`${cause}: not open`);
  act?.(client);
  await client.ended;
}

/** What keeps a process alive, by kind. */
function resources(): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const kind of process.getActiveResourcesInfo()) {
    if (/TCP|Pipe|Timeout|Immediate|FSReq/.test(kind)) counts[kind] = (counts[kind] ?? 0) + 1;
  }
  return counts;
}

it("leaves no session, slot, place, timer or socket behind after 2,000 sessions with every kind of end", async () => {
  const before = resources();
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < CYCLES) {
      const ending = ENDINGS[next % ENDINGS.length];
      next += 1;
      if (ending !== undefined) await cycle(ending);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));

  await eventually(() => {
    const status = gateway.gateway.status();
    expect([status.sessions, gateway.slots, gateway.gateway.placesTaken]).toEqual([0, 0, 0]);
  });
  await eventually(() => expect(upstream.sockets.size).toBe(0));
  // The wheel's interval is among these timers, and it stops when its last entry has gone.
  // Vitest had a timer of its own when the test began, and need not have one now.
  await eventually(() => {
    const more = Object.entries(resources()).filter(([name, count]) => count > (before[name] ?? 0));
    expect(more).toEqual([]);
  });

  // The newest records are enough to see that each end was what it was meant to be.
  const kinds = new Set(gateway.records.map(({ cause }) => cause));
  expect(kinds).toEqual(new Set(ENDINGS.map(({ cause }) => cause)));
  const ended = (await gateway.gateway.metrics()).text
    .split("\n")
    .filter((line) => /^softclose_(session_ends|refusals)_total\{/.test(line))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" "))), 0);
  expect(ended).toBe(CYCLES);
  expect(gateway.lines.filter(({ level }) => level === "error")).toEqual([]);
}, 30_000);
