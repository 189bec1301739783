/**
 * What is compared, and how each is started: softclose, four proxies on Node and, where they are
 * installed, nginx and HAProxy with one worker each. Nobody writes an access log.
 */
import { spawnSync } from "node:child_process";
import { accessSync, constants, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "./free-port.ts";
import { processTree } from "./process-stats.ts";
import type { Processes, RunningProcess } from "./processes.ts";

export interface StartedProxy {
  running: RunningProcess;
  port: number;
  /** The process and its children: an nginx is a master and a worker. */
  pids: number[];
}

export interface Contender {
  name: string;
  label: string;
  /** What `-v` says, for a program that may be absent; undefined where that does not apply. */
  version?: string;
  start(processes: Processes, upstreamPort: number, folder: string): Promise<StartedProxy>;
}

/** Between `freePort` and the bind another process may take the port; a second time is no bad luck. */
const START_ATTEMPTS = 3;

/** Debian keeps daemons outside a plain user's PATH. */
const DAEMON_FOLDERS = ["/usr/sbin", "/usr/local/sbin"];

const GATEWAY = fileURLToPath(new URL("../../../dist/main.js", import.meta.url));

export const ALWAYS_PRESENT: readonly Contender[] = [
  {
    name: "softclose",
    label: "**softclose**",
    start: (processes, upstreamPort, folder) =>
      startProgram(processes, "softclose", process.execPath, async (port) => {
        const file = join(folder, `softclose-${port}.yaml`);
        writeFileSync(file, softcloseConfig(port, await freePort(), upstreamPort));
        return [GATEWAY, "run", "-c", file];
      }),
  },
  forked("bare-pipe", "bare `net` pipe"),
  forked("ws-pump", "`ws`-to-`ws` pump"),
  forked("fastify-http-proxy", "`@fastify/http-proxy`"),
  forked("http-proxy", "`http-proxy`"),
];

/** nginx and HAProxy, as far as they are installed. */
export function installedContenders(): Contender[] {
  const found: Contender[] = [];
  const nginx = findProgram("nginx");
  if (nginx !== undefined) {
    found.push({
      name: "nginx",
      label: "nginx",
      version: versionOf(nginx),
      start: (processes, upstreamPort, folder) =>
        startProgram(processes, "nginx", nginx, (port) => {
          const file = join(folder, `nginx-${port}.conf`);
          writeFileSync(file, nginxConfig(port, upstreamPort, folder));
          return ["-p", folder, "-c", file];
        }),
    });
  }
  const haproxy = findProgram("haproxy");
  if (haproxy !== undefined) {
    found.push({
      name: "haproxy",
      label: "HAProxy",
      version: versionOf(haproxy),
      start: (processes, upstreamPort, folder) =>
        startProgram(processes, "haproxy", haproxy, (port) => {
          const file = join(folder, `haproxy-${port}.cfg`);
          writeFileSync(file, haproxyConfig(port, upstreamPort));
          return ["-db", "-f", file];
        }),
    });
  }
  return found;
}

function forked(name: string, label: string): Contender {
  return {
    name,
    label,
    async start(processes, upstreamPort) {
      const module = new URL(`./proxies/${name}.js`, import.meta.url);
      const { running, port } = await processes.fork(name, module, [String(upstreamPort)]);
      return { running, port, pids: processTree(running.pid) };
    },
  };
}

async function startProgram(
  processes: Processes,
  name: string,
  command: string,
  argumentsFor: (port: number) => string[] | Promise<string[]>,
): Promise<StartedProxy> {
  for (let attempt = 1; ; attempt++) {
    const port = await freePort();
    try {
      const running = await processes.spawn(name, command, await argumentsFor(port), port);
      return { running, port, pids: processTree(running.pid) };
    } catch (error) {
      if (attempt === START_ATTEMPTS) throw error;
    }
  }
}

function findProgram(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), ...DAEMON_FOLDERS];
  return folders
    .filter((folder) => folder !== "")
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function versionOf(program: string): string {
  const { stdout, stderr } = spawnSync(program, ["-v"], { encoding: "utf8" });
  return /\d+\.\d+\.\d+/.exec(stdout + stderr)?.[0] ?? "unknown version";
}

/** Defaults throughout, but no line per session, as no other proxy here writes one. */
function softcloseConfig(port: number, adminPort: number, upstreamPort: number): string {
  return `listeners:
  - { name: public, bind: "127.0.0.1:${port}" }
admin: { bind: "127.0.0.1:${adminPort}" }
routes:
  - { name: echo, pool: echo }
pools:
  echo:
    backends:
      - { url: "ws://127.0.0.1:${upstreamPort}" }
log: { level: warn }
`;
}

/** The WebSocket configuration of nginx's own documentation, with room for 2,000 sessions. */
function nginxConfig(port: number, upstreamPort: number, folder: string): string {
  return `daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid ${folder}/nginx-${port}.pid;
error_log stderr crit;
events { worker_connections 16384; }
http {
  access_log off;
  client_body_temp_path ${folder}/nginx-body;
  proxy_temp_path ${folder}/nginx-proxy;
  fastcgi_temp_path ${folder}/nginx-fastcgi;
  uwsgi_temp_path ${folder}/nginx-uwsgi;
  scgi_temp_path ${folder}/nginx-scgi;
  server {
    listen 127.0.0.1:${port};
    location / {
      proxy_pass http://127.0.0.1:${upstreamPort};
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
    }
  }
}
`;
}

function haproxyConfig(port: number, upstreamPort: number): string {
  return `global
  nbthread 1
  maxconn 8000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
frontend public
  bind 127.0.0.1:${port}
  default_backend echo
backend echo
  server echo 127.0.0.1:${upstreamPort}
`;
}
