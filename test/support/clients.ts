/**
 * The two kinds of client that a behaviour is shown with: `ws`, as applications use it, and bare TCP.
 * Both answer a Close as they should and keep every frame that came.
 */
import type { IncomingMessage } from "node:http";
import { type ClientOptions, WebSocket } from "ws";
import type { Close } from "../../src/close/causes.ts";
import { eventually } from "./eventually.ts";
import { FrameLog } from "./frame-log.ts";
import { RawClient, type RawClientOptions } from "./raw-client.ts";

/** All that a client has seen of its end. */
export interface Ending {
  /** Close frames on the wire. */
  readonly closes: readonly Close[];
  readonly tornBytes: number;
  readonly tcp: "fin" | "reset";
  /** What the application is told; 1006 where no Close came. */
  readonly told: Close;
  /** What the library complained about. */
  readonly errors: readonly string[];
}

interface Client {
  readonly log: FrameLog;
  /** Resolves with the 101. */
  opened(): Promise<void>;
  /** Resolves when TCP has ended. */
  ended(): Promise<Ending>;
  sendText(text: string): void;
  sendClose(code: number, reason?: string): void;
}

export type OpenClient = (port: number, path?: string) => Client;

/** For `describe.each`. */
export const CLIENT_KINDS: readonly (readonly [name: string, open: OpenClient])[] = [
  ["a ws client", (port, path) => new LibraryClient(port, path)],
  ["a raw client", (port, path) => new PoliteRawClient(port, path)],
];

/** The ending that is promised: one whole Close frame, nothing torn, TCP ended in order. */
export function oneClose(code: number, reason = ""): Ending {
  const close = { code, reason };
  return { closes: [close], tornBytes: 0, tcp: "fin", told: close, errors: [] };
}

/** `options` are passed on to `ws`. */
export class LibraryClient implements Client {
  readonly log = new FrameLog();
  readonly socket: WebSocket;
  readonly #errors: string[] = [];
  #tcp: "fin" | "reset" | null = null;
  #told: Close | null = null;

  constructor(port: number, path = "/", options: ClientOptions = {}) {
    this.socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, {
      perMessageDeflate: false,
      ...options,
    });
    this.socket.on("upgrade", ({ socket }: IncomingMessage) => {
      // Not before `ws` listens too: a listener sets the bytes behind the 101 flowing.
      this.socket.once("open", () => socket.on("data", (chunk: Buffer) => this.log.add(chunk)));
      socket.on("error", () => {
        this.#tcp = "reset";
      });
      socket.on("close", () => {
        this.#tcp ??= "fin";
      });
    });
    this.socket.on("error", (error) => this.#errors.push(error.message));
    this.socket.on("close", (code, reason) => {
      this.#told = { code, reason: reason.toString() };
    });
  }

  opened(): Promise<void> {
    return eventually(() => {
      if (this.socket.readyState === WebSocket.CONNECTING) {
        throw new Error(`not open: ${this.#errors.join(", ")}`);
      }
    });
  }

  ended(): Promise<Ending> {
    return eventually(() => {
      const told = this.#told;
      if (told === null || this.#tcp === null) throw new Error("the client has not ended");
      const { closes, torn } = this.log;
      return { closes, tornBytes: torn.length, tcp: this.#tcp, told, errors: this.#errors };
    });
  }

  sendText(text: string): void {
    this.socket.send(text);
  }

  sendClose(code: number, reason = ""): void {
    if (code === 1005) this.socket.close();
    else this.socket.close(code, reason);
  }
}

export class PoliteRawClient implements Client {
  readonly raw: RawClient;
  #closeSent = false;

  constructor(port: number, path = "/", options: RawClientOptions = {}) {
    this.raw = new RawClient(port, { path, ...options });
    this.raw.socket.on("data", () => this.#answerClose());
  }

  get log(): FrameLog {
    return this.raw.log;
  }

  async opened(): Promise<void> {
    const status = await this.raw.answered();
    if (status !== 101) throw new Error(`answered with ${status}`);
  }

  async ended(): Promise<Ending> {
    const tcp = await this.raw.ended();
    const { closes, torn } = this.log;
    const told = closes[0] ?? { code: 1006, reason: "" };
    return { closes, tornBytes: torn.length, tcp, told, errors: [] };
  }

  sendText(text: string): void {
    this.raw.sendText(text);
  }

  sendClose(code: number, reason = ""): void {
    this.#closeSent = true;
    if (code === 1005) this.raw.send({ opcode: 8 });
    else this.raw.sendClose(code, reason);
  }

  #answerClose(): void {
    const close = this.log.frames.find(({ opcode }) => opcode === 8);
    if (close === undefined || this.#closeSent) return;
    this.#closeSent = true;
    this.raw.send({ opcode: 8, payload: close.payload });
  }
}
