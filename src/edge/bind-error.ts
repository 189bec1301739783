/** An address that could not be bound: an operator's mistake, for one clear line. */
import type { Bind } from "../config/config.ts";

const REASONS: Readonly<Record<string, string>> = {
  EADDRINUSE: "the address is in use",
  EACCES: "permission denied; ports below 1024 need privileges",
  EADDRNOTAVAIL: "this machine does not have that address",
  ENOTFOUND: "the host name cannot be resolved",
};

export class BindError extends Error {
  readonly code = "SC_BIND_FAILED";

  constructor(what: string, bind: Bind, cause: NodeJS.ErrnoException) {
    const reason = REASONS[cause.code ?? ""] ?? cause.code ?? cause.message;
    super(`cannot listen on ${formatBind(bind)} (${what}): ${reason}`, { cause });
  }

  /** From whatever listening has thrown. */
  static from(what: string, bind: Bind, error: unknown): BindError {
    return new BindError(what, bind, error instanceof Error ? error : new Error(String(error)));
  }
}

export function formatBind({ host, port }: Bind): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
