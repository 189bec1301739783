/** A small valid configuration to vary, and the two outcomes of loading one. */
import type { GatewayConfig } from "../../../src/config/config.ts";
import { formatProblem, loadConfig } from "../../../src/config/load.ts";

export const MINIMAL = `
listeners: [{ name: public, bind: 127.0.0.1:8080 }]
routes: [{ name: chat, pool: chat }]
pools: { chat: { backends: [{ url: "ws://127.0.0.1:9001" }] } }
`;

type Environment = Record<string, string | undefined>;

/** Loads what must be good. */
export function load(text: string, env: Environment = {}): GatewayConfig {
  const result = loadConfig(text, { file: "gateway.yaml", env });
  if ("config" in result) return result.config;
  throw new Error(result.errors.map(formatProblem).join("\n"));
}

/** The error lines of what must be bad, without the file's name. */
export function problemsOf(text: string, env: Environment = {}): string[] {
  const result = loadConfig(text, { file: "f", env });
  if ("config" in result) throw new Error("loaded without an error");
  return result.errors.map((error) => formatProblem(error).replace(/^f:/, ""));
}

/** The messages alone. */
export function messagesOf(text: string, env: Environment = {}): string[] {
  const result = loadConfig(text, { file: "f", env });
  return "errors" in result ? result.errors.map((error) => error.message) : [];
}
