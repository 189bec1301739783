import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCheck } from "../../../src/cli/check.ts";
import { MINIMAL } from "./support.ts";

const folder = mkdtempSync(join(tmpdir(), "softclose-check-"));
afterAll(() => rmSync(folder, { recursive: true }));

function check(text: string | null, env = {}) {
  const file = join(folder, "gateway.yaml");
  if (text === null) rmSync(file, { force: true });
  else writeFileSync(file, text);
  const out: string[] = [];
  const err: string[] = [];
  const io = { out: (line: string) => out.push(line), err: (line: string) => err.push(line) };
  const code = runCheck(file, env, io);
  return { file, code, out, err };
}

describe("softclose check", () => {
  it("counts what a good file has", () => {
    const { file, code, out, err } = check(MINIMAL);
    expect(code).toBe(0);
    expect(out).toEqual([`${file}: ok (1 listener, 1 route, 1 pool, 1 backend)`]);
    expect(err).toEqual([]);
  });

  it("counts in the plural too", () => {
    const { out } = check(`
listeners: [{ name: a, bind: 127.0.0.1:1 }, { name: b, bind: 127.0.0.1:2 }]
routes: [{ name: a, pool: a, match: { path: /a } }, { name: b, pool: a, match: { path: /b } }, { name: c, pool: b }]
pools: { a: { backends: [{ url: ws://a }, { url: ws://b }] }, b: { backends: [{ url: ws://a }, { url: ws://b }] } }
`);
    expect(out[0]).toMatch(/ok \(2 listeners, 3 routes, 2 pools, 4 backends\)$/);
  });

  it("gives 64 and one line for each error of a bad file", () => {
    const { file, code, out, err } = check(
      `${MINIMAL}refuse: never\nlimits: { idleTimeout: 5 mins }\n`,
    );
    expect(code).toBe(64);
    expect(out).toEqual([]);
    expect(err).toEqual([
      `${file}:5:9: refuse: "never" is not known; write close or http`,
      `${file}:6:24: limits.idleTimeout: "5 mins" is not a duration; write a number with ms, s, m or h, like 5m`,
    ]);
  });

  it("gives 64 and one line for a missing file or an unset variable", () => {
    const missing = check(null);
    expect([missing.code, missing.err]).toEqual([64, [`${missing.file}: there is no such file`]]);
    const text = `${MINIMAL}admin: { token: "\${TOKEN}" }\n`;
    expect(check(text).err).toHaveLength(1);
    expect(check(text, { TOKEN: "x" }).code).toBe(0);
  });
});
