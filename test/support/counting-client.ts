/** A client that sends 0, 1, 2, … and keeps what comes back; cheap enough for hundreds at once. */
import { connect, type Socket } from "node:net";
import { expect } from "vitest";
import { eventually } from "./eventually.ts";
import { buildFrame, closePayload, splitFrames } from "./frames.ts";
import { upgradeRequest } from "./raw-client.ts";

const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const TEXT = 0x1;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;

export class CountingClient {
  readonly path: string;
  readonly #socket: Socket;
  readonly opened: Promise<void>;
  /** Resolves with the end of TCP. */
  readonly ended: Promise<void>;
  /** When each number was sent. */
  readonly sentAt: number[] = [];
  /** Numbers in the order in which they came back. */
  readonly echoes: number[] = [];
  highestEcho = -1;
  /** What was seen of an end, in order: Closes and TCP. */
  readonly endings: string[] = [];
  /** Anything that should not have come. */
  readonly oddities: string[] = [];
  #bytes: Buffer = Buffer.alloc(0);
  #open: () => void = () => undefined;
  #isOpen = false;
  #hasClosed = false;

  constructor(port: number, path: string) {
    this.path = path;
    this.#socket = connect({ host: "127.0.0.1", port, noDelay: true });
    this.opened = new Promise((resolve) => {
      this.#open = resolve;
    });
    this.#socket.on("data", (chunk: Buffer) => this.#read(chunk));
    this.#socket.on("error", ({ message }) => this.endings.push(message));
    this.ended = new Promise((resolve) => {
      this.#socket.on("close", () => {
        this.endings.push("tcp");
        resolve();
      });
    });
    this.#socket.write(upgradeRequest({ path }), "latin1");
  }

  get sent(): number {
    return this.sentAt.length;
  }

  sendNext(): void {
    const payload = String(this.sent);
    this.sentAt.push(performance.now());
    this.#socket.write(buildFrame({ opcode: TEXT, mask: MASK, payload }));
  }

  leave(): void {
    this.#close(closePayload(1000));
  }

  destroy(): void {
    this.#socket.destroy();
  }

  #close(payload: Buffer): void {
    if (this.#hasClosed) return;
    this.#hasClosed = true;
    this.#socket.write(buildFrame({ opcode: CLOSE, mask: MASK, payload }));
  }

  #read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (!this.#isOpen) {
      const end = this.#bytes.indexOf("\r\n\r\n");
      if (end === -1) return;
      const head = this.#bytes.subarray(0, end).toString("latin1");
      if (!head.startsWith("HTTP/1.1 101 ")) this.oddities.push(head);
      this.#bytes = this.#bytes.subarray(end + 4);
      this.#isOpen = true;
      this.#open();
    }
    const { frames, rest } = splitFrames(this.#bytes);
    this.#bytes = rest;
    for (const { opcode, fin, payload } of frames) {
      if (opcode === CLOSE) {
        this.endings.push(`close ${payload.readUInt16BE(0)} ${payload.toString("utf8", 2)}`.trim());
        this.#close(payload);
      } else if (opcode === TEXT && fin) {
        const number = Number(payload.toString());
        this.echoes.push(number);
        this.highestEcho = Math.max(this.highestEcho, number);
      } else if (opcode === PING) {
        this.#socket.write(buildFrame({ opcode: PONG, mask: MASK, payload }));
      } else {
        this.oddities.push(`frame with opcode ${opcode}`);
      }
    }
  }
}

/** Waits until each client has had an echo of something that it has sent from now on. */
export async function everybodyIsServed(
  clients: readonly CountingClient[],
  limitMs: number,
): Promise<void> {
  const next = new Map(clients.map((client) => [client, client.sent]));
  await eventually(() => {
    const waiting = clients.filter((client) => client.highestEcho < (next.get(client) ?? 0));
    expect(waiting.slice(0, 5).map(({ path, endings }) => [path, endings])).toEqual([]);
  }, limitMs);
}
