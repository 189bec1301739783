import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { LineWriter } from "../../../src/observe/line-writer.ts";

let folder = "";

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "softclose-lines-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

describe("LineWriter", () => {
  it("writes every line, in order", async () => {
    const file = join(folder, "log");
    const fd = openSync(file, "a");
    const writer = new LineWriter(fd);
    const lines = Array.from({ length: 2000 }, (_, n) => `line ${n} ünï\n`);
    for (const line of lines) writer.write(line);
    await vi.waitFor(() => expect(readFileSync(file, "utf8")).toBe(lines.join("")));
    closeSync(fd);
  });

  it("writes what waits at once when the process ends", () => {
    const file = join(folder, "log");
    const fd = openSync(file, "a");
    const writer = new LineWriter(fd);
    for (let n = 0; n < 100; n++) writer.write(`line ${n}\n`);
    writer.flushSync();
    // The first line is on its way already; the others must be there now.
    expect(readFileSync(file, "utf8")).toContain("line 1\nline 2\n");
    expect(readFileSync(file, "utf8")).toContain("line 99\n");
    closeSync(fd);
  });

  it("drops lines beyond its bound, and says how many once lines flow again", async () => {
    const file = join(folder, "log");
    const fd = openSync(file, "a");
    const dropped: number[] = [];
    const writer = new LineWriter(fd, {
      maxWaitingChars: 10,
      onDropped: (lines) => dropped.push(lines),
    });
    for (const line of ["first\n", "second\n", "third\n", "fourth\n"]) writer.write(line);
    await vi.waitFor(() => expect(readFileSync(file, "utf8")).toBe("first\nsecond\n"));
    await vi.waitFor(() => expect(dropped).toEqual([2]));
    closeSync(fd);
  });

  it("loses lines and nothing else where they cannot be written", async () => {
    const readOnly = openSync(import.meta.filename, "r");
    const dropped: number[] = [];
    const writer = new LineWriter(readOnly, {
      maxWaitingChars: 10,
      onDropped: (lines) => dropped.push(lines),
    });
    for (const line of ["first\n", "second\n", "third\n"]) writer.write(line);
    await vi.waitFor(() => expect(dropped).toEqual([1]));
    writer.write("fourth\n");
    writer.write("fifth\n");
    expect(() => writer.flushSync()).not.toThrow();
    closeSync(readOnly);
  });
});
