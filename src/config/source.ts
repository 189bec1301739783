/** The file that a gateway runs with, to be read again for a reload. */
import type { GatewayConfig } from "./config.ts";
import type { Environment } from "./interpolate.ts";
import { formatProblem, type LoadResult, loadConfig, loadConfigFile } from "./load.ts";

/** A configuration, or every problem, one line each. */
export type ReadResult =
  | { readonly config: GatewayConfig }
  | { readonly problems: readonly string[] };

export class ConfigSource {
  readonly file: string;
  readonly #env: Environment;

  constructor(file: string, env: Environment) {
    this.file = file;
    this.#env = env;
  }

  /** The file as it is now. */
  read(): ReadResult {
    return toResult(loadConfigFile(this.file, this.#env));
  }

  /** A text that is not in place yet, under the name that problems should give it. */
  readText(text: string, file: string): ReadResult {
    return toResult(loadConfig(text, { file, env: this.#env }));
  }
}

function toResult(loaded: LoadResult): ReadResult {
  return "config" in loaded ? loaded : { problems: loaded.errors.map(formatProblem) };
}
