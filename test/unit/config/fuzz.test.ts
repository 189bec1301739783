/** Whatever the bytes: a configuration or errors with positions, never a throw. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { formatProblem, loadConfig } from "../../../src/config/load.ts";
import { YAML_PIECES } from "../../support/yaml-pieces.ts";

const EXAMPLE = readFileSync(join(import.meta.dirname, "../../../gateway.example.yaml"), "utf8");
const LINES = EXAMPLE.split("\n").filter((line) => !/^\s*(#|$)/.test(line));

const piece = fc.constantFrom(...YAML_PIECES);

/** Phrases of zod and of V8 that say nothing to an operator. */
const LEAKS = [
  /Invalid input|expected \w+, received|Too (big|small)|Unrecognized key/,
  /undefined|\[object|Maximum call stack|cannot be read as YAML|TypeError/,
];

/** What is wrong with the outcome of loading `text`: nothing, whatever the text. */
function faultsOf(text: string): string[] {
  const result = loadConfig(text, { file: "f", env: { A: "x\n- y" } });
  if ("config" in result) return [];
  if (result.errors.length === 0) return ["neither a configuration nor an error"];
  const lineCount = text.split("\n").length;
  return result.errors
    .filter(({ line }) => line < 1 || line > lineCount)
    .map(formatProblem)
    .concat(
      result.errors
        .map(formatProblem)
        .filter((line) => !/^f:\d+:\d+: \S/.test(line) || LEAKS.some((leak) => leak.test(line))),
    );
}

describe("loadConfig", () => {
  it("survives pieces put anywhere into the example", () => {
    const edit = fc.tuple(fc.nat(EXAMPLE.length), fc.nat(12), piece);
    fc.assert(
      fc.property(fc.array(edit, { minLength: 1, maxLength: 4 }), (edits) => {
        let text = EXAMPLE;
        for (const [at, cut, insert] of edits)
          text = text.slice(0, at) + insert + text.slice(at + cut);
        expect(faultsOf(text)).toEqual([]);
      }),
      { numRuns: 400 },
    );
  });

  it("survives the example's lines in any order and indentation", () => {
    const line = fc
      .tuple(fc.constantFrom(...LINES), fc.integer({ min: -4, max: 4 }))
      .map(([text, shift]) => (shift < 0 ? text.slice(-shift) : " ".repeat(shift) + text));
    fc.assert(
      fc.property(fc.array(line, { maxLength: 30 }), (lines) => {
        expect(faultsOf(lines.join("\n"))).toEqual([]);
      }),
      { numRuns: 400 },
    );
  });

  it("survives any other value in place of any value", () => {
    const value = fc.constantFrom(
      "",
      "~",
      "[]",
      "{}",
      "[[]]",
      "{a: {}}",
      "-1",
      "1.5",
      ".inf",
      "true",
      '""',
      "'x'",
      "0",
      "99999999999999999999",
      "${A}",
      "${C:-5}",
      "*x",
      "&x 5",
      "!!binary aGk=",
      "!!set {a}",
      "2001-01-01",
      "1005",
      "'1005'",
    );
    fc.assert(
      fc.property(fc.nat(LINES.length - 1), value, (index, replacement) => {
        const lines = [...LINES];
        lines[index] = (lines[index] ?? "").replace(/^(\s*(?:- )?[^:]*:).*$/, `$1 ${replacement}`);
        expect(faultsOf(lines.join("\n"))).toEqual([]);
      }),
      { numRuns: 600 },
    );
  });

  it("survives any text", () => {
    const text = fc.oneof(
      fc.string({ unit: "binary", maxLength: 200 }),
      fc.array(piece, { maxLength: 60 }).map((pieces) => pieces.join("")),
    );
    fc.assert(
      fc.property(text, (any) => {
        expect(faultsOf(any)).toEqual([]);
      }),
      { numRuns: 1000 },
    );
  });
});
