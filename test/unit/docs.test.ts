/** What the documents list is what the code does. */
import { existsSync, readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { CAUSES, type Cause, type Close } from "../../src/close/causes.ts";
import { defaultCloses } from "../../src/close/default-closes.ts";
import { Metrics } from "../../src/observe/metrics.ts";

const readme = readFileSync("README.md", "utf8");
const scripts = Object.keys(JSON.parse(readFileSync("package.json", "utf8")).scripts);

/** Causes of features that do not exist yet. */
const LATER: readonly Cause[] = ["unauthorized", "authExpired"];

/** Rows of the table whose first cell is in backquotes, cell by cell. */
function rows(heading: string): string[][] {
  const section = readme.slice(readme.indexOf(`| ${heading} |`)).split("\n\n", 1)[0] ?? "";
  return section
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")));
}

/** What a cell should say; one with words is about codes that depend on the case. */
function stated(cell: string | undefined, close: Close | null): string | undefined {
  return /^(?:\d{4}|-)$/.test(cell ?? "") ? String(close?.code ?? "-") : cell;
}

it("the README's close table has every cause that exists", () => {
  const causes = rows("cause").map((cells) => cells[1]);
  expect(causes).toEqual(CAUSES.filter((cause) => !LATER.includes(cause)));
});

it("the README's close table has the default codes", () => {
  for (const [, cause, , client, upstream] of rows("cause")) {
    const known = CAUSES.find((candidate) => candidate === cause);
    if (known === undefined) throw new Error(`no cause ${cause}`);
    const closes = defaultCloses(known, { offender: "client" });
    expect([cause, stated(client, closes.client), stated(upstream, closes.upstream)]).toEqual([
      cause,
      client,
      upstream,
    ]);
  }
});

it("the README's metrics are the ones that are exposed", async () => {
  const metrics = new Metrics({
    version: "0",
    routes: [{ name: "r" }],
    pools: [],
    live: { sessionsByRoute: () => [], backends: () => [], queues: () => [] },
    processMetrics: false,
  });
  const { text } = await metrics.scrape();
  const exposed = Array.from(text.matchAll(/^# TYPE (\S+)/gm), ([, name]) => name);
  expect(new Set(rows("metric").map((cells) => cells[1]))).toEqual(new Set(exposed));
});

it("every script and every file that the README names exists", () => {
  for (const [, script] of readme.matchAll(/npm run (\w+)/g)) {
    expect(scripts).toContain(script);
  }
  for (const [, file] of readme.matchAll(/\]\((?!https?:)([^)#]+)\)/g)) {
    expect(existsSync(file ?? ""), file).toBe(true);
  }
});

it("every test that the README names as proof exists", () => {
  const table = readme.slice(readme.indexOf("| promise |")).split("\n\n", 1)[0] ?? "";
  for (const line of table.split("\n").slice(2)) {
    const proof = line.split("|")[2] ?? "";
    for (const [, name = ""] of proof.matchAll(/`([a-z/-]+)`/g)) {
      const file = /^(?:unit|real)\//.test(name) ? name : `integration/${name}`;
      expect(existsSync(`test/${file}.test.ts`), name).toBe(true);
    }
  }
});
