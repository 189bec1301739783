/** A `ws` client with permessage-deflate, for messages whose echoes are compared byte for byte. */
import { expect } from "vitest";
import { type ClientOptions, WebSocket } from "ws";
import { eventually } from "./eventually.ts";

export interface Message {
  readonly data: Buffer;
  readonly binary: boolean;
}

type LibraryOptions = NonNullable<ClientOptions["perMessageDeflate"]>;

/** The last two are what the library sets by itself; its types ask for them. */
const EVERYTHING: LibraryOptions = { threshold: 0, isServer: false, maxPayload: 0 };

/** A `ws` client that compresses everything and keeps what comes back. */
export class DeflateClient {
  readonly socket: WebSocket;
  readonly echoes: Message[] = [];
  readonly endings: number[] = [];

  /** `unaware`: it is not shown `client_no_context_takeover`. */
  constructor(url: string, unaware: boolean) {
    this.socket = new WebSocket(url, {
      perMessageDeflate: EVERYTHING,
      // A relayed long frame comes in many fragments.
      maxFragments: 0,
      maxBufferedChunks: 0,
    });
    this.socket.on("error", () => undefined);
    this.socket.on("close", (code) => this.endings.push(code));
    this.socket.on("message", (data, binary) => {
      if (!Buffer.isBuffer(data)) throw new Error("not a Buffer");
      this.echoes.push({ data, binary });
    });
    if (unaware) {
      this.socket.on("upgrade", ({ headers }) => {
        const name = "sec-websocket-extensions";
        headers[name] = headers[name]?.replace("; client_no_context_takeover", "");
      });
    }
  }

  async opened(): Promise<void> {
    await eventually(() => expect(this.socket.readyState).toBe(WebSocket.OPEN));
    expect(this.socket.extensions).toContain("permessage-deflate");
  }

  send({ data, binary }: Message, fragments: number): void {
    const size = Math.ceil(data.length / fragments);
    for (let at = 0; at < data.length; at += size) {
      const fin = at + size >= data.length;
      this.socket.send(data.subarray(at, at + size), { binary, fin });
    }
  }

  /** Waits for the echoes of exactly these messages, in order, and forgets them. */
  async echoed(messages: readonly Message[]): Promise<void> {
    await eventually(() => {
      expect(this.endings).toEqual([]);
      expect(this.echoes.length).toBeGreaterThanOrEqual(messages.length);
    }, 20_000);
    expectSame(this.echoes.splice(0), messages);
  }
}

export function expectSame(got: readonly Message[], expected: readonly Message[]): void {
  const [sizes, kinds] = [sizesOf(got), got.map(({ binary }) => binary)];
  expect(sizes).toEqual(sizesOf(expected));
  expect(kinds).toEqual(expected.map(({ binary }) => binary));
  const wrong = got.filter(({ data }, i) => expected[i]?.data.equals(data) !== true);
  expect(sizesOf(wrong)).toEqual([]);
}

const sizesOf = (messages: readonly Message[]): number[] => messages.map(({ data }) => data.length);
