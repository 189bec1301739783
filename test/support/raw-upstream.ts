/** A backend over bare TCP, for what no WebSocket server would do. Answers nothing by itself. */
import { createHash } from "node:crypto";
import { createServer, type Server, type Socket } from "node:net";
import { eventually } from "./eventually.ts";
import { FrameLog } from "./frame-log.ts";
import { buildFrame, closePayload, type FrameSpec } from "./frames.ts";

/** What a backend does with a connection; called when the request's head is complete. */
export type Behaviour = (peer: UpstreamPeer) => void;

export class UpstreamPeer {
  readonly socket: Socket;
  readonly log = new FrameLog();
  /** Head of the request, without the empty line. */
  head = "";
  ending: "fin" | "reset" | null = null;
  #bytes: Buffer = Buffer.alloc(0);
  #onHead: Behaviour;
  #closeSent = false;

  constructor(socket: Socket, onHead: Behaviour) {
    this.socket = socket;
    this.#onHead = onHead;
    socket.setNoDelay(true);
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", () => {
      this.ending = "reset";
    });
    socket.on("end", () => {
      this.ending ??= "fin";
    });
    socket.on("close", () => {
      this.ending ??= "fin";
    });
  }

  header(name: string): string | null {
    const line = this.head
      .split("\r\n")
      .find((candidate) => candidate.toLowerCase().startsWith(`${name.toLowerCase()}:`));
    return line === undefined ? null : line.slice(name.length + 1).trim();
  }

  /** Writes a correct 101; a header given as "" is left out, others replace or add. */
  accept(headers: Readonly<Record<string, string>> = {}, behind?: Uint8Array): void {
    const all: Record<string, string> = {
      Upgrade: "websocket",
      Connection: "Upgrade",
      "Sec-WebSocket-Accept": acceptFor(this.header("sec-websocket-key") ?? ""),
      ...headers,
    };
    const lines = Object.entries(all)
      .filter(([, value]) => value !== "")
      .map(([name, value]) => `${name}: ${value}\r\n`);
    const head = `HTTP/1.1 101 Switching Protocols\r\n${lines.join("")}\r\n`;
    this.socket.write(Buffer.concat([Buffer.from(head, "latin1"), behind ?? new Uint8Array()]));
  }

  write(text: string): void {
    this.socket.write(text, "latin1");
  }

  /** Not masked, as a server must, unless the frame says otherwise. */
  send(frame: FrameSpec): void {
    if (frame.opcode === 8) this.#closeSent = true;
    this.socket.write(buildFrame(frame));
  }

  sendText(text: string): void {
    this.send({ opcode: 1, payload: text });
  }

  sendClose(code: number, reason: Uint8Array | string = ""): void {
    this.send({ opcode: 8, payload: closePayload(code, reason) });
  }

  /** From now on does as a server should: answers a Close (RFC 6455 §5.5.1) and ends TCP. */
  answersClose(): this {
    const answer = (): void => {
      const close = this.log.frames.find(({ opcode }) => opcode === 8);
      if (close === undefined) return;
      this.socket.removeListener("data", answer);
      if (!this.#closeSent) this.send({ opcode: 8, payload: close.payload });
      this.end();
    };
    this.socket.on("data", answer);
    answer();
    return this;
  }

  end(): void {
    this.socket.end();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  ended(): Promise<"fin" | "reset"> {
    return eventually(() => {
      if (this.ending === null) throw new Error("still connected");
      return this.ending;
    });
  }

  #read(chunk: Buffer): void {
    if (this.head !== "") {
      this.log.add(chunk);
      return;
    }
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const end = this.#bytes.indexOf("\r\n\r\n");
    if (end === -1) return;
    this.head = this.#bytes.subarray(0, end).toString("latin1");
    this.#onHead(this);
    const rest = this.#bytes.subarray(end + 4);
    if (rest.length > 0) this.log.add(rest);
  }
}

export class RawUpstream {
  readonly peers: UpstreamPeer[] = [];
  readonly #server: Server;
  readonly port: number;

  readonly #host: string;

  private constructor(server: Server, host: string, port: number) {
    this.#server = server;
    this.#host = host;
    this.port = port;
  }

  /**
   * `behaviour` default: a correct 101 and then silence. `onConnect`: before any byte of the request.
   * `at`: default any free port.
   */
  static async start(
    behaviour: Behaviour = (peer) => peer.accept(),
    onConnect: (socket: Socket) => void = () => undefined,
    { host = "127.0.0.1", port = 0 }: { readonly host?: string; readonly port?: number } = {},
  ): Promise<RawUpstream> {
    const server = createServer({ allowHalfOpen: false });
    await new Promise<void>((resolve, reject) => {
      server.on("error", reject);
      server.listen(port, host, resolve);
    });
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    const upstream = new RawUpstream(server, host, address.port);
    upstream.#serve(behaviour, onConnect);
    return upstream;
  }

  /** With a server that listens already; `url`: where the gateway finds it. */
  static over(server: Server, url: string, behaviour: Behaviour): RawUpstream {
    const { hostname, port } = new URL(url);
    const upstream = new RawUpstream(server, hostname, Number(port));
    upstream.#serve(behaviour, () => undefined);
    return upstream;
  }

  get url(): string {
    return `ws://${this.#host}:${this.port}`;
  }

  /** Waits for connection number `index`, with its request read. */
  peer(index = 0): Promise<UpstreamPeer> {
    return eventually(() => {
      const peer = this.peers[index];
      if (peer === undefined || peer.head === "") throw new Error(`no connection ${index} yet`);
      return peer;
    });
  }

  async stop(): Promise<void> {
    for (const { socket } of this.peers) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(behaviour: Behaviour, onConnect: (socket: Socket) => void): void {
    this.#server.on("connection", (socket: Socket) => {
      const peer = new UpstreamPeer(socket, behaviour);
      this.peers.push(peer);
      onConnect(socket);
    });
  }
}

export function acceptFor(key: string): string {
  return createHash("sha1").update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
}
