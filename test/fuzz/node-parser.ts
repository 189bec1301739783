/** Node's own HTTP parser without a network: what it makes of the bytes of a request or of an answer. */
import { createServer, request as httpRequest, type IncomingMessage, type Server } from "node:http";
import { Duplex } from "node:stream";

class MemorySocket extends Duplex {
  override _read(): void {
    // Bytes come when the test has them.
  }

  override _write(_chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    done();
  }
}

export interface ReadRequest {
  readonly request: IncomingMessage;
  /** What came behind the head of an upgrade; null: it was none. */
  readonly behind: Buffer | null;
}

/** Reads requests as a server that serves upgrades. */
export class RequestReader {
  readonly #server: Server = createServer();
  #read: ReadRequest | null = null;

  constructor() {
    this.#server.on("upgrade", (request: IncomingMessage, _socket: Duplex, behind: Buffer) => {
      this.#read ??= { request, behind };
    });
    this.#server.on("request", (request) => {
      this.#read ??= { request, behind: null };
    });
    // The default writes an answer; nobody reads it here.
    this.#server.on("clientError", (_error, socket) => socket.destroy());
  }

  /** The first request in `bytes`; null: Node refuses it, or waits for more. */
  read(bytes: Buffer): ReadRequest | null {
    this.#read = null;
    const socket = new MemorySocket();
    socket.on("error", () => undefined);
    this.#server.emit("connection", socket);
    // In place of reading, which would take a turn of the event loop.
    socket.emit("data", bytes);
    socket.destroy();
    return this.#read;
  }
}

/** The first head of an answer, also of an informational one, or the code of Node's error. */
export type ReadAnswer =
  | { readonly status: number; readonly headers: readonly [string, string][] }
  | { readonly error: string };

export function readAnswerWithNode(bytes: Buffer): Promise<ReadAnswer> {
  return new Promise((resolve) => {
    const socket = new MemorySocket();
    const headers = { Connection: "Upgrade", Upgrade: "websocket" };
    const request = httpRequest({ createConnection: () => socket, headers });
    const done = (answer: ReadAnswer): void => {
      resolve(answer);
      request.destroy();
      socket.destroy();
    };
    const read = ({ statusCode = 0, rawHeaders }: HeadOfAnswer): void =>
      done({ status: statusCode, headers: pairsOf(rawHeaders) });
    request.on("error", (error: NodeJS.ErrnoException) =>
      done({ error: error.code ?? error.name }),
    );
    request.on("information", read);
    request.on("response", read);
    request.on("upgrade", read);
    request.end();
    socket.push(bytes);
    socket.push(null);
  });
}

type HeadOfAnswer = Pick<IncomingMessage, "rawHeaders"> & { statusCode?: number | undefined };

export function pairsOf(rawHeaders: readonly string[]): [string, string][] {
  const pairs: [string, string][] = [];
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    pairs.push([rawHeaders[i] ?? "", rawHeaders[i + 1] ?? ""]);
  }
  return pairs;
}
