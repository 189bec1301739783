/** A configuration file in a folder of its own, and gateways that run with it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigSource } from "../../src/config/source.ts";
import { completeConfig, startGateway, type TestGateway } from "./gateway.ts";

export class ConfigFile {
  readonly folder = mkdtempSync(join(tmpdir(), "softclose-config-"));
  readonly path = join(this.folder, "gateway.yaml");

  /** `yaml` as for `startGateway`. */
  constructor(yaml: string) {
    this.write(yaml);
  }

  write(yaml: string): void {
    writeFileSync(this.path, completeConfig(yaml));
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** A gateway that reloads `file`, which holds `yaml` at first. Nobody watches it. */
export async function startReloadable(
  yaml: string,
): Promise<{ readonly gateway: TestGateway; readonly file: ConfigFile }> {
  const file = new ConfigFile(yaml);
  const gateway = await startGateway(yaml, { source: new ConfigSource(file.path, {}) });
  return { gateway, file };
}
