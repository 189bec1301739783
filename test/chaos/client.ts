/**
 * A client of the chaos run, on a bare socket: it reads strictly and remembers what it saw. What it does
 * is `client-parts.ts`.
 */
import { connect, type Socket } from "node:net";
import type { Close } from "../../src/close/causes.ts";
import { buildFrame, closePayload, type FrameSpec, splitFrames } from "../support/frames.ts";
import { upgradeRequest } from "../support/raw-client.ts";
import { addressOf, numberOf, pathOf, type Story } from "./story.ts";

/** What a client knows when its connection has ended. */
export interface ClientFacts {
  readonly startedAt: number;
  /** Null: no answer came. */
  status: number | null;
  close: Close | null;
  /** The code of its own Close; 1005: an empty one. */
  closed: number | null;
  /** Whether its Close answered the gateway's. */
  answered: boolean;
  /** Messages sent whole, before its own Close. */
  sent: number;
  /** All messages that came, and the numbers of those that are echoes, in order. */
  received: number;
  readonly echoes: number[];
  /** It went without a Close by itself, so that nobody owes it one. */
  vanished: boolean;
  /** It did not read for so long that the gateway had to give it up, or broke the protocol. */
  unreachable: boolean;
  /** Anything that should not have come. */
  readonly faults: string[];
  endedAt: number;
}

const TEXT = 0x1;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;
const NORMAL_CLOSURE = 1000;
const NO_STATUS = 1005;
const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d]);
const MAX_FRAME_BYTES = 2 * 1024 * 1024;

/** By when a session must have ended, whatever happens; the longest part takes half of it. */
const LIFE_LIMIT_MS = 40_000;

type State = "awaitingHead" | "open" | "ended";

export class ChaosClient {
  readonly story: Story;
  readonly facts: ClientFacts;
  /** Resolves to whether the session was opened. */
  readonly opened: Promise<boolean>;
  /** Resolves with the end of TCP. */
  readonly ended: Promise<void>;
  /** Whether pings are answered. */
  answersPings = true;
  readonly #socket: Socket;
  #state: State = "awaitingHead";
  #bytes: Buffer = Buffer.alloc(0);
  #fragments: Buffer[] = [];
  #settle: (isOpen: boolean) => void = () => undefined;
  #waiting = new Set<() => void>();

