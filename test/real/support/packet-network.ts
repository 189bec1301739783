/**
 * Real packets: the client, the gateway and the upstream have a network namespace each, without a name, so
 * that it is gone with the last process in it. `link-emulator.py` carries packets between them.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { Server, Socket } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { GatewayProcess, type Place } from "../../support/gateway-process.ts";
import { PYTHON, pathOf, which } from "../../support/programs.ts";
import { NamespaceAgent } from "./namespace-agent.ts";
import type { Link, LinkCounts, Listening, Network, Path, PathOptions } from "./network.ts";

const EMULATOR = fileURLToPath(new URL("link-emulator.py", import.meta.url));
/** Which packets are lost is the same in each run, as far as the packets are. */
const SEED = 5;

/** How a device and the route over it are set up, as `ip` calls it. */
interface Shape {
  readonly device: string;
  readonly route: string;
}

const WIDE: Shape = { device: "mtu 1500", route: "" };
/** No bursts: neither of the kernel's large segments nor of a new connection's ten first ones. */
const NARROW: Shape = { device: "mtu 576 gso_max_segs 1", route: "initcwnd 2" };
/** The least that the kernel allows: smallest, first and largest. */
const NARROW_SEND_BUFFER = "4608 4608 4608";

/** Whether this machine lets us have namespaces and TUN devices. */
export function canCarryPackets(): boolean {
  if (process.getuid?.() !== 0) return false;
  if (["ip", "unshare", "nsenter"].some((name) => which(name) === null)) return false;
  return spawnSync(pathOf("unshare"), ["--net", PYTHON, EMULATOR, "--probe"]).status === 0;
}

export class PacketNetwork implements Network {
  readonly #emulator: LinkEmulator;
  readonly #clients: NamespaceAgent;
  readonly #gateway: NamespaceAgent;
  readonly #upstreams: NamespaceAgent;

  private constructor(emulator: LinkEmulator, agents: Record<AgentName, NamespaceAgent>) {
    this.#emulator = emulator;
    this.#clients = agents.clients;
    this.#gateway = agents.gateway;
    this.#upstreams = agents.upstreams;
  }

  static async open(): Promise<PacketNetwork> {
    const [clients, gateway, upstreams] = await Promise.all([
      NamespaceAgent.start(),
      NamespaceAgent.start(),
      NamespaceAgent.start(),
    ]);
    return new PacketNetwork(new LinkEmulator(), { clients, gateway, upstreams });
  }

