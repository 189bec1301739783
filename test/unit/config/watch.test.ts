import { mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { ConfigWatcher, contentOf } from "../../../src/config/watch.ts";

let folder: string;
let file: string;
let watcher: ConfigWatcher | null;
const onChange = vi.fn<(content: string) => void>();

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "softclose-watch-"));
  file = join(folder, "gateway.yaml");
  writeFileSync(file, "one");
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
});

afterEach(() => {
  watcher?.stop();
  const timers = vi.getTimerCount();
  vi.useRealTimers();
  onChange.mockClear();
  rmSync(folder, { recursive: true });
  if (timers > 0) throw new Error(`${timers} timers are left`);
});

function start(content = contentOf(file)): void {
  watcher = new ConfigWatcher(file, content, () => onChange(readFileSync(file, "utf8")));
}

/** As long as that, in steps between which the disk has its turns. */
async function pass(ms: number): Promise<void> {
  for (let passed = 0; passed < ms; passed += 100) {
    vi.advanceTimersByTime(100);
    for (let turn = 0; turn < 5; turn += 1) await readFile(folder).catch(() => undefined);
  }
}

const seen = (): string[] => onChange.mock.calls.map(([content]) => content);

describe("ConfigWatcher", () => {
  it("is silent as long as nothing changes, whatever else is written in the folder", async () => {
    start();
    for (let i = 0; i < 10; i += 1) {
      writeFileSync(join(folder, "busy.log"), `${i}`);
      writeFileSync(file, "one");
      await pass(1_000);
    }
    expect(seen()).toEqual([]);
  });

  it("tells of each change once", async () => {
    start();
    writeFileSync(file, "two");
    await pass(6_000);
    await pass(6_000);
    writeFileSync(`${file}.new`, "three");
    renameSync(`${file}.new`, file);
    await pass(6_000);
    expect(seen()).toEqual(["two", "three"]);
    // Back to what was there before is a change, too.
    writeFileSync(file, "one");
    await pass(6_000);
    expect(seen()).toEqual(["two", "three", "one"]);
  });

  it("tells of what has changed before it began to watch", async () => {
    start("what the gateway runs with");
    await pass(600);
    expect(seen()).toEqual(["one"]);
  });

  it("does not tell of half a file", async () => {
    start();
    for (let length = 1; length <= 20; length += 1) {
      writeFileSync(file, "a file that grows".repeat(length));
      await pass(100);
    }
    expect(seen()).toEqual([]);
    await pass(6_000);
    expect(seen()).toEqual(["a file that grows".repeat(20)]);
  });

  it("waits for a file that is gone to come back", async () => {
    start();
    rmSync(file);
    await pass(11_000);
    expect(seen()).toEqual([]);
    writeFileSync(file, "one");
    await pass(6_000);
    expect(seen()).toEqual([]);
    rmSync(file);
    await pass(6_000);
    writeFileSync(file, "two");
    await pass(6_000);
    expect(seen()).toEqual(["two"]);
  });

  it("sees what a link leads to change in another folder, without any event", async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), "softclose-watch-"));
    writeFileSync(join(elsewhere, "real.yaml"), "one");
    rmSync(file);
    symlinkSync(join(elsewhere, "real.yaml"), file);
    start();
    await pass(600);
    writeFileSync(join(elsewhere, "real.yaml"), "two");
    await pass(6_000);
    expect(seen()).toEqual(["two"]);
    rmSync(elsewhere, { recursive: true });
  });

  it("bears a folder that is not there, and one that goes", async () => {
    const gone = join(folder, "gone", "gateway.yaml");
    const early = new ConfigWatcher(gone, null, () => onChange("gone"));
    await pass(6_000);
    early.stop();
    start();
    rmSync(folder, { recursive: true });
    await pass(6_000);
    folder = mkdtempSync(folder);
    expect(seen()).toEqual([]);
  });

  it("is silent once it is stopped", async () => {
    start();
    writeFileSync(file, "two");
    await pass(300);
    watcher?.stop();
    await pass(11_000);
    expect(seen()).toEqual([]);
  });
});
