/**
 * A TCP hop that changes nothing and reads everything: what two WebSocket peers really said to each other,
 * where their own APIs tell only a part of it.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { FrameLog } from "./frame-log.ts";

const END_OF_HEAD = "\r\n\r\n";

/** What went over a connection in one direction. */
export class TappedDirection {
  /** Of the handshake, without the empty line; "": not whole yet. */
  head = "";
  /** Behind the handshake. */
  readonly log = new FrameLog();
  #bytes: Buffer = Buffer.alloc(0);

  add(chunk: Buffer): void {
    if (this.head !== "") {
      this.log.add(chunk);
      return;
    }
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const end = this.#bytes.indexOf(END_OF_HEAD);
    if (end === -1) return;
    this.head = this.#bytes.subarray(0, end).toString("latin1");
    this.log.add(this.#bytes.subarray(end + END_OF_HEAD.length));
  }

  header(name: string): string | null {
    const line = this.head
      .split("\r\n")
      .find((candidate) => candidate.toLowerCase().startsWith(`${name.toLowerCase()}:`));
    return line === undefined ? null : line.slice(name.length + 1).trim();
  }

  /** Payloads of the frames with this opcode. */
  payloads(opcode: number): Buffer[] {
    return this.log.frames.filter((frame) => frame.opcode === opcode).map(({ payload }) => payload);
  }
}

export class TappedConnection {
  readonly fromClient = new TappedDirection();
  readonly fromServer = new TappedDirection();
}

export class WireTap {
  /** Oldest first. */
  readonly connections: TappedConnection[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly port: number;

  private constructor(server: Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  /** Starts one on a free port, in front of `port`. */
  static async start(port: number): Promise<WireTap> {
    // An end of one direction is passed on as just that.
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const tap = new WireTap(server, address.port);
    server.on("connection", (client: Socket) => {
      const onward = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true });
      client.setNoDelay(true);
      const connection = new TappedConnection();
      tap.connections.push(connection);
      tap.#pass(client, onward, connection.fromClient);
      tap.#pass(onward, client, connection.fromServer);
    });
    return tap;
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** The only connection so far. */
  get only(): TappedConnection {
    const [connection] = this.connections;
    if (connection === undefined || this.connections.length > 1) {
      throw new Error(`${this.connections.length} connections`);
    }
    return connection;
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #pass(from: Socket, to: Socket, direction: TappedDirection): void {
    this.#sockets.add(from);
    from.on("data", (chunk: Buffer) => direction.add(chunk));
    from.pipe(to);
    from.on("error", () => to.resetAndDestroy());
    from.on("close", () => this.#sockets.delete(from));
  }
}
