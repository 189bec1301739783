/** Every malformed file of the fixture folder gets exactly the error lines that it announces. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { formatProblem, loadConfig } from "../../../src/config/load.ts";

const FOLDER = join(import.meta.dirname, "../../fixtures/bad-config");
const files = readdirSync(FOLDER).filter((name) => name.endsWith(".yaml"));

describe("a malformed configuration", () => {
  it("comes in many forms", () => {
    expect(files.length).toBeGreaterThan(60);
  });

  it.each(files)("%s gets its exact errors", (file) => {
    const text = readFileSync(join(FOLDER, file), "utf8");
    const expected = [...text.matchAll(/^# expect: (.*)$/gm)].map((match) => `${file}:${match[1]}`);
    const result = loadConfig(text, { file, env: {} });
    expect("errors" in result ? result.errors.map(formatProblem) : ["no error"]).toEqual(expected);
  });
});
