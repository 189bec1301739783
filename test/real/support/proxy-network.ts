/**
 * The same faults without packets, where the machine allows no namespaces: each link is a TCP proxy in the
 * test's process. A link that is down holds what comes, FIN included, as a kernel would that gets no
 * acknowledgement; but it accepts connections, so that a dial waits for the answer only.
 */
import { connect, createServer, type Server, type Socket } from "node:net";
import { GatewayProcess } from "../../support/gateway-process.ts";
import type { Link, LinkCounts, Listening, Network, Path } from "./network.ts";

/** What one direction holds before it stops reading, as the buffers on a real way would. */
const HELD_BYTES = 32 * 1024;
/** A slowed link passes a piece on about so often. */
const PIECES_PER_SECOND = 10;

export class ProxyNetwork implements Network {
  readonly #servers: Server[] = [];
  readonly #links: ProxyLink[] = [];

  async openPath(): Promise<Path> {
    const path = new ProxyPath(this.#servers);
    this.#links.push(path.client, path.upstream);
    return path;
  }

  async close(): Promise<void> {
    for (const link of this.#links) link.cut();
    await Promise.all(
      this.#servers.map((server) => new Promise((resolve) => server.close(resolve))),
    );
  }
}

class ProxyPath implements Path {
  readonly client = new ProxyLink();
  readonly upstream = new ProxyLink();
  readonly #servers: Server[];
  #port = 0;

  constructor(servers: Server[]) {
    this.#servers = servers;
  }

  async startGateway(yaml: string): Promise<GatewayProcess> {
    const gateway = await GatewayProcess.start(yaml);
    this.#port = await this.#proxyTo(gateway.port, this.client);
    return gateway;
  }

  async connect(): Promise<Socket> {
    return connect({ host: "127.0.0.1", port: this.#port, noDelay: true });
  }

  async listen(where: "far" | "near"): Promise<Listening> {
    const server = createServer();
    const own = await portOf(server);
    const port = where === "far" ? await this.#proxyTo(own, this.upstream) : own;
    return { server, url: `ws://127.0.0.1:${port}` };
  }

  async #proxyTo(port: number, link: ProxyLink): Promise<number> {
    const server = createServer({ allowHalfOpen: true, noDelay: true }, (near) => {
      const far = connect({ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true });
      link.join(near, far);
    });
    this.#servers.push(server);
    return await portOf(server);
  }
}

async function portOf(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

class ProxyLink implements Link {
  readonly #sockets = new Set<Socket>();
  #waiting: (() => void)[] = [];
  #isUp = true;
  delayMs = 0;
  bytesPerSecond = 0;
  segmentBytes = 0;
  pieces = 0;

  async delay(ms: number): Promise<void> {
    this.delayMs = ms;
  }

  lose(): Promise<void> {
    return Promise.reject(new Error("a TCP proxy loses nothing"));
  }

  async down(): Promise<void> {
    this.#isUp = false;
  }

  async up(): Promise<void> {
    this.#isUp = true;
    for (const goOn of this.#waiting.splice(0)) goOn();
  }

  async rate(bytesPerSecond: number): Promise<void> {
    this.bytesPerSecond = bytesPerSecond;
  }

  async segment(bytes: number): Promise<void> {
    this.segmentBytes = bytes;
  }

  async counts(): Promise<LinkCounts> {
    return { carried: this.pieces, lost: 0 };
  }

  join(near: Socket, far: Socket): void {
    this.#sockets.add(near).add(far);
    void new Way(this, near, far).run();
    void new Way(this, far, near).run();
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
    void this.up();
  }

  /** Resolves at once unless the link is down. */
  async whenUp(): Promise<void> {
    while (!this.#isUp) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  /** How much may be written at once. */
  get pieceBytes(): number {
    if (this.segmentBytes > 0) return this.segmentBytes;
    if (this.bytesPerSecond === 0) return HELD_BYTES;
    return Math.max(1, Math.floor(this.bytesPerSecond / PIECES_PER_SECOND));
  }
}

/** One direction of one connection. */
class Way {
  readonly #link: ProxyLink;
  readonly #source: Socket;
  readonly #target: Socket;
  /** What has come, and when it is due; null: FIN, "reset": RST. */
  readonly #held: { readonly dueAt: number; readonly bytes: Buffer | null | "reset" }[] = [];
  #heldBytes = 0;
  #arrived: () => void = () => undefined;

  constructor(link: ProxyLink, source: Socket, target: Socket) {
    this.#link = link;
    this.#source = source;
    this.#target = target;
    source.on("data", (bytes: Buffer) => this.#hold(bytes));
    source.on("end", () => this.#hold(null));
    source.on("error", () => this.#hold("reset"));
    source.on("close", () => this.#hold(null));
  }

  async run(): Promise<void> {
    while (true) {
      const next = this.#held.shift();
      if (next === undefined) {
        if (this.#source.destroyed && this.#target.destroyed) return;
        await new Promise<void>((resolve) => {
          this.#arrived = resolve;
        });
        continue;
      }
      await lasts(next.dueAt - performance.now());
      await this.#link.whenUp();
      if (next.bytes === "reset") this.#target.resetAndDestroy();
      else if (next.bytes === null) this.#target.end();
      else await this.#pass(next.bytes);
    }
  }

  #hold(bytes: Buffer | null | "reset"): void {
    this.#held.push({ dueAt: performance.now() + this.#link.delayMs, bytes });
    if (bytes instanceof Buffer) this.#heldBytes += bytes.length;
    if (this.#heldBytes >= HELD_BYTES) this.#source.pause();
    this.#arrived();
  }

  async #pass(bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      await this.#link.whenUp();
      const { bytesPerSecond, pieceBytes } = this.#link;
      const piece = bytes.subarray(at, at + pieceBytes);
      at += piece.length;
      await this.#write(piece);
      const restMs = bytesPerSecond > 0 ? (piece.length / bytesPerSecond) * 1000 : 0;
      // No timer is that short. Each piece goes on its way alone all the same.
      if (restMs < 1) await new Promise((resolve) => setImmediate(resolve));
      else await lasts(restMs);
    }
    this.#heldBytes -= bytes.length;
    if (this.#heldBytes < HELD_BYTES) this.#source.resume();
  }

  async #write(piece: Buffer): Promise<void> {
    const target = this.#target;
    this.#link.pieces += 1;
    if (target.destroyed || target.write(piece)) return;
    await new Promise<void>((resolve) => {
      target.once("drain", resolve);
      target.once("close", resolve);
    });
  }
}

async function lasts(ms: number): Promise<void> {
  if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
}
