/**
 * nginx and HAProxy as hops on the way: their configurations, and each as a foreground process in a
 * temporary folder of its own, on a port of 127.0.0.1.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../bench/free-port.ts";
import { processTree } from "../../bench/process-stats.ts";
import { Processes, type RunningProcess } from "../../bench/processes.ts";
import { pathOf, program } from "../../support/programs.ts";

/** What the suites need: for `describe.skipIf(lacks(...HOP_PROGRAMS))`. */
export const HOP_PROGRAMS = [program("nginx"), program("haproxy"), program("setpriv")];

export interface HopOptions {
  /** The port of 127.0.0.1 that it goes to. */
  readonly to: number;
  /** How long a connection may be without a byte. Default: longer than any test. */
  readonly idleTimeout?: string;
  /** More directives outside of nginx's `http`, or in HAProxy's `global`. */
  readonly main?: string;
  /** More directives in nginx's `location`, or in HAProxy's `frontend`. */
  readonly rules?: string;
  /** More words on HAProxy's `server` line. */
  readonly server?: string;
}

export interface HopKind {
  readonly title: string;
  readonly program: "nginx" | "haproxy";
  readonly config: (port: number, folder: string, options: HopOptions) => string;
  /** What it keeps old tunnels for after a reload: 1 s. For `main`. */
  readonly lingersBriefly: string;
  /** What makes its master read the file again. */
  readonly reloadSignal: NodeJS.Signals;
}

export const NGINX: HopKind = {
  title: "nginx",
  program: "nginx",
  config: nginxConfig,
  lingersBriefly: "worker_shutdown_timeout 1s;",
  reloadSignal: "SIGHUP",
};

export const HAPROXY: HopKind = {
  title: "HAProxy",
  program: "haproxy",
  config: (port, _folder, options) => haproxyConfig(port, "http", options),
  lingersBriefly: "hard-stop-after 1s",
  reloadSignal: "SIGUSR2",
};

/** It does not look into what it forwards. */
export const HAPROXY_TCP: HopKind = {
  ...HAPROXY,
  title: "HAProxy in mode tcp",
  config: (port, _folder, options) => haproxyConfig(port, "tcp", options),
};

/** Those that understand HTTP. */
export const HTTP_HOPS: readonly HopKind[] = [NGINX, HAPROXY];
export const ALL_HOPS: readonly HopKind[] = [...HTTP_HOPS, HAPROXY_TCP];

export class Hop {
  readonly port: number;
  readonly #kind: HopKind;
  readonly #folder: string;
  #running: RunningProcess;
  #frozen = false;

  private constructor(kind: HopKind, port: number, folder: string, running: RunningProcess) {
    this.#kind = kind;
    this.port = port;
    this.#folder = folder;
    this.#running = running;
  }

  /** Resolves as soon as it accepts connections. Remember `stop` at the end. */
  static async start(kind: HopKind, options: HopOptions): Promise<Hop> {
    const folder = mkdtempSync(join(tmpdir(), "softclose-hop-"));
    // Where root runs the tests, nginx's workers are somebody else, who keeps large bodies here.
    chmodSync(folder, 0o755);
    const port = await freePort();
    writeFileSync(join(folder, "hop.conf"), kind.config(port, folder, options));
    try {
      return new Hop(kind, port, folder, await spawnHop(kind, folder, port));
    } catch (error) {
      rmSync(folder, { recursive: true });
      throw error;
    }
  }

  get url(): string {
    return `ws://127.0.0.1:${this.port}`;
  }

  /** Old workers keep their tunnels for as long as the configuration says; new ones take over. */
  reload(): void {
    this.#running.child.kill(this.#kind.reloadSignal);
  }

  /** Ended at once, with every tunnel, and started again on the same port. */
  async restart(): Promise<void> {
    await processes.end(this.#running);
    this.#running = await spawnHop(this.#kind, this.#folder, this.port);
  }

  /** From now on it takes connections and bytes as far as the kernel does so for it, and passes nothing on. */
  freeze(): void {
    this.#frozen = true;
    this.#signalAll("SIGSTOP");
  }

  /** Like a restart, but killed: nobody in it ends anything in order. */
  async crash(): Promise<void> {
    this.#signalAll("SIGKILL");
    this.#frozen = false;
    await this.restart();
  }

  async stop(): Promise<void> {
    // It could not hear that it is to end.
    if (this.#frozen) this.#signalAll("SIGCONT");
    await processes.end(this.#running);
    rmSync(this.#folder, { recursive: true });
  }

  #signalAll(signal: NodeJS.Signals): void {
    for (const pid of processTree(this.#running.pid)) process.kill(pid, signal);
  }
}

const processes = new Processes();

function spawnHop(kind: HopKind, folder: string, port: number): Promise<RunningProcess> {
  const file = join(folder, "hop.conf");
  // -W: with a master, whom HAProxy's reload needs; -db: in the foreground.
  const args =
    kind.program === "nginx"
      ? ["-p", folder, "-e", "stderr", "-c", file]
      : ["-W", "-db", "-f", file];
  // However the tests end, killed ones included, no hop outlives them.
  const mortal = ["--pdeathsig", "TERM", pathOf(kind.program), ...args];
  return processes.spawn(kind.title, pathOf("setpriv"), mortal, port);
}

/** As nginx's documentation has it for WebSockets, plain requests with keep-alive, and what others need. */
function nginxConfig(port: number, folder: string, options: HopOptions): string {
  const { to, idleTimeout = "60s", main = "", rules = "" } = options;
  const bodies = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `  ${name}_temp_path ${folder}/${name};`)
    .join("\n");
  return `daemon off;
worker_processes 1;
pid ${folder}/nginx.pid;
error_log stderr warn;
${main}
events { worker_connections 256; }
http {
  access_log off;
${bodies}
  client_max_body_size 0;
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  upstream next { server 127.0.0.1:${to} max_fails=0; keepalive 8; }
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://next;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout ${idleTimeout};
      proxy_send_timeout ${idleTimeout};
      ${rules}
    }
  }
}
`;
}

function haproxyConfig(port: number, mode: "http" | "tcp", options: HopOptions): string {
  const { to, idleTimeout = "60s", main = "", rules = "", server = "" } = options;
  return `global
  nbthread 1
  maxconn 256
  ${main}
defaults
  mode ${mode}
  ${mode === "http" ? "option forwardfor" : ""}
  retries 0
  timeout connect 5s
  timeout client ${idleTimeout}
  timeout server ${idleTimeout}
  timeout tunnel ${idleTimeout}
frontend public
  bind 127.0.0.1:${port}
  ${rules}
  default_backend next
backend next
  server next 127.0.0.1:${to} ${server}
`;
}
