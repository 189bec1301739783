/**
 * A backend of the chaos run, as a process of its own: it plays the part that the path of each
 * handshake gives it, and reports every connection at its end. SIGTERM: it goes as a good server does,
 * with Close 1001 for everybody.
 */
import { createServer, type Socket } from "node:net";
import { buildFrame, closePayload } from "../support/frames.ts";
import { Random } from "../support/random.ts";
import { UpstreamPeer } from "../support/raw-upstream.ts";
import type { UpstreamPart } from "./story.ts";

/** What a backend knows of one connection when it ends. */
export interface UpstreamReport {
  /** The `Softclose-Session` of its handshake. */
  readonly session: string;
  /** How many upstreams the session had before. */
  readonly resume: number;
  /** Whole messages, up to the gateway's Close. */
  readonly received: number;
  readonly sent: number;
  /** The code of the gateway's Close, and that of its own that was no answer; 1005: an empty one. */
  readonly told: number | null;
  readonly closed: number | null;
  /** What was wrong with the gateway's frames; empty: nothing. */
  readonly fault: string;
}

const TEXT = 0x1;
const CLOSE = 0x8;
const PING = 0x9;
const PONG = 0xa;
const NO_STATUS = 1005;
const GOING_AWAY = 1001;

/** Longer than the connectTimeout of every pool. */
const HANG_MS = 20_000;
const SLOWEST_HANDSHAKE_MS = 400;
/** The same for all: they stay in order. */
const SLOW_ECHO_MS = 60;
const CHATTER_EVERY_MS = 50;
const CHATTER = Buffer.alloc(24_000, "chatter ");
/** Fills what kernels hold for a client within a second or two. */
const GUSH_EVERY_MS = 10;
const GUSH = Buffer.alloc(256_000, "chatter ");
/** What waits for the gateway: as much as any server would let pile up. */
const HIGH_WATER_MARK_BYTES = 1024 * 1024;
const TOO_BIG_BYTES = 1024 * 1024;

const reports: UpstreamReport[] = [];
const connections = new Set<Connection>();
const [port, seed, name = ""] = process.argv.slice(2);
const random = Random.of(Number(seed), "backend", name);

class Connection {
  readonly #peer: UpstreamPeer;
  readonly #part: UpstreamPart;
  readonly #after: number;
  readonly #code: number;
  readonly #resume: number;
  #isOpen = false;
  #received = 0;
  #sent = 0;
  #fragments: Buffer[] = [];
  #told: number | null = null;
  #closed: number | null = null;
  /** Nothing more may be written: a Close has gone out, or what no frame can follow. */
  #isSilent = false;
  #fault = "";
  #chatter: NodeJS.Timeout | undefined;

