/** What a chaos run prints: what happened, how sessions ended, and whether all of it was right. */
import type { ChaosClient } from "./client.ts";
import type { Disruptions } from "./disruptions.ts";
import type { GatewayLife } from "./gateway-life.ts";

const SHOWN = 10;

/** `what`: one of INVARIANTS. */
export interface Problem {
  readonly what: string;
  readonly detail: string;
}

/** A client, and the gateway that it came to. */
export interface Played {
  readonly client: ChaosClient;
  readonly life: GatewayLife;
}

interface Run {
  readonly played: readonly Played[];
  readonly problems: readonly Problem[];
  readonly lives: readonly GatewayLife[];
  readonly samples: readonly { readonly residentKib: number }[];
  readonly ownStallMs: number;
}

const INVARIANTS: Readonly<Record<string, string>> = {
  sessions: "each session ended as the tables allow, and nobody saw 1006",
  counters: "counters add up, with each other and with the records",
  cap: "no backend was over its cap",
  reload: "reloads and drains did what they should, bad files changed nothing",
  "left over": "no session, slot, socket, timer or listener is left",
  memory: "heap and RSS are flat",
  "exit code": "every gateway ended by itself, in time",
  "errors in the log": "no bug was logged",
};

export function printReport(run: Run, disruptions: Disruptions): void {
  const { played, lives, samples, problems, ownStallMs } = run;
  const records = lives.flatMap((life) => life.records);
  const codes = played.map(({ client }) => {
    const { close, status, vanished, unreachable } = client.facts;
    if (close !== null) return String(close.code);
    if (vanished || unreachable) return "cut by the run";
    return status === null || status === 101 ? "1006" : `HTTP ${status}`;
  });
  const messages = records.reduce(
    (sum, record) => sum + record.messages.clientToUpstream + record.messages.upstreamToClient,
    0,
  );
  const dropped = records.reduce(
    (sum, record) =>
      sum + (record.dropped?.clientToUpstream ?? 0) + (record.dropped?.upstreamToClient ?? 0),
    0,
  );
  const resumes = records.reduce((sum, record) => sum + record.resumes, 0);
  const resident = samples.map(({ residentKib }) => Math.round(residentKib / 1024));
  console.log(
    `${played.length} clients, ${lives.length} gateway lives, ${resumes} resumes and moves, ` +
      `${messages} messages, ${dropped} dropped by name`,
  );
  console.log(`RSS ${Math.min(...resident)} to ${Math.max(...resident)} MiB`);
  console.log(`this program itself was late by up to ${Math.round(ownStallMs)} ms`);
  console.log(`events      ${listed(Object.entries(disruptions.counts))}`);
  console.log(`causes      ${listed(tally(records.map(({ cause }) => cause)))}`);
  console.log(`clients saw ${listed(tally(codes))}\n`);
  for (const [what, title] of Object.entries(INVARIANTS)) {
    const broken = problems.filter((problem) => problem.what === what);
    console.log(`${broken.length === 0 ? "PASS" : "FAIL"}  ${title}`);
    for (const { detail } of broken.slice(0, SHOWN)) console.log(`  ${detail}`);
    if (broken.length > SHOWN) console.log(`  and ${broken.length - SHOWN} more`);
  }
}

function tally(names: readonly string[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].toSorted(([, a], [, b]) => b - a);
}

function listed(counts: readonly (readonly [string, number])[]): string {
  return counts.map(([name, count]) => `${name} ${count}`).join(", ");
}
