/**
 * Upstream connections without a network, in place of `UpstreamSocket`: what becomes of each dial is up
 * to the test, and time is that of `vi.useFakeTimers()`. The dial itself, and its verdict, are real.
 */
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import type { UpstreamSocket } from "../../../src/upstream/upstream-socket.ts";
import { acceptFor } from "../../support/raw-upstream.ts";

class FakeTcp extends EventEmitter {
  request = "";
  destroyed = false;
  timer: NodeJS.Timeout | undefined;

  write(text: string): boolean {
    this.request += text;
    return true;
  }

  pause(): void {
    // Nothing comes by itself.
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    clearTimeout(this.timer);
    queueMicrotask(() => this.emit("close"));
  }
}

export class FakeUpstream implements UpstreamSocket {
  /** Every dial so far, oldest first. */
  static dials: FakeUpstream[] = [];
  /** Called with each dial, once it is under way; default: it stays without an answer. */
  static onDial: (dial: FakeUpstream) => void = () => undefined;

  receiver: UpstreamSocket["receiver"] = null;
  readonly port: number;
  /** On the test's clock. */
  readonly at = performance.now();
  readonly #tcp = new FakeTcp();

  constructor(_host: string, port: number) {
    this.port = port;
    FakeUpstream.dials.push(this);
    queueMicrotask(() => {
      if (!this.gone) FakeUpstream.onDial(this);
    });
  }

  static reset(): void {
    FakeUpstream.dials = [];
    FakeUpstream.onDial = () => undefined;
  }

  get socket(): Socket {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a dial uses of it is here
    return this.#tcp as unknown as Socket;
  }

  get gone(): boolean {
    return this.#tcp.destroyed;
  }

  /** What the backend has been sent. */
  get request(): string {
    return this.#tcp.request;
  }

  /** Does something with this dial later, unless it has been given up by then. */
  after(delayMs: number, what: (dial: FakeUpstream) => void): void {
    this.#tcp.timer = setTimeout(() => what(this), delayMs);
  }

  /** TCP stands; the answer is still to come. */
  connect(): void {
    this.#tcp.emit("connect");
  }

  accept(headers = ""): void {
    const key = /^Sec-WebSocket-Key: (\S+)/im.exec(this.request)?.[1] ?? "";
    this.answer(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Accept: ${acceptFor(key)}\r\n${headers}\r\n`,
    );
  }

  answer(text: string): void {
    this.connect();
    this.receiver?.received(Buffer.from(text, "latin1"));
  }

  busy(): void {
    this.answer("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
  }

  forbid(): void {
    this.answer("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
  }

  notFound(): void {
    this.answer("HTTP/1.1 404 None\r\nContent-Length: 0\r\n\r\n");
  }

  refuse(): void {
    this.#fail("ECONNREFUSED", "connect");
  }

  breakOff(): void {
    this.connect();
    this.#fail("ECONNRESET", "read");
  }

  end(): void {
    this.connect();
    this.#tcp.emit("end");
  }

  #fail(code: string, syscall: string): void {
    this.#tcp.emit("error", Object.assign(new Error(code), { code, syscall }));
    this.#tcp.destroy();
  }
}
