/**
 * Tells when the configuration file has changed. Looks at what the path leads to, so that it sees an
 * editor's rename, a write in place, and Kubernetes' way of swapping the symbolic link `..data`. Events
 * of the file system only hasten the look: some file systems have none.
 */
import { type FSWatcher, readFileSync, watch } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname } from "node:path";

/** Without any event. */
const LOOK_EVERY_MS = 5_000;
/**
 * Writers truncate first and write then: half a file may be a valid one with half the backends. Only
 * what is still the same after this counts.
 */
const SETTLE_MS = 200;

/** What a file holds; null: nobody knows. Read it before the configuration, or in the same turn. */
export function contentOf(file: string): string | null {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return null;
  }
}

export class ConfigWatcher {
  readonly #file: string;
  readonly #onChange: () => void;
  readonly #poll: NodeJS.Timeout;
  #watcher: FSWatcher | null = null;
  #nextLook: NodeJS.Timeout | undefined;
  /** What is in use. */
  #content: string | null;
  /** Something else, seen once. */
  #news: string | null = null;
  #state: "watching" | "stopped" = "watching";

  /** `onChange` is called when the file holds something else than `content`, or than at the last call. */
  constructor(file: string, content: string | null, onChange: () => void) {
    this.#file = file;
    this.#content = content;
    this.#onChange = onChange;
    try {
      // The folder, as the file itself may be replaced, and with a ConfigMap what it is a link to.
      this.#watcher = watch(dirname(file), () => this.#soon());
      this.#watcher.on("error", () => this.#watcher?.close());
    } catch {
      // No events here (too many watches, or a file system without): the poll finds it.
    }
    this.#poll = setInterval(() => this.#soon(), LOOK_EVERY_MS);
    this.#soon();
  }

  stop(): void {
    this.#state = "stopped";
    this.#watcher?.close();
    clearInterval(this.#poll);
    clearTimeout(this.#nextLook);
  }

  /** Further events do not put it off: in a folder with a busy log there is always one more. */
  #soon(): void {
    this.#nextLook ??= setTimeout(() => {
      this.#nextLook = undefined;
      void this.#look();
    }, SETTLE_MS);
  }

  async #look(): Promise<void> {
    // A file that is not there is on its way: between two renames, or with the next mount.
    const content = await readFile(this.#file, "utf8").catch(() => null);
    if (content === null || this.#state === "stopped") return;
    if (content === this.#content) {
      this.#news = null;
    } else if (content === this.#news) {
      this.#content = content;
      this.#news = null;
      this.#onChange();
    } else {
      this.#news = content;
      this.#soon();
    }
  }
}
