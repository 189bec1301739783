/** `softclose demo`: joins the demo with a gateway in the same process. */
import type { GatewayStatus } from "../admin/gateway-view.ts";
import type { GatewayConfig } from "../config/config.ts";
import { loadConfig } from "../config/load.ts";
import { BindError } from "../edge/bind-error.ts";
import { createLogger, type Logger } from "../observe/log.ts";
import type { CommandOutput } from "./check.ts";
import { DEFAULT_DEMO_PORT, type DemoGateway, runDemo } from "./demo.ts";

/** As much of the gateway as the demo needs. */
export interface DemonstrableGateway {
  readonly adminAddress: string | null;
  start(): Promise<void>;
  stop(): Promise<void>;
  status(): GatewayStatus;
}

export interface DemoCommandOptions {
  readonly createGateway: (config: GatewayConfig, logger: Logger) => DemonstrableGateway;
  readonly port: string | undefined;
  readonly io: CommandOutput;
  /** Resolves at the first signal to stop. */
  readonly stopSignal: Promise<string>;
}

/** Resolves to the exit code at the first signal. */
export async function runDemoCommand(options: DemoCommandOptions): Promise<number> {
  const { createGateway, port: portText, io, stopSignal } = options;
  const port = portText === undefined ? DEFAULT_DEMO_PORT : Number(portText);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    io.err(`--port: "${portText}" is not a port; write a number from 0 to 65535`);
    return 64;
  }
  try {
    const startGateway = (yaml: string): Promise<DemoGateway> =>
      startDemoGateway(yaml, createGateway);
    const print = (text: string): void => io.out(text);
    await runDemo({ port, startGateway }, { print, stopped: stopSignal });
    return 0;
  } catch (error) {
    if (!(error instanceof BindError)) throw error;
    io.err(error.message);
    return 1;
  }
}

async function startDemoGateway(
  yaml: string,
  createGateway: DemoCommandOptions["createGateway"],
): Promise<DemoGateway> {
  const result = loadConfig(yaml, { file: "demo", env: {} });
  if (!("config" in result))
    throw new Error(result.errors.map(({ message }) => message).join("\n"));
  const logger = createLogger(result.config.log);
  const gateway = createGateway(result.config, logger);
  await gateway.start();
  const [listener] = gateway.status().listeners;
  return {
    port: portOf(listener?.address ?? ""),
    adminPort: portOf(gateway.adminAddress ?? ""),
    close: () => gateway.stop(),
  };
}

function portOf(address: string): number {
  return Number(address.slice(address.lastIndexOf(":") + 1));
}