  constructor(peer: UpstreamPeer) {
    this.#peer = peer;
    const { pathname, searchParams } = new URL(peer.head.split(" ")[1] ?? "/", "ws://backend");
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the run's own paths
    const part = pathname.split("/")[2] as UpstreamPart;
    this.#resume = Number(peer.header("softclose-resume") ?? 0);
    this.#part = part === "resetsOnce" ? (this.#resume > 0 ? "echo" : "resets") : part;
    this.#after = Number(searchParams.get("after"));
    this.#code = Number(searchParams.get("code"));
    connections.add(this);
    peer.socket.on("data", () => this.#look());
    peer.socket.on("close", () => this.#over());
    this.#answer();
  }

  /** The process ends as it should. */
  goAway(): void {
    if (this.#isOpen) this.#close(GOING_AWAY);
    else this.#peer.end();
  }

  #answer(): void {
    if (this.#part === "rejects") {
      this.#peer.write(
        `HTTP/1.1 ${this.#code} No\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno`,
      );
      this.#peer.end();
    } else if (this.#part === "nonsense") {
      this.#nonsense();
    } else if (this.#part === "hangs") {
      setTimeout(() => this.#peer.reset(), HANG_MS).unref();
    } else if (this.#part === "slow") {
      setTimeout(() => this.#open(), random.int(0, SLOWEST_HANDSHAKE_MS));
    } else {
      this.#open();
    }
  }

  #open(): void {
    if (!this.#peer.socket.writable) return;
    this.#isOpen = true;
    this.#peer.accept();
    if (this.#part === "chatty") this.#chatters(CHATTER, CHATTER_EVERY_MS);
    if (this.#part === "gushes") this.#chatters(GUSH, GUSH_EVERY_MS);
    this.#act();
  }

  #chatters(message: Buffer, everyMs: number): void {
    this.#chatter = setInterval(() => {
      if (this.#peer.socket.writableLength < HIGH_WATER_MARK_BYTES) this.#send(message);
    }, everyMs);
  }

  #nonsense(): void {
    switch (random.int(0, 2)) {
      case 0:
        this.#peer.write("SSH-2.0-OpenSSH_9.2\r\n\r\n");
        this.#peer.end();
        break;
      case 1:
        this.#peer.accept({ "Sec-WebSocket-Accept": "bm90IHRoZSBhY2NlcHQ=" });
        break;
      default:
        this.#peer.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n");
    }
  }

  /** At the first read after `after` messages have come. */
  #act(): void {
    if (this.#received < this.#after || this.#isSilent) return;
    const { socket } = this.#peer;
    switch (this.#part) {
      case "closes":
        this.#close(this.#code);
        break;
      case "resets":
        this.#peer.reset();
        break;
      case "halfCloses":
        this.#peer.end();
        break;
      case "torn":
        socket.write(buildFrame({ opcode: TEXT, payload: "torn", announcedLength: 100 }));
        this.#isSilent = true;
        // The half frame first: a reset overtakes what is still to be sent.
        setImmediate(() => this.#peer.reset());
        break;
      case "garbage":
        socket.write(Buffer.from("f7ffffffffffffffffffffffff", "hex"));
        this.#isSilent = true;
        break;
      case "tooBig":
        this.#send(Buffer.alloc(TOO_BIG_BYTES, "x"));
        break;
      case "echo":
      case "slow":
      case "chatty":
      case "gushes":
      case "resetsOnce":
      case "rejects":
      case "nonsense":
      case "hangs":
        break;
    }
  }

  #look(): void {
    // Kept only until they are read: a run has many thousands.
    for (const { opcode, fin, payload, mask, raw } of this.#peer.log.frames.splice(0)) {
      if (mask === null) this.#fault ||= `a frame without a mask: ${raw.toString("hex", 0, 8)}`;
      if (this.#told !== null) this.#fault ||= `a frame behind the Close, opcode ${opcode}`;
      if (opcode === CLOSE) {
        this.#told = payload.length === 0 ? NO_STATUS : payload.readUInt16BE(0);
        this.#write({ opcode: CLOSE, payload: payload.subarray(0, 2) });
        this.#peer.end();
      } else if (opcode === PING) {
        this.#write({ opcode: PONG, payload });
      } else if (opcode < CLOSE) {
        this.#fragment(opcode, fin, payload);
      }
    }
  }

  #fragment(opcode: number, fin: boolean, payload: Buffer): void {
    if ((opcode === 0) !== this.#fragments.length > 0) {
      this.#fault ||= `fragments out of order, opcode ${opcode}`;
    }
    this.#fragments.push(payload);
    if (!fin) return;
    const message = Buffer.concat(this.#fragments);
    this.#fragments = [];
    this.#received += 1;
    const echo = (): void => this.#send(message);
    if (this.#part === "slow") setTimeout(echo, SLOW_ECHO_MS);
    else echo();
    this.#act();
  }

  #send(payload: Buffer): void {
    if (this.#write({ opcode: TEXT, payload })) this.#sent += 1;
  }

  #close(code: number): void {
    if (this.#isSilent) return;
    this.#closed = code;
    const payload = code === NO_STATUS ? "" : closePayload(code, code === this.#code ? "part" : "");
    this.#write({ opcode: CLOSE, payload });
    this.#isSilent = true;
  }

  #write(frame: { opcode: number; payload: Buffer | string }): boolean {
    const { socket } = this.#peer;
    if (this.#isSilent || socket.destroyed || !socket.writable) return false;
    socket.write(buildFrame(frame));
    return true;
  }

  #over(): void {
    clearInterval(this.#chatter);
    connections.delete(this);
    reports.push({
      session: this.#peer.header("softclose-session") ?? "",
      resume: this.#resume,
      received: this.#received,
      sent: this.#sent,
      told: this.#told,
      closed: this.#closed,
      fault: this.#fault,
    });
  }
}

function connected(socket: Socket): void {
  void new UpstreamPeer(socket, (peer) => {
    if (peer.header("upgrade") !== null) {
      void new Connection(peer);
      return;
    }
    // A probe.
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
    peer.end();
  });
}

const server = createServer({ noDelay: true }, connected);
server.listen({ host: "127.0.0.1", port: Number(port), backlog: 1024 }, () => {
  process.send?.({ port: Number(port) });
});

setInterval(() => {
  if (reports.length > 0) process.send?.({ reports: reports.splice(0) });
}, 100);

process.on("SIGTERM", () => {
  server.close();
  for (const connection of connections) connection.goAway();
  const left = setInterval(() => {
    if (connections.size > 0) return;
    clearInterval(left);
    process.send?.({ reports: reports.splice(0) }, () => process.exit());
  }, 10);
  // A gateway that does not answer is not waited for.
  setTimeout(() => process.exit(), 2_000).unref();
});
process.on("disconnect", () => process.exit());
