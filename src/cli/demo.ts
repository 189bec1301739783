/**
 * `softclose demo`: two echo backends, the gateway and a plain proxy in front of them, and a page on
 * which to kill a backend and see what a client of each is told. Everything in this process.
 */
import {
  type Answer,
  type HttpServer,
  json,
  mutation,
  problem,
  type Resource,
  readable,
  startHttpServer,
} from "../admin/http-server.ts";
import { loadStaticPage, type StaticPage } from "../admin/static-page.ts";
import { codeInfo, explainShort } from "../close/codes.ts";
import { DemoBackend } from "./demo-backend.ts";
import { BACKEND_HOST, demoConfig, urlHost } from "./demo-config.ts";
import { isTaken } from "./demo-listen.ts";
import { type PlainProxy, startPlainProxy } from "./demo-plain-proxy.ts";

export interface DemoGateway {
  /** Of the public listener. */
  readonly port: number;
  readonly adminPort: number;
  close(): Promise<void>;
}

export interface DemoOptions {
  /** Where page, gateway and plain proxy listen; loopback unless told otherwise. */
  readonly host?: string;
  /** Of the page; the next free one is taken if this is in use. 0: any, for every listener. */
  readonly port?: number;
  readonly startGateway: (yaml: string) => Promise<DemoGateway>;
  readonly onError?: (error: unknown) => void;
}

export interface Demo {
  readonly url: string;
  readonly adminUrl: string;
  /** What to print once it runs. */
  readonly banner: string;
  close(): Promise<void>;
}

export const DEFAULT_DEMO_PORT = 8090;
const PAGE_PORT_TRIES = 50;
/** The backends' ports start here: clear of the ephemeral range, where a dead port might be reused. */
const BACKEND_PORT_OFFSET = 100;
const CAP = 1;

interface Parts {
  readonly host: string;
  readonly backends: readonly DemoBackend[];
  readonly gateway: DemoGateway;
  readonly plain: PlainProxy;
  readonly plainCapped: PlainProxy;
}

/** Rejects with the first error; whatever had started by then has ended again. */
export async function startDemo(options: DemoOptions): Promise<Demo> {
  const { host = "127.0.0.1", port = DEFAULT_DEMO_PORT, startGateway } = options;
  const onError = options.onError ?? (() => undefined);
  const closers: (() => Promise<void>)[] = [];
  const started = <T extends { close(): Promise<void> }>(part: T): T => {
    closers.push(() => part.close());
    return part;
  };
  const closeAll = async (): Promise<void> => {
    for (const close of closers.splice(0).toReversed()) await close();
  };
  try {
    const near = port === 0 ? 0 : port + BACKEND_PORT_OFFSET;
    const first = new DemoBackend("A", BACKEND_HOST, near);
    const second = new DemoBackend("B", BACKEND_HOST, near);
    for (const backend of [first, second]) {
      await backend.start();
      closers.push(() => backend.kill());
    }
    const backends = [first, second];
    const proxy = { host, port: near, backends };
    const plain = started(await startPlainProxy({ ...proxy, maxConnections: 0 }));
    const plainCapped = started(
      await startPlainProxy({ ...proxy, backends: [first], maxConnections: CAP }),
    );
    const yaml = demoConfig({ host, backends: [first.port, second.port] });
    const gateway = started(await startGateway(yaml));
    const parts: Parts = { host, backends, gateway, plain, plainCapped };
    const page = started(await startPage(parts, port, onError));
    return describeDemo(parts, page, closeAll);
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** Runs the demo until `stopped` settles. */
export async function runDemo(
  options: DemoOptions,
  io: { readonly print: (text: string) => void; readonly stopped: Promise<unknown> },
): Promise<void> {
  const demo = await startDemo(options);
  io.print(demo.banner);
  try {
    await io.stopped;
  } finally {
    await demo.close();
  }
}

function describeDemo({ host, gateway }: Parts, page: HttpServer, close: Demo["close"]): Demo {
  // 0.0.0.0 and :: are addresses to listen on, not to go to.
  const at = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : urlHost(host);
  const url = `http://${at}:${page.bind.port}`;
  const adminUrl = `http://${at}:${gateway.adminPort}`;
  const banner = [
    "",
    `  softclose demo   ${url}`,
    `  admin page       ${adminUrl}`,
    "",
    "  Open the first one and kill a backend. Ctrl-C ends it.",
    "",
  ].join("\n");
  return { url, adminUrl, banner, close };
}

async function startPage(
  parts: Parts,
  port: number,
  onError: (error: unknown) => void,
): Promise<HttpServer> {
  // The clients of the page connect to the ports of the gateway and of the plain proxy.
  const page = loadStaticPage(new URL("./demo-page.html", import.meta.url), ["ws:"]);
  const find = (path: string, query: URLSearchParams) => findResource(path, query, parts, page);
  for (let tried = 1; ; tried++, port++) {
    try {
      return await startHttpServer({
        bind: { host: parts.host, port },
        token: () => "",
        find,
        onError,
      });
    } catch (error) {
      if (!isTaken(error) || tried >= PAGE_PORT_TRIES || port >= 65_535) throw error;
    }
  }
}

function findResource(
  path: string,
  query: URLSearchParams,
  parts: Parts,
  page: StaticPage,
): Resource | null {
  switch (path) {
    case "/":
      return readable(() => page.answer);
    case "/api/info":
      return readable(() =>
        json(200, {
          gatewayPort: parts.gateway.port,
          adminPort: parts.gateway.adminPort,
          plainPort: parts.plain.port,
          plainCappedPort: parts.plainCapped.port,
        }),
      );
    case "/api/backends":
      return readable(() => json(200, describeBackends(parts)));
    case "/api/explain":
      return readable(() => explained(query.get("code") ?? ""));
    default:
      return control(path, parts);
  }
}

/** POST /kill/0, /freeze/0, /revive/0, and the same for backend 1. */
function control(path: string, parts: Parts): Resource | null {
  const [, verb, index] = /^\/(kill|freeze|revive)\/(\d)$/.exec(path) ?? [];
  const backend = parts.backends[Number(index)];
  if (verb === undefined || backend === undefined) return null;
  return mutation("POST", async () => {
    if (verb === "kill") await backend.kill();
    else if (verb === "freeze") backend.freeze();
    else {
      try {
        await backend.revive();
      } catch (error) {
        if (!isTaken(error)) throw error;
        return problem(409, `another program has taken port ${backend.port} meanwhile`);
      }
    }
    return json(200, describeBackends(parts));
  });
}

function describeBackends({ backends }: Parts): object[] {
  return backends.map(({ name, port, state, clients }) => ({ name, port, state, clients }));
}

function explained(code: string): Answer {
  if (!/^\d{1,5}$/.test(code)) return problem(400, "code must be a number");
  const number = Number(code);
  return json(200, {
    code: number,
    name: codeInfo(number)?.name ?? "",
    text: explainShort(number),
    retry: codeInfo(number)?.retry ?? "no",
  });
}