  async openPath({ hasNarrowClientLink = false }: PathOptions = {}): Promise<Path> {
    if (hasNarrowClientLink) await this.#gateway.setSysctl("net/ipv4/tcp_wmem", NARROW_SEND_BUFFER);
    const shape = hasNarrowClientLink ? NARROW : WIDE;
    const clientLink = await this.#emulator.open(this.#clients, this.#gateway, shape);
    const upstreamLink = await this.#emulator.open(this.#gateway, this.#upstreams, WIDE);
    return new PacketPath(clientLink, upstreamLink, this.#clients, this.#gateway, this.#upstreams);
  }

  async close(): Promise<void> {
    const agents = [this.#clients, this.#gateway, this.#upstreams];
    await Promise.all([this.#emulator.stop(), ...agents.map((agent) => agent.stop())]);
  }
}

type AgentName = "clients" | "gateway" | "upstreams";

class PacketPath implements Path {
  readonly client: PacketLink;
  readonly upstream: PacketLink;
  readonly #clients: NamespaceAgent;
  readonly #gateway: NamespaceAgent;
  readonly #upstreams: NamespaceAgent;
  #port = 0;

  constructor(
    client: PacketLink,
    upstream: PacketLink,
    clients: NamespaceAgent,
    gateway: NamespaceAgent,
    upstreams: NamespaceAgent,
  ) {
    this.client = client;
    this.upstream = upstream;
    this.#clients = clients;
    this.#gateway = gateway;
    this.#upstreams = upstreams;
  }

  async startGateway(yaml: string): Promise<GatewayProcess> {
    const place: Place = {
      command: [pathOf("nsenter"), `--net=/proc/${this.#gateway.pid}/ns/net`, "--"],
      get: (url) => this.#gateway.get(url),
    };
    const listeners = `listeners: [{ name: test, bind: "${this.client.farAddress}:0" }]\n`;
    const gateway = await GatewayProcess.start(listeners + yaml, [], place);
    this.#port = gateway.port;
    return gateway;
  }

  connect(): Promise<Socket> {
    return this.#clients.connect(this.client.farAddress, this.#port);
  }

  async listen(where: "far" | "near"): Promise<Listening> {
    const host = where === "far" ? this.upstream.farAddress : "127.0.0.1";
    const server = await (where === "far" ? this.#upstreams : this.#gateway).listen(host);
    return { server, url: `ws://${host}:${portOf(server)}` };
  }
}

function portOf(server: Server): number {
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}

interface LinkSettings {
  readonly delayMs?: number;
  readonly lossShare?: number;
  readonly isDown?: boolean;
  readonly bytesPerSecond?: number;
  readonly segmentBytes?: number;
}

class PacketLink implements Link {
  readonly farAddress: string;
  readonly #change: (settings: LinkSettings) => Promise<LinkCounts>;

  constructor(farAddress: string, change: (settings: LinkSettings) => Promise<LinkCounts>) {
    this.farAddress = farAddress;
    this.#change = change;
  }

  delay(ms: number): Promise<void> {
    return this.#set({ delayMs: ms });
  }

  lose(share: number): Promise<void> {
    return this.#set({ lossShare: share });
  }

  down(): Promise<void> {
    return this.#set({ isDown: true });
  }

  up(): Promise<void> {
    return this.#set({ isDown: false });
  }

  rate(bytesPerSecond: number): Promise<void> {
    return this.#set({ bytesPerSecond });
  }

  segment(bytes: number): Promise<void> {
    return this.#set({ segmentBytes: bytes });
  }

  counts(): Promise<LinkCounts> {
    return this.#change({});
  }

  async #set(settings: LinkSettings): Promise<void> {
    await this.#change(settings);
  }
}

class LinkEmulator {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  /** Who waits for an answer, in order. */
  readonly #waiting: ((counts: LinkCounts) => void)[] = [];
  #links = 0;

  constructor() {
    this.#child = spawn(pathOf("unshare"), ["--net", PYTHON, EMULATOR, pathOf("ip")], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    this.#exited = once(this.#child, "exit");
    const { stdin, stdout } = this.#child;
    if (stdin === null || stdout === null) throw new Error("no pipes");
    // It has ended: what is asked of it then fails by its own time limit.
    stdin.on("error", () => undefined);
    createInterface(stdout).on("line", (line) => this.#waiting.shift()?.(JSON.parse(line)));
  }

  /** A link between two namespaces, each with an address of its own on it. */
  async open(near: NamespaceAgent, far: NamespaceAgent, shape: Shape): Promise<PacketLink> {
    this.#links += 1;
    const link = this.#links;
    const [nearDevice, farDevice] = [`near${link}`, `far${link}`];
    await this.#order({
      link,
      open: { near: [nearDevice, near.pid], far: [farDevice, far.pid], seed: SEED + link },
    });
    const addressOf = (end: number): string => `10.${link}.0.${end}`;
    const setUp = (device: string, end: number): string[] => [
      `address add ${addressOf(end)}/30 dev ${device} noprefixroute`,
      `link set dev ${device} ${shape.device} up`,
      `route add ${addressOf(0)}/30 dev ${device} src ${addressOf(end)} ${shape.route}`,
    ];
    await Promise.all([near.ip(setUp(nearDevice, 1)), far.ip(setUp(farDevice, 2))]);
    return new PacketLink(addressOf(2), (set) => this.#order({ link, set }));
  }

  async stop(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }

  #order(order: object): Promise<LinkCounts> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      this.#child.stdin?.write(`${JSON.stringify(order)}\n`);
    });
  }
}
