/** A whole gateway in the test's process, from YAML, on a free port; with what it logged and recorded. */
import { expect } from "vitest";
import type { PlanAnswer, ReloadReport } from "../../src/admin/gateway-view.ts";
import { loadConfig } from "../../src/config/load.ts";
import { ConfigSource, type ReadResult } from "../../src/config/source.ts";
import { Gateway, type GatewayDependencies } from "../../src/gateway.ts";
import { createLogger } from "../../src/observe/log.ts";
import type { SessionRecord } from "../../src/session/record.ts";
import { eventually } from "./eventually.ts";

export class TestGateway {
  readonly gateway: Gateway;
  /** Parsed log lines. */
  readonly lines: Record<string, unknown>[];
  readonly #source: TextSource;

  constructor(gateway: Gateway, lines: Record<string, unknown>[], source: TextSource) {
    this.gateway = gateway;
    this.lines = lines;
    this.#source = source;
  }

  get port(): number {
    const address = this.gateway.status().listeners[0]?.address ?? "";
    return Number(address.slice(address.lastIndexOf(":") + 1));
  }

  get adminUrl(): string {
    return `http://${this.gateway.adminAddress}`;
  }

  url(path = "/"): string {
    return `ws://127.0.0.1:${this.port}${path}`;
  }

  /** Records so far, oldest first. */
  get records(): SessionRecord[] {
    return this.gateway.closes(Number.MAX_SAFE_INTEGER).toReversed();
  }

  /** Waits for `count` records. */
  recorded(count = 1): Promise<SessionRecord[]> {
    return eventually(() => {
      const { records } = this;
      if (records.length < count) throw new Error(`${records.length} of ${count} records`);
      return records;
    });
  }

  /** Slots taken, over all backends. */
  get slots(): number {
    const { pools, leaving } = this.gateway.status();
    return [...pools.flatMap(({ backends }) => backends), ...leaving].reduce(
      (sum, { connections }) => sum + connections,
      0,
    );
  }

  /** The value of one series, as `/metrics` shows it; NaN where it is not there. */
  async metric(series: string): Promise<number> {
    const { text } = await this.gateway.metrics();
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
    return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
  }

  /** As if `yaml` had been written to the file and the gateway told. */
  reload(yaml: string): Promise<ReloadReport> {
    this.#source.text = completeConfig(yaml);
    return this.gateway.reload();
  }

  /** What a reload with `yaml` would do. */
  plan(yaml: string): PlanAnswer {
    return this.gateway.plan(completeConfig(yaml));
  }

  /** Waits until nothing is left of any session: slots, places, sessions; then stops. */
  async stopClean(): Promise<void> {
    await eventually(() => {
      expect(this.gateway.status().sessions).toBe(0);
      expect(this.slots).toBe(0);
      expect(this.gateway.placesTaken).toBe(0);
    });
    expect(this.lines.filter(({ level }) => level === "error")).toEqual([]);
    await this.gateway.stop();
  }
}

/**
 * Starts a gateway. `yaml` needs routes and pools only: a listener and the admin listener on free
 * ports are added where it has none. Remember `stopClean` (or `gateway.stop`) at the end. `source`: what
 * it reads again for a reload.
 */
export async function startGateway(
  yaml: string,
  dependencies: Partial<GatewayDependencies> = {},
): Promise<TestGateway> {
  const started = makeGateway(yaml, dependencies);
  await started.gateway.start();
  return started;
}

/** The same, not started yet. */
export function makeGateway(
  yaml: string,
  dependencies: Partial<GatewayDependencies> = {},
): TestGateway {
  const source = new TextSource(completeConfig(yaml));
  const result = loadConfig(source.text, { file: source.file, env: {} });
  if (!("config" in result)) throw new Error(JSON.stringify(result.errors, null, 2));
  const lines: Record<string, unknown>[] = [];
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const gateway = new Gateway(result.config, {
    logger: createLogger({ level: "info", format: "json" }, stream),
    version: "test",
    processMetrics: false,
    source,
    ...dependencies,
  });
  return new TestGateway(gateway, lines, source);
}

/** A file that needs no disk. */
class TextSource extends ConfigSource {
  text: string;

  constructor(text: string) {
    super("test.yaml", {});
    this.text = text;
  }

  override read(): ReadResult {
    return this.readText(this.text, this.file);
  }
}

/** With a listener `test` and the admin listener, on free ports, where `yaml` has none. */
export function completeConfig(yaml: string): string {
  const listener = /^listeners:/m.test(yaml)
    ? ""
    : 'listeners: [{ name: test, bind: "127.0.0.1:0" }]\n';
  const admin = /^admin:/m.test(yaml) ? "" : 'admin: { bind: "127.0.0.1:0" }\n';
  return `${listener}${admin}${yaml}`;
}

/** Routes and pools for one pool of backends, with more YAML (top-level keys) if need be. */
export function onePool(urls: readonly string[], more = ""): string {
  const backends = urls.map((url) => `{ url: "${url}" }`).join(", ");
  return `routes: [{ name: all, pool: main }]\npools: { main: { backends: [${backends}] } }\n${more}`;
}
