/** A real browser: headless Chromium with an empty profile, for what only a browser's WebSocket shows. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type BrowserContext, chromium, type JSHandle, type Page } from "playwright-core";
import { pathOf, program } from "../../support/programs.ts";

export const CHROMIUM = program("chromium");

/** Where screenshots are kept. */
const ARTEFACTS = fileURLToPath(new URL("../../../build/artefacts/", import.meta.url));
const PAGE_SOCKET = fileURLToPath(new URL("./page-socket.js", import.meta.url));
const START_MS = 30_000;
/** For what a page has to show. */
const SHOWN_MS = 20_000;

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--no-first-run",
  // It is to talk to the test and to nobody else.
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-quic",
];

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

/** What a page's `onclose` was told, and how many `onopen` and `onerror` there were before. */
export interface SocketEnd {
  readonly code: number;
  readonly reason: string;
  readonly wasClean: boolean;
  readonly opens: number;
  readonly errors: number;
}

/** What the browser has agreed to. */
export interface Agreed {
  readonly protocol: string;
  readonly extensions: string;
}

export type MessageKind = "text" | "binary";

/** What the class of `page-socket.js` can do, seen from here. */
interface PageSocket {
  opened(): Promise<Agreed>;
  ended(): Promise<SocketEnd>;
  hears(text: string): Promise<void>;
  send(text: string): void;
  sendBytes(length: number): void;
  close(code: number, reason: string): void;
  exchange(kind: MessageKind, length: number): Promise<{ length: number; same: boolean }>;
}

/** An error in a page's console; `url`: of what it speaks. */
export interface Complaint {
  readonly text: string;
  readonly url: string;
}

export class TestBrowser {
  readonly #context: BrowserContext;
  readonly #profile: string;

  private constructor(context: BrowserContext, profile: string) {
    this.#context = context;
    this.#profile = profile;
  }

  /** Remember `stop` at the end. */
  static async start(): Promise<TestBrowser> {
    const profile = mkdtempSync(join(tmpdir(), "softclose-browser-"));
    try {
      const context = await chromium.launchPersistentContext(profile, {
        executablePath: pathOf("chromium"),
        headless: true,
        args: FLAGS,
        viewport: DESKTOP,
        timeout: START_MS,
      });
      context.setDefaultTimeout(SHOWN_MS);
      await context.addInitScript({ path: PAGE_SOCKET });
      return new TestBrowser(context, profile);
    } catch (error) {
      removeProfile(profile);
      throw error;
    }
  }

  /** A new page, at `url` if there is one. */
  async open(url?: string): Promise<TestPage> {
    const page = new TestPage(await this.#context.newPage());
    if (url !== undefined) await page.page.goto(url);
    return page;
  }

  async stop(): Promise<void> {
    try {
      await this.#context.close();
    } finally {
      removeProfile(this.#profile);
    }
  }
}

export class TestPage {
  readonly page: Page;
  /** Uncaught exceptions and errors in the console so far, those of the browser itself included. */
  readonly complaints: Complaint[] = [];

  constructor(page: Page) {
    this.page = page;
    page.on("console", (message) => {
      if (message.type() !== "error") return;
      this.complaints.push({ text: message.text(), url: message.location().url });
    });
    page.on("pageerror", ({ message }) => this.complaints.push({ text: message, url: "" }));
  }

  /** Opens a WebSocket in the page, whatever becomes of it. */
  async websocket(url: string, protocols: readonly string[] = []): Promise<BrowserSocket> {
    const args = [url, protocols].map((value) => JSON.stringify(value)).join(", ");
    return new BrowserSocket(await this.page.evaluateHandle<PageSocket>(`new PageSocket(${args})`));
  }

  /** Opens a WebSocket and waits for its end. */
  async websocketEnd(url: string, protocols: readonly string[] = []): Promise<SocketEnd> {
    return await (await this.websocket(url, protocols)).ended();
  }

  /** The text that an element shows. */
  async text(selector: string): Promise<string> {
    return await this.page.locator(selector).innerText();
  }

  /** How many pixels of the page stand out at the right of the window. */
  async overflow(): Promise<number> {
    return await this.page.evaluate<number>("document.documentElement.scrollWidth - innerWidth");
  }

  /** Keeps a picture of the whole page, beside the build. */
  async screenshot(name: string): Promise<Picture> {
    mkdirSync(ARTEFACTS, { recursive: true });
    const path = join(ARTEFACTS, name);
    await this.page.screenshot({ path, fullPage: true });
    return readPicture(path);
  }

  async close(): Promise<void> {
    await this.page.close();
  }
}

/** A WebSocket in a page. */
export class BrowserSocket {
  readonly #handle: JSHandle<PageSocket>;

  constructor(handle: JSHandle<PageSocket>) {
    this.#handle = handle;
  }

  opened(): Promise<Agreed> {
    return this.#handle.evaluate((socket) => socket.opened());
  }

  ended(): Promise<SocketEnd> {
    return this.#handle.evaluate((socket) => socket.ended());
  }

  /** Waits for a text message. */
  hears(text: string): Promise<void> {
    return this.#handle.evaluate((socket, wanted) => socket.hears(wanted), text);
  }

  send(text: string): Promise<void> {
    return this.#handle.evaluate((socket, message) => socket.send(message), text);
  }

  sendBytes(length: number): Promise<void> {
    return this.#handle.evaluate((socket, bytes) => socket.sendBytes(bytes), length);
  }

  close(code: number, reason: string): Promise<void> {
    return this.#handle.evaluate((socket, close) => socket.close(close.code, close.reason), {
      code,
      reason,
    });
  }

  /** Sends a message of so many bytes; the size of the next one that comes, and whether it is the same. */
  exchange(kind: MessageKind, length: number): Promise<{ length: number; same: boolean }> {
    return this.#handle.evaluate(
      (socket, message) => socket.exchange(message.kind, message.length),
      {
        kind,
        length,
      },
    );
  }
}

interface Picture {
  readonly isPng: boolean;
  readonly width: number;
  readonly height: number;
}

function readPicture(path: string): Picture {
  const bytes = readFileSync(path);
  // Signature, then the IHDR chunk: length, type, width, height (PNG §5.2, §11.2.2).
  return {
    isPng: bytes.subarray(0, 8).equals(Buffer.from("89504e470d0a1a0a", "hex")),
    width: bytes.readUInt32BE(16),
    height: bytes.readUInt32BE(20),
  };
}

/** Chromium's children may still write for a moment after it has ended. */
function removeProfile(profile: string): void {
  rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
}
