/** A whole gateway in the test's process, from YAML, on a free port; with what it logged and recorded. */
import { expect } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { Gateway } from "../../src/gateway.ts";
import { createLogger } from "../../src/observe/log.ts";
import type { SessionRecord } from "../../src/session/record.ts";
import { eventually } from "./eventually.ts";

export class TestGateway {
  readonly gateway: Gateway;
  /** Parsed log lines. */
  readonly lines: Record<string, unknown>[];

  constructor(gateway: Gateway, lines: Record<string, unknown>[]) {
    this.gateway = gateway;
    this.lines = lines;
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
    return this.gateway
      .status()
      .pools.flatMap(({ backends }) => backends)
      .reduce((sum, { connections }) => sum + connections, 0);
  }

  /** The value of one series, as `/metrics` shows it; NaN where it is not there. */
  async metric(series: string): Promise<number> {
    const { text } = await this.gateway.metrics();
    const line = text.split("\n").find((candidate) => candidate.startsWith(`${series} `));
    return line === undefined ? Number.NaN : Number(line.slice(series.length + 1));
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
 * ports are added where it has none. Remember `stopClean` (or `gateway.stop`) at the end.
 */
export async function startGateway(yaml: string): Promise<TestGateway> {
  const listener = /^listeners:/m.test(yaml)
    ? ""
    : 'listeners: [{ name: test, bind: "127.0.0.1:0" }]\n';
  const admin = /^admin:/m.test(yaml) ? "" : 'admin: { bind: "127.0.0.1:0" }\n';
  const text = `${listener}${admin}${yaml}`;
  const result = loadConfig(text, { file: "test.yaml", env: {} });
  if (!("config" in result)) throw new Error(JSON.stringify(result.errors, null, 2));
  const lines: Record<string, unknown>[] = [];
  const stream = { write: (line: string) => void lines.push(JSON.parse(line)) };
  const logger = createLogger({ level: "info", format: "json" }, stream);
  const gateway = new Gateway(result.config, { logger, version: "test", processMetrics: false });
  await gateway.start();
  return new TestGateway(gateway, lines);
}

/** Routes and pools for one pool of backends, with more YAML (top-level keys) if need be. */
export function onePool(urls: readonly string[], more = ""): string {
  const backends = urls.map((url) => `{ url: "${url}" }`).join(", ");
  return `routes: [{ name: all, pool: main }]\npools: { main: { backends: [${backends}] } }\n${more}`;
}
