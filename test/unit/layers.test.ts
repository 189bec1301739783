/** Who may import whom, and how long files may be: the rules of ARCHITECTURE.md, held by machine. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const SRC = fileURLToPath(new URL("../../src", import.meta.url));

interface Import {
  readonly from: string;
  readonly to: string;
  readonly typeOnly: boolean;
}

const files = readdirSync(SRC, { recursive: true, encoding: "utf8" }).filter(
  (file) => file.endsWith(".ts") && !file.endsWith(".d.ts"),
);

const imports: Import[] = files.flatMap((from) => {
  const text = readFileSync(join(SRC, from), "utf8");
  const statement =
    /^(?:import|export)\b(?<what>[^;"']*?)(?:from\s*)?["'](?<to>\.[^"']+\.ts)["']/gm;
  const found = Array.from(text.matchAll(statement), ({ groups }) => ({
    to: groups?.["to"] ?? "",
    // `import { type A, type B }` keeps nothing at run time that a layer could lean on, either.
    typeOnly: isTypeOnly(groups?.["what"] ?? ""),
  }));
  const dynamic = Array.from(
    text.matchAll(/\bimport\(\s*["'](\.[^"']+\.ts)["']/g),
    ([, to = ""]) => ({
      to,
      typeOnly: false,
    }),
  );
  return [...found, ...dynamic].map(({ to, typeOnly }) => ({
    from,
    to: relative(SRC, resolve(SRC, dirname(from), to)),
    typeOnly,
  }));
});

function isTypeOnly(what: string): boolean {
  if (/^\s*type\b/.test(what)) return true;
  const names = /\{(?<names>[^}]*)\}/.exec(what)?.groups?.["names"] ?? "";
  const listed = names
    .split(",")
    .map((name) => name.trim())
    .filter((name) => name !== "");
  return listed.length > 0 && listed.every((name) => name.startsWith("type "));
}

function lines(file: string): number {
  return readFileSync(join(SRC, file), "utf8").split("\n").length - 1;
}

/** `main.ts` and `gateway.ts` are layers of their own. */
function layerOf(file: string): string {
  return file.includes("/") ? (file.split("/")[0] ?? "") : file;
}

/** What each layer may import beside itself. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  close: [],
  wire: ["close"],
  config: ["close"],
  upstream: ["config", "close", "wire"],
  session: ["config", "close", "wire", "upstream"],
  observe: ["config", "close", "session"],
  admin: ["config", "session"],
  edge: ["config", "close", "wire", "upstream", "session"],
  cli: ["config", "close", "edge", "observe", "admin"],
  "version.ts": [],
  "gateway.ts": ["config", "close", "wire", "upstream", "session", "edge", "observe", "admin"],
  "main.ts": ["cli", "gateway.ts", "version.ts"],
};

it("finds the imports that it judges", () => {
  expect(imports.length).toBeGreaterThan(100);
  expect(imports).toContainEqual({ from: "main.ts", to: "gateway.ts", typeOnly: false });
  expect(imports.filter(({ to }) => !files.includes(to))).toEqual([]);
});

describe("a layer", () => {
  it("is one of those that the design knows", () => {
    expect(Object.keys(MAY_IMPORT).toSorted()).toEqual([...new Set(files.map(layerOf))].toSorted());
  });

  it("imports itself and what lies below it, nothing else", () => {
    const wrong = imports.filter(({ from, to }) => {
      const layer = layerOf(from);
      return layer !== layerOf(to) && MAY_IMPORT[layer]?.includes(layerOf(to)) !== true;
    });
    expect(wrong).toEqual([]);
  });

  it("of bytes takes the types of the causes from close, and nothing that runs", () => {
    const wrong = imports.filter(
      ({ from, to, typeOnly }) =>
        layerOf(from) === "wire" &&
        layerOf(to) === "close" &&
        !(to === "close/causes.ts" && typeOnly),
    );
    expect(wrong).toEqual([]);
  });
});

describe("gateway.ts", () => {
  it("is imported by main.ts alone", () => {
    const importers = imports.filter(({ to }) => to === "gateway.ts").map(({ from }) => from);
    expect(importers).toEqual(["main.ts"]);
  });
});

describe("a file", () => {
  it("has 600 lines at most", () => {
    expect(files.filter((file) => lines(file) > 600)).toEqual([]);
  });

  it("that is the entry point has fewer than 80", () => {
    expect(lines("main.ts")).toBeLessThan(80);
  });

  it("lies at most two folders deep and is named in kebab-case", () => {
    expect(
      files.filter((file) => !/^(?:[a-z]+\/){0,2}[a-z0-9]+(?:-[a-z0-9]+)*\.ts$/.test(file)),
    ).toEqual([]);
  });

  it("says what it owns before anything else", () => {
    const silent = files.filter(
      (file) => !/^(?:#!.*\n)?\/\*\*/.test(readFileSync(join(SRC, file), "utf8")),
    );
    expect(silent).toEqual([]);
  });
});
