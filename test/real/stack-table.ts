/** The stacks, and where they differ: what each can be asked for, and what it makes of a Close that it gets. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Close } from "../../src/close/causes.ts";
import { type Need, PYTHON, pythonModule } from "../support/programs.ts";
import type { StackProgram } from "../support/stack.ts";

export interface StackFacts extends StackProgram {
  readonly needs: readonly Need[];
  readonly roles: readonly ("client" | "server")[];
  /** Which way it speaks permessage-deflate. */
  readonly deflate: "none" | "inflates" | "both";
  /** Whether it makes fragments (when told so, or by itself), sends pings, and sends an empty Close. */
  readonly can: {
    readonly fragment: boolean;
    readonly ping: boolean;
    readonly closeEmpty: boolean;
  };
  /** What it tells its user of an empty Close. */
  readonly emptyClose: { readonly code: number | null; readonly reason: string };
  /** What it tells its user in place of some codes; an unnamed reason is the one that came. */
  readonly misreads: Readonly<Record<number, Partial<Close>>>;
}

const EVERYTHING = { fragment: true, ping: true, closeEmpty: true };
const UNNAMED = { code: 1005, reason: "" };

/** What this version of Node needs to have a WebSocket of its own, if anything. */
const OWN_WEBSOCKET_FLAGS = "WebSocket" in globalThis ? [] : ["--experimental-websocket"];

const ALL: readonly StackFacts[] = [
  {
    name: "ws",
    ...node("ws.mjs"),
    needs: [],
    roles: ["client", "server"],
    deflate: "both",
    can: EVERYTHING,
    emptyClose: UNNAMED,
    misreads: {},
  },
  {
    name: "undici",
    ...node("undici.mjs"),
    needs: [],
    roles: ["client"],
    deflate: "inflates",
    can: { fragment: false, ping: true, closeEmpty: true },
    emptyClose: UNNAMED,
    misreads: {},
  },
  {
    name: "Node's own WebSocket",
    ...node(...OWN_WEBSOCKET_FLAGS, "undici.mjs", "own"),
    needs: [
      {
        name: "Node's own WebSocket",
        found: () =>
          OWN_WEBSOCKET_FLAGS.every((flag) => process.allowedNodeEnvironmentFlags.has(flag)),
      },
    ],
    roles: ["client"],
    deflate: "inflates",
    can: { fragment: false, ping: false, closeEmpty: true },
    emptyClose: UNNAMED,
    misreads: {},
  },
  {
    name: "faye-websocket",
    ...node("faye.mjs"),
    needs: [npmPackage("faye-websocket"), npmPackage("permessage-deflate")],
    roles: ["client", "server"],
    deflate: "both",
    can: { fragment: false, ping: true, closeEmpty: false },
    emptyClose: { code: 1000, reason: "" },
    misreads: { 1012: { code: 1002 }, 1013: { code: 1002 }, 1014: { code: 1002 } },
  },
  {
    name: "websocket (npm)",
    ...node("websocket-npm.mjs"),
    needs: [npmPackage("websocket")],
    roles: ["client", "server"],
    deflate: "none",
    can: { fragment: true, ping: true, closeEmpty: false },
    emptyClose: { code: 1006, reason: "Connection dropped by remote peer." },
    misreads: {},
  },
  {
    name: "websockets (Python)",
    ...python("python-websockets.py"),
    needs: [once(pythonModule("websockets"))],
    roles: ["client", "server"],
    deflate: "both",
    can: { fragment: true, ping: true, closeEmpty: false },
    emptyClose: UNNAMED,
    misreads: {},
  },
  {
    name: "autobahn (Python)",
    ...python("python-autobahn.py"),
    needs: [once(pythonModule("autobahn"))],
    roles: ["client", "server"],
    deflate: "both",
    can: EVERYTHING,
    emptyClose: { code: null, reason: "" },
    misreads: {
      1014: {
        code: 1006,
        reason:
          'connection was closed uncleanly ("I dropped the WebSocket TCP connection: invalid close code 1014")',
      },
    },
  },
];

export const CLIENTS = ALL.filter(({ roles }) => roles.includes("client"));
export const SERVERS = ALL.filter(({ roles }) => roles.includes("server"));

export interface Pair {
  readonly client: StackFacts;
  readonly server: StackFacts;
}

/** Each stack on either side, with `ws` on the other. */
export const PAIRS: readonly Pair[] = [
  ...CLIENTS.map((client) => ({ client, server: reference() })),
  ...SERVERS.filter(({ name }) => name !== reference().name).map((server) => ({
    client: reference(),
    server,
  })),
];

/** All others. */
export const OTHER_PAIRS: readonly Pair[] = CLIENTS.flatMap((client) =>
  SERVERS.map((server) => ({ client, server })),
).filter(({ client, server }) => client !== reference() && server !== reference());

/** What a stack tells its user of a Close that it gets. */
export function toldOf({ misreads }: StackFacts, close: Close): Close {
  return { ...close, ...misreads[close.code] };
}

function reference(): StackFacts {
  const [ws] = ALL;
  if (ws === undefined) throw new Error("no stacks");
  return ws;
}

function node(...args: readonly string[]): Pick<StackFacts, "command" | "args"> {
  return { command: process.execPath, args };
}

function python(script: string): Pick<StackFacts, "command" | "args"> {
  // -B: without bytecode files beside the sources.
  return { command: PYTHON, args: ["-B", script] };
}

function npmPackage(name: string): Need {
  const folder = fileURLToPath(new URL(`stacks/node_modules/${name}`, import.meta.url));
  return { name: `${name} (npm ci --prefix test/real/stacks)`, found: () => existsSync(folder) };
}

/** Asking Python takes a while, and every pair asks. */
function once({ name, found }: Need): Need {
  let answer: boolean | null = null;
  return {
    name,
    found: () => {
      answer ??= found();
      return answer;
    },
  };
}
