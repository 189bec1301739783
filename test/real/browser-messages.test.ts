/** Messages of a real browser, which always offers permessage-deflate: they arrive as they were sent. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BackendProcess } from "../support/backend-process.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { lacks } from "../support/programs.ts";
import {
  type BrowserSocket,
  CHROMIUM,
  type MessageKind,
  TestBrowser,
  type TestPage,
} from "./support/browser.ts";

/** Around every bound of the frame format (RFC 6455 §5.2) and of what is held whole, then larger. */
const SIZES = [0, 1, 125, 126, 65_535, 65_536, 65_537, 1024 * 1024];
const KINDS: readonly MessageKind[] = ["text", "binary"];
const SESSION_RETRY = "retry: { session: { enabled: true, notify: resumed } }\n";

let browser: TestBrowser;
let page: TestPage;
let gateway: TestGateway;
const backends: BackendProcess[] = [];

/** Every backend echoes, compresses everything, and refers to earlier messages where it may. */
async function open(yaml: string): Promise<BrowserSocket> {
  for (let count = 0; count < 2; count += 1)
    backends.push(await BackendProcess.start("", "deflating-backend.mjs"));
  gateway = await startGateway(
    onePool(
      backends.map(({ url }) => url),
      yaml,
    ),
  );
  return await page.websocket(gateway.url());
}

async function exchangeAll(socket: BrowserSocket): Promise<void> {
  for (const kind of KINDS) {
    // The same message twice: the second one may be no more than a reference to the first.
    for (const length of SIZES.flatMap((size) => [size, size])) {
      const answer = await socket.exchange(kind, length);
      expect([kind, answer]).toEqual([kind, { length, same: true }]);
    }
  }
}

/** Kills the backend that serves the only session. */
async function killServing(): Promise<void> {
  const [session] = gateway.gateway.sessions(1);
  const serving = backends.find(({ url }) => url === session?.backend);
  if (serving === undefined) throw new Error("no backend serves it");
  await serving.kill();
}

describe.skipIf(lacks(CHROMIUM))("a browser's compressed messages", () => {
  beforeAll(async () => {
    browser = await TestBrowser.start();
  });

  afterAll(async () => {
    await browser?.stop();
  });

  beforeEach(async () => {
    page = await browser.open();
  });

  afterEach(async () => {
    try {
      await page.close();
      await gateway?.stopClean();
    } finally {
      await Promise.all(backends.splice(0).map((backend) => backend.kill()));
    }
  });

  it("are echoed byte for byte, with context takeover both ways", async () => {
    const socket = await open("");
    expect((await socket.opened()).extensions).toBe("permessage-deflate");
    await exchangeAll(socket);
    await socket.close(1000, "");
    expect(await socket.ended()).toEqual({
      code: 1000,
      reason: "",
      wasClean: true,
      opens: 1,
      errors: 0,
    });
  });

  it("go on over a second backend when the first is killed, and its WebSocket stays open", async () => {
    const socket = await open(SESSION_RETRY);
    const { extensions } = await socket.opened();
    expect(extensions).toBe("permessage-deflate; client_no_context_takeover");
    await exchangeAll(socket);
    await killServing();
    await socket.hears("resumed");
    await exchangeAll(socket);
    await socket.close(1000, "");
    expect(await socket.ended()).toMatchObject({ code: 1000, wasClean: true, opens: 1, errors: 0 });
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "clientClosed", resumes: 1 });
  });
});