  /** `early`: sends that message and a Close together with its handshake. */
  constructor(port: number, story: Story, early: Buffer | null = null) {
    this.story = story;
    this.facts = {
      startedAt: performance.now(),
      status: null,
      close: null,
      closed: early === null ? null : NORMAL_CLOSURE,
      answered: false,
      sent: early === null ? 0 : 1,
      received: 0,
      echoes: [],
      vanished: false,
      unreachable: false,
      faults: [],
      endedAt: Number.NaN,
    };
    this.opened = new Promise((resolve) => {
      this.#settle = resolve;
    });
    const allowHalfOpen = story.client === "halfCloses";
    const socket = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen });
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
    socket.on("error", () => undefined);
    // By itself it would end its half only where `allowHalfOpen` is off.
    socket.on("end", () => socket.end());
    const limit = setTimeout(() => {
      this.facts.faults.push(`its session has not ended after ${LIFE_LIMIT_MS / 1000} s`);
      socket.destroy();
    }, LIFE_LIMIT_MS);
    this.ended = new Promise((resolve) => {
      socket.on("close", () => {
        clearTimeout(limit);
        this.#over();
        resolve();
      });
    });
    const headers = { "X-Forwarded-For": addressOf(story.index) };
    const request = upgradeRequest({ path: pathOf(story), headers });
    socket.write(request, "latin1");
    if (early !== null) {
      socket.write(buildFrame({ opcode: TEXT, mask: MASK, payload: early }));
      const payload = closePayload(NORMAL_CLOSURE);
      socket.write(buildFrame({ opcode: CLOSE, mask: MASK, payload }));
    }
  }

  /** Whether something may still be sent: it is open, and neither side has closed. */
  get isOpen(): boolean {
    const { close, closed, vanished } = this.facts;
    return this.#state === "open" && close === null && closed === null && !vanished;
  }

  /** Waits; false: the session has ended meanwhile, or is ending. */
  async pause(ms: number): Promise<boolean> {
    return await this.until(() => false, ms).then(() => this.isOpen);
  }

  /** Waits until `condition` holds, the session ends, or time is up. */
  until(condition: () => boolean, limitMs: number): Promise<void> {
    if (condition() || !this.isOpen) return Promise.resolve();
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve();
      };
      const look = (): void => {
        if (condition() || !this.isOpen) done();
      };
      const timer = setTimeout(done, limitMs);
      this.#waiting.add(look);
    });
  }

  /** Sends a whole message, if the session is open. */
  sendMessage(payload: Buffer): void {
    if (!this.isOpen) return;
    this.#write(buildFrame({ opcode: TEXT, mask: MASK, payload }));
    this.facts.sent += 1;
  }

  /** Sends a frame; `endsMessage`: it completes one. */
  sendFrame(frame: FrameSpec, endsMessage = false): void {
    this.sendBytes(buildFrame({ mask: MASK, ...frame }), endsMessage);
  }

  sendBytes(bytes: Uint8Array, endsMessage = false): void {
    if (!this.isOpen) return;
    this.#write(bytes);
    if (endsMessage) this.facts.sent += 1;
  }

  /** Whether the socket takes more without keeping it. */
  get takesMore(): boolean {
    return !this.#socket.writableNeedDrain;
  }

  /** What the client does, if the session is open; else nothing. */
  close(code: number): void {
    if (!this.isOpen) return;
    this.#sendClose(code, false);
  }

  stopReading(): void {
    this.#socket.pause();
  }

  readOn(): void {
    this.#socket.resume();
  }

  /** From here on it is owed nothing: it reads nothing, or has broken the protocol. */
  giveUp(): void {
    this.facts.unreachable = true;
  }

  vanish(how: "reset" | "fin"): void {
    if (this.#state === "ended") return;
    this.facts.vanished = true;
    // Node never tells of the end of a socket that is reset after its FIN has gone out.
    if (how === "reset" && !this.#socket.writableEnded) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  /** Its FIN; it goes on reading until the gateway ends TCP, too. */
  halfClose(): void {
    this.facts.vanished = true;
    this.#socket.end();
  }

  #write(bytes: Uint8Array): void {
    if (this.#socket.writable) this.#socket.write(bytes);
  }

  #sendClose(code: number, isAnswer: boolean): void {
    const { facts } = this;
    facts.closed = code;
    facts.answered = isAnswer;
    const payload = code === NO_STATUS ? "" : closePayload(code, isAnswer ? "" : "part");
    this.#write(buildFrame({ opcode: CLOSE, mask: MASK, payload }));
  }

  #read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length === 0 ? chunk : Buffer.concat([this.#bytes, chunk]);
    if (this.#state === "awaitingHead" && !this.#readHead()) return;
    if (this.facts.status !== 101) return;
    const { frames, rest } = splitFrames(this.#bytes);
    this.#bytes = rest;
    for (const frame of frames) {
      if (this.facts.close !== null)
        this.#fault(`a frame behind the Close, opcode ${frame.opcode}`);
      if (frame.mask !== null) this.#fault("a masked frame");
      if (frame.rsv1 || frame.rsv2 || frame.rsv3) this.#fault("a frame with RSV bits");
      if (frame.raw.length > MAX_FRAME_BYTES) this.#fault(`a frame of ${frame.raw.length} bytes`);
      if (frame.opcode >= CLOSE) this.#control(frame.opcode, frame.fin, frame.payload);
      else this.#fragment(frame.opcode, frame.fin, frame.payload);
    }
    this.#wake();
  }

  #readHead(): boolean {
    const end = this.#bytes.indexOf("\r\n\r\n");
    if (end === -1) return false;
    const head = this.#bytes.toString("latin1", 0, end);
    this.#bytes = this.#bytes.subarray(end + 4);
    this.#state = "open";
    this.facts.status = Number(head.split(" ")[1]);
    this.#settle(this.facts.status === 101);
    return true;
  }

  #control(opcode: number, fin: boolean, payload: Buffer): void {
    if (!fin || payload.length > 125) this.#fault(`a control frame of ${payload.length} bytes`);
    if (opcode === PING) {
      if (this.answersPings && this.isOpen) {
        this.#write(buildFrame({ opcode: PONG, mask: MASK, payload }));
      }
    } else if (opcode === CLOSE) {
      if (payload.length === 1) this.#fault("a Close of one byte");
      const code = payload.length === 0 ? NO_STATUS : payload.readUInt16BE(0);
      this.facts.close = { code, reason: payload.toString("utf8", 2) };
      if (this.facts.closed === null && !this.facts.unreachable) this.#sendClose(code, true);
    } else if (opcode !== PONG) {
      this.#fault(`a control frame with opcode ${opcode}`);
    }
  }

  #fragment(opcode: number, fin: boolean, payload: Buffer): void {
    if (opcode > 2) this.#fault(`a data frame with opcode ${opcode}`);
    if ((opcode === 0) !== this.#fragments.length > 0) {
      this.#fault(`fragments out of order, opcode ${opcode}`);
    }
    this.#fragments.push(payload);
    if (!fin) return;
    const message = Buffer.concat(this.#fragments);
    this.#fragments = [];
    this.facts.received += 1;
    if (message.toString("latin1", 0, 8) === "chatter ") return;
    if (/^x+$/.test(message.toString("latin1", 0, 16))) return;
    const number = numberOf(this.story.index, message);
    if (number === null) {
      this.#fault(`a message that is nobody's: ${message.toString("latin1", 0, 40)}`);
    } else {
      this.facts.echoes.push(number);
    }
  }

  #fault(what: string): void {
    this.facts.faults.push(what);
  }

  #wake(): void {
    for (const look of this.#waiting) look();
  }

  #over(): void {
    // Fragments without an end are a torn message, which may be; a frame without one may not.
    if (this.#bytes.length > 0 && this.facts.status === 101 && !this.facts.vanished) {
      if (!this.facts.unreachable) this.#fault(`a torn frame: ${this.#bytes.length} bytes`);
    }
    this.#state = "ended";
    this.facts.endedAt = performance.now();
    this.#settle(false);
    this.#wake();
  }
}
