/** A WebSocket client over bare TCP, for what a library would never do. Answers nothing by itself. */
import { connect, type Socket } from "node:net";
import { eventually } from "./eventually.ts";
import { FrameLog } from "./frame-log.ts";
import { buildFrame, closePayload, type FrameSpec } from "./frames.ts";

export interface RawClientOptions {
  readonly path?: string;
  /** Header lines beside the ones of the handshake, or in place of them (by name). */
  readonly headers?: Readonly<Record<string, string>>;
  /** The whole request, where the handshake itself is the matter. */
  readonly request?: string;
  /** Written together with the request. */
  readonly early?: Uint8Array;
  readonly allowHalfOpen?: boolean;
}

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
/** Its accept, from RFC 6455 §1.3. */
export const SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);

export class RawClient {
  readonly socket: Socket;
  readonly log = new FrameLog();
  /** Head of the answer, without the empty line; null: none yet. */
  head: string | null = null;
  /** What came behind the head, as it came. */
  body: Buffer = Buffer.alloc(0);
  /** How TCP ended; null: it has not. */
  ending: "fin" | "reset" | null = null;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(port: number, options: RawClientOptions = {}) {
    this.socket = connect({
      host: "127.0.0.1",
      port,
      noDelay: true,
      allowHalfOpen: options.allowHalfOpen ?? false,
    });
    this.socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.socket.on("error", () => {
      this.ending = "reset";
    });
    this.socket.on("end", () => {
      this.ending ??= "fin";
    });
    this.socket.on("close", () => {
      this.ending ??= "fin";
    });
    const request = options.request ?? upgradeRequest(options);
    this.socket.write(
      Buffer.concat([Buffer.from(request, "latin1"), options.early ?? new Uint8Array()]),
    );
  }

  get status(): number | null {
    return this.head === null ? null : Number(this.head.split(" ")[1]);
  }

  header(name: string): string | null {
    const line = this.head
      ?.split("\r\n")
      .find((candidate) => candidate.toLowerCase().startsWith(`${name.toLowerCase()}:`));
    return line === undefined ? null : line.slice(name.length + 1).trim();
  }

  /** Waits for the answer's head. */
  answered(): Promise<number> {
    return eventually(() => {
      if (this.status === null) throw new Error(`no answer yet (ending: ${this.ending})`);
      return this.status;
    });
  }

  /** Waits for the end of TCP. */
  ended(): Promise<"fin" | "reset"> {
    return eventually(() => {
      if (this.ending === null) throw new Error("still connected");
      return this.ending;
    });
  }

  /** Masked, as a client must, unless the frame says otherwise. */
  send(frame: FrameSpec): void {
    this.socket.write(buildFrame({ mask: MASK, ...frame }));
  }

  sendText(text: string): void {
    this.send({ opcode: 1, payload: text });
  }

  sendClose(code: number, reason = ""): void {
    this.send({ opcode: 8, payload: closePayload(code, reason) });
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  #read(chunk: Buffer): void {
    if (this.head !== null) {
      this.body = Buffer.concat([this.body, chunk]);
      if (this.status === 101) this.log.add(chunk);
      return;
    }
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    const end = this.#bytes.indexOf("\r\n\r\n");
    if (end === -1) return;
    this.head = this.#bytes.subarray(0, end).toString("latin1");
    const rest = this.#bytes.subarray(end + 4);
    if (rest.length > 0) this.#read(rest);
  }
}

/** A correct upgrade request; a header given as "" is left out. */
export function upgradeRequest({ path = "/", headers = {} }: RawClientOptions): string {
  const all: Record<string, string> = {
    Host: "gateway.test",
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
    ...headers,
  };
  const lines = Object.entries(all)
    .filter(([, value]) => value !== "")
    .map(([name, value]) => `${name}: ${value}\r\n`);
  return `GET ${path} HTTP/1.1\r\n${lines.join("")}\r\n`;
}
