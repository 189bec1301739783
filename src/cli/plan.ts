/** `softclose plan FILE`: asks a running gateway what a reload with FILE would change. Changes nothing. */
import { readFileSync } from "node:fs";
import type { PlanAnswer } from "../admin/gateway-view.ts";
import type { GatewayConfig } from "../config/config.ts";
import type { Environment } from "../config/interpolate.ts";
import { formatProblem, loadConfigFile } from "../config/load.ts";
import type { Changes, ReloadPlan } from "../config/plan.ts";
import type { CommandOutput } from "./check.ts";

const CLEAN = 0;
/** The gateway could not be asked. */
const FAILED = 1;
const BAD_CONFIG = 64;
const ANSWER_TIMEOUT_MS = 10_000;

export interface PlanOptions {
  readonly file: string;
  /** host:port of the gateway's admin listener; absent: the one that the file names. */
  readonly admin: string | undefined;
  readonly token: string | undefined;
  readonly env: Environment;
  readonly io: CommandOutput;
}

/** Resolves to the exit code. */
export async function runPlan({ file, admin, token, env, io }: PlanOptions): Promise<number> {
  const loaded = loadConfigFile(file, env);
  if (!("config" in loaded)) {
    for (const problem of loaded.errors) io.err(formatProblem(problem));
    return BAD_CONFIG;
  }
  const address = admin ?? adminOf(loaded.config);
  if (address === null) {
    io.err("--admin: is missing, and the file has no admin listener; write host:port");
    return BAD_CONFIG;
  }
  const bearer = token ?? loaded.config.admin.token;
  const asked = await ask(address, bearer, readFileSync(file, "utf8"));
  if (typeof asked === "string") {
    io.err(asked);
    return FAILED;
  }
  if ("problems" in asked) {
    // The gateway has not seen the file's name.
    for (const problem of asked.problems) io.err(problem.replace(/^FILE(?=:)/, () => file));
    return BAD_CONFIG;
  }
  for (const line of describe(asked.plan, asked.sessionsLeaving)) io.out(line);
  return CLEAN;
}

/** An address of all interfaces is no address to ask. */
function adminOf({ admin: { bind } }: GatewayConfig): string | null {
  if (bind === null) return null;
  const host = bind.host === "0.0.0.0" || bind.host === "::" ? "127.0.0.1" : bind.host;
  return host.includes(":") ? `[${host}]:${bind.port}` : `${host}:${bind.port}`;
}

/** The gateway's answer, or why there is none. */
async function ask(address: string, token: string, text: string): Promise<PlanAnswer | string> {
  try {
    const response = await fetch(`http://${address}/api/plan`, {
      method: "POST",
      body: text,
      headers: token === "" ? {} : { Authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
    const answer: unknown = await response.json();
    if (isPlanAnswer(answer)) return answer;
    return `the gateway at ${address} answered ${response.status}: ${JSON.stringify(answer)}`;
  } catch (error) {
    const reason = error instanceof Error ? (error.cause ?? error) : error;
    const detail = reason instanceof Error ? reason.message : String(reason);
    return `no gateway answers at ${address}: ${detail}`;
  }
}

function isPlanAnswer(answer: unknown): answer is PlanAnswer {
  if (typeof answer !== "object" || answer === null) return false;
  return "plan" in answer || "problems" in answer;
}

function describe(plan: ReloadPlan, sessionsLeaving: number): string[] {
  const lines = [
    ...changes("listener", plan.listeners),
    ...changes("route", plan.routes),
    ...changes("pool", plan.pools),
    ...changes("backend", plan.backends),
    ...plan.reordered.map((list) => `~ order of ${list}`),
    ...plan.sections.map((section) => `~ ${section}`),
    ...plan.needRestart.map((key) => `! ${key} takes effect only with a restart`),
  ];
  if (lines.length === 0) return ["nothing would change"];
  return [...lines, `${sessionsLeaving} live sessions would be drained`];
}

function changes(kind: string, { added, removed, changed }: Changes): string[] {
  return [
    ...added.map((name) => `+ ${kind} ${name}`),
    ...removed.map((name) => `- ${kind} ${name}`),
    ...changed.map((name) => `~ ${kind} ${name}`),
  ];
}
