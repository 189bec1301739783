/** What spans several keys of one pool: `of` and hash, what a probe asks for, times that fit together. */
import * as z from "zod";
import { type Clash, child, ifValid, reportClashes } from "./clashes.ts";
import type { Finding } from "./messages.ts";
import { poolSchema } from "./pool-schema.ts";
import { HASH_KEY_FORMS } from "./pool-values.ts";

/** Everything in the pool as written that no single key shows. */
export function checkPool(name: string, pool: unknown, findings: Finding[]): void {
  const probe = child(pool, "health");
  const clashes = [
    ...ifValid(choice.safeParse(pool), choiceClash),
    ...ifValid(asked.safeParse(probe), askedClash),
    ...ifValid(beat.safeParse(probe), beatClash),
    ...ifValid(outage.safeParse(child(pool, "ejection")), outageClash),
  ];
  reportClashes(clashes, ["pools", name], pool, findings);
}

// Only the keys that a rule compares: a fault in another key must not hide the clash.
const { balance, of, health, ejection } = poolSchema.shape;
const { type, path, interval, timeout } = health.unwrap().shape;
const { failures, duration, maxDuration } = ejection.unwrap().shape;
const choice = z.object({ balance, of });
const asked = z.object({ type, path: path.unwrap().optional() });
const beat = z.object({ interval, timeout });
const outage = z.object({ failures, duration, maxDuration });

function choiceClash(set: z.output<typeof choice>): Clash | undefined {
  if (set.balance === "hash" && set.of === undefined) {
    return {
      paths: [["balance"]],
      message: `hash needs to know what to look at; set of: ${HASH_KEY_FORMS}`,
    };
  }
  if (set.balance === "hash" || set.of === undefined) return undefined;
  return {
    paths: [["of"]],
    message: `only hash looks at it, and balance is ${set.balance}; set balance: hash, or leave of out`,
  };
}

function askedClash(set: z.output<typeof asked>): Clash | undefined {
  if (set.type !== "tcp" || set.path === undefined) return undefined;
  return {
    paths: [["health", "path"]],
    message: "tcp asks for nothing; leave path out, or set type to http or websocket",
  };
}

function beatClash(set: z.output<typeof beat>): Clash | undefined {
  if (set.timeout <= set.interval) return undefined;
  return {
    paths: [
      ["health", "timeout"],
      ["health", "interval"],
    ],
    message: `timeout is longer than interval (${set.timeout}ms against ${set.interval}ms); probes must not overlap, so set at most ${set.interval}ms`,
  };
}

function outageClash(set: z.output<typeof outage>): Clash | undefined {
  if (set.failures === 0 || set.maxDuration >= set.duration) return undefined;
  return {
    paths: [
      ["ejection", "maxDuration"],
      ["ejection", "duration"],
    ],
    message: `maxDuration is shorter than duration (${set.maxDuration}ms against ${set.duration}ms)`,
  };
}
