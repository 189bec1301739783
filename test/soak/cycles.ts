/**
 * The eight kinds of session that the soak repeats: who ends it, how, with or without a message, what
 * the client must be told and which cause the gateway must record.
 */
import { ClientConnection } from "../bench/client-connection.ts";
import { maskedFrame, OPCODE_TEXT } from "../bench/frames.ts";

export const PATHS = {
  echo: "/echo",
  closeAtOnce: "/close-at-once",
  closeAfterMessage: "/close-after-message",
  resetAfterMessage: "/reset-after-message",
} as const;

/** An application's own code: only a relayed Close can carry it. */
export const BACKEND_CLOSE_CODE = 4001;

const CLIENT_CLOSE_CODE = 1000;
const UPSTREAM_LOST_CODE = 1014;

export interface CycleKind {
  title: string;
  path: string;
  sendsMessage: boolean;
  /** What the client does after the 101, or after the echo where it sends a message first. */
  clientThen: "closes" | "waits" | "fin" | "reset";
  /** The Close code that the client must receive; absent where it has left. */
  closeCode?: number;
  cause: string;
}

export const CYCLE_KINDS: readonly CycleKind[] = [
  {
    title: "client closes",
    path: PATHS.echo,
    sendsMessage: false,
    clientThen: "closes",
    closeCode: CLIENT_CLOSE_CODE,
    cause: "clientClosed",
  },
  {
    title: "message, client closes",
    path: PATHS.echo,
    sendsMessage: true,
    clientThen: "closes",
    closeCode: CLIENT_CLOSE_CODE,
    cause: "clientClosed",
  },
  {
    title: "backend closes",
    path: PATHS.closeAtOnce,
    sendsMessage: false,
    clientThen: "waits",
    closeCode: BACKEND_CLOSE_CODE,
    cause: "upstreamClosed",
  },
  {
    title: "message, backend closes",
    path: PATHS.closeAfterMessage,
    sendsMessage: true,
    clientThen: "waits",
    closeCode: BACKEND_CLOSE_CODE,
    cause: "upstreamClosed",
  },
  {
    title: "client ends TCP",
    path: PATHS.echo,
    sendsMessage: false,
    clientThen: "fin",
    cause: "clientLost",
  },
  {
    title: "message, client ends TCP",
    path: PATHS.echo,
    sendsMessage: true,
    clientThen: "fin",
    cause: "clientLost",
  },
  {
    title: "message, client resets",
    path: PATHS.echo,
    sendsMessage: true,
    clientThen: "reset",
    cause: "clientLost",
  },
  {
    title: "message, backend resets",
    path: PATHS.resetAfterMessage,
    sendsMessage: true,
    clientThen: "waits",
    closeCode: UPSTREAM_LOST_CODE,
    cause: "upstreamLost",
  },
];

/** No session of the soak takes longer than milliseconds; this is for one that hangs. */
const CYCLE_TIMEOUT_MS = 10_000;

const MESSAGE = maskedFrame(OPCODE_TEXT, Buffer.from("soak"));

/** Runs one session from connect to the end of TCP; resolves with what was wrong, if anything. */
export function runCycle(port: number, kind: CycleKind): Promise<string | undefined> {
  return new Promise((resolve) => {
    let stalled = false;
    const timer = setTimeout(() => {
      stalled = true;
      connection.abandon("reset");
    }, CYCLE_TIMEOUT_MS);
    const act = (): void => {
      if (kind.clientThen === "closes") connection.close(CLIENT_CLOSE_CODE);
      else if (kind.clientThen !== "waits") connection.abandon(kind.clientThen);
    };
    const connection = new ClientConnection(port, kind.path, {
      onOpen: () => {
        if (kind.sendsMessage) connection.write(MESSAGE);
        else act();
      },
      onMessages: act,
      onEnd: (_, error) => {
        clearTimeout(timer);
        resolve(verdict(kind, connection.closeCode, stalled, error));
      },
    });
  });
}

function verdict(
  kind: CycleKind,
  closeCode: number | undefined,
  stalled: boolean,
  error: Error | undefined,
): string | undefined {
  if (stalled) return `${kind.title}: not over in ${CYCLE_TIMEOUT_MS / 1000} s`;
  if (error !== undefined) return `${kind.title}: ${error.message}`;
  if (kind.closeCode === closeCode) return undefined;
  return `${kind.title}: got Close ${closeCode ?? "none"}, not ${kind.closeCode ?? "none"}`;
}
