/**
 * The configuration loader: any text is a configuration that the gateway can be built from, or errors that
 * stand inside the file, and soon. An input is the file.
 */
import { deepEqual, equal, ok } from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { isIP } from "node:net";
import { dirname, join } from "node:path";
import type { GatewayConfig } from "../../../src/config/config.ts";
import { formatProblem, type LoadResult, loadConfig } from "../../../src/config/load.ts";
import { isEmptyPlan, planReload } from "../../../src/config/plan.ts";
import { ForwardedReader } from "../../../src/edge/forwarded.ts";
import { Router } from "../../../src/edge/router.ts";
import { YAML_PIECES } from "../../support/yaml-pieces.ts";
import { CORPUS_FOLDER } from "../input-files.ts";
import type { Target } from "../target.ts";

const ROOT = dirname(dirname(dirname(CORPUS_FOLDER)));
const ENVIRONMENT = { A: "x\n- y", PORT: "8080", EMPTY: "", YES: "true" };
/** Of the processor, not of the clock: others may use the machine, too. What is linear takes a tenth. */
const LONGEST_CPU_MS = 2_000;
/** A quadratic rule shows with less. */
const LONGEST_EXPANSION = 20_000;
/** Phrases of libraries that say nothing to an operator. */
const LEAKS =
  /Invalid input|expected \w+, received|Too (?:big|small)|Unrecognized key|undefined|\[object|Maximum call stack|TypeError/;

export function configTarget(): Target {
  return {
    seeds: seeds(),
    tokens: TOKENS.map((token) => Buffer.from(token)),
    maxInputBytes: 8_000,
    check,
  };
}

function check(input: Buffer): void {
  const text = expanded(input.toString("utf8"));
  const before = process.cpuUsage();
  const result = loadConfig(text, { file: "f", env: ENVIRONMENT });
  const { user } = process.cpuUsage(before);
  ok(user / 1000 < LONGEST_CPU_MS, `took ${Math.round(user / 1000)} ms`);
  if ("errors" in result) checkErrors(text, result.errors);
  else checkConfig(result.config, loadConfig(text, { file: "f", env: ENVIRONMENT }));
}

/** `@REPEAT n TEXT@` stands for TEXT n times: bombs and deep nests in a few bytes. */
function expanded(text: string): string {
  let budget = LONGEST_EXPANSION;
  return text.replaceAll(/@REPEAT (\d{1,5}) ([^@]*)@/g, (_mark, count: string, part: string) => {
    const times = Math.min(Number(count), Math.floor(budget / Math.max(1, part.length)));
    budget -= times * part.length;
    return part.repeat(times);
  });
}

function checkErrors(
  text: string,
  errors: Extract<LoadResult, { errors: unknown }>["errors"],
): void {
  ok(errors.length > 0, "neither a configuration nor an error");
  const lines = text.replace(/^\uFEFF/, "").split("\n");
  for (const error of errors) {
    const shown = formatProblem(error);
    ok(error.line >= 1 && error.line <= lines.length, `no such line: ${shown}`);
    const length = lines[error.line - 1]?.length ?? 0;
    ok(error.column >= 1 && error.column <= length + 1, `no such column: ${shown}`);
    ok(error.message !== "" && !LEAKS.test(error.message), `says nothing: ${shown}`);
  }
  const places = errors.map(({ line, column }) => line * 1e6 + column);
  deepEqual(
    places,
    places.toSorted((one, other) => one - other),
  );
}

function checkConfig(config: GatewayConfig, again: LoadResult): void {
  deepEqual(again, { config });
  ok(isEmptyPlan(planReload(config, config)));
  checkNumbers(config, "config");
  ok(config.listeners.length > 0 && config.routes.length > 0 && config.pools.length > 0);
  const pools = new Set(config.pools.map(({ name }) => name));
  for (const named of [config.listeners, config.routes, config.pools]) {
    equal(new Set(named.map(({ name }) => name)).size, named.length);
  }
  for (const { pool } of config.routes) ok(pools.has(pool), `no pool ${pool}`);
  for (const { bind, trustedProxies } of config.listeners) {
    ok((bind.port >= 0 && bind.port <= 65_535 && isIP(bind.host) !== 0) || bind.host !== "");
    // Throws on an address that it cannot read.
    new ForwardedReader(trustedProxies).read({}, "10.0.0.1");
  }
  new Router(config.routes).find("a.example", "/x");
}

/** No number of a configuration is negative or none at all. */
function checkNumbers(value: unknown, path: string): void {
  if (typeof value === "number") ok(value >= 0, `${path} is ${value}`);
  else if (value instanceof Map) checkNumbers([...value], path);
  else if (typeof value === "object" && value !== null) {
    for (const [key, inner] of Object.entries(value)) checkNumbers(inner, `${path}.${key}`);
  } else ok(value !== undefined, `${path} is undefined`);
}

function seeds(): Buffer[] {
  const bad = join(ROOT, "test", "fixtures", "bad-config");
  const files = readdirSync(bad).map((name) => join(bad, name));
  const example = readFileSync(join(ROOT, "gateway.example.yaml"), "utf8");
  return [
    Buffer.from(example.replaceAll(/^ *#.*\n/gm, "")),
    ...files.map((file) => readFileSync(file)),
    ...BOMBS.map((text) => Buffer.from(text)),
  ];
}

const BOMBS = [
  "@REPEAT 60 [@",
  "@REPEAT 9999 {a: @",
  "a: &a [1]\nb: &b [@REPEAT 50 *a,@]\nc: &c [@REPEAT 50 *b,@]\nd: [@REPEAT 50 *c,@]\n",
  "x: &x { a: 1 }\n@REPEAT 40 - <<: *x\n@",
  "pools: { <<: [@REPEAT 300 {a: {}},@] }\n",
  'k: "@REPEAT 9999 ${A}@"\n',
  "@REPEAT 9999 ? @",
  "@REPEAT 9999 - @",
  "@REPEAT 9999 !!str @",
  "@REPEAT 3000 'a' 'b@",
  "a: |\n@REPEAT 5000  \n@",
  "@REPEAT 9999 \r@",
];

const TOKENS = [
  ...YAML_PIECES,
  "<<: *a\n",
  "|\n",
  ">-\n",
  "${PORT}",
  "${EMPTY}",
  "${YES}",
  "${B:-5s}",
  "\uD7FF",
  ".inf",
  "no",
  "ws://h:1",
  "ws://[::1]:1",
  "@REPEAT 200 ",
  "@",
  "1005",
  "1.5",
  "99999999999999999999",
  "10.0.0.0/8",
  "::/0",
  "*.example.com",
  "/x/../y",
  "header:X",
  "cookie:sid",
  "lost",
  "1012",
  "!!binary aGk=",
  "!!set {a}",
];
