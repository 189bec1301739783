/** The demo's page, and the admin page behind it, in a real browser: what they show when one clicks. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CommandProcess } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { lacks } from "../support/programs.ts";
import {
  CHROMIUM,
  type Complaint,
  DESKTOP,
  PHONE,
  TestBrowser,
  type TestPage,
} from "./support/browser.ts";

/** The page's clients wait for up to 8 s before they come back. */
const PATIENCE_MS = 20_000;

let browser: TestBrowser;
let demo: CommandProcess;
let page: TestPage;

/** Waits for what the pages must show. */
function shown<T>(probe: () => Promise<T>): Promise<T> {
  return eventually(probe, PATIENCE_MS);
}

async function shows(selector: string, text: string | RegExp, where = page): Promise<void> {
  await shown(async () => expect(await where.text(selector)).toMatch(text));
}

async function click(selector: string, where = page): Promise<void> {
  await where.page.locator(selector).click();
}

async function number(selector: string): Promise<number> {
  return Number(await page.text(selector));
}

/** An address, from what the demo prints. */
function printed(name: string): Promise<string> {
  return eventually(() => {
    const [, url] = new RegExp(`${name} +(http://\\S+)`).exec(demo.stdout) ?? [];
    if (url === undefined) throw new Error(`not printed: ${name}; ${demo.stdout}${demo.stderr}`);
    return url;
  });
}

type LineName = "kept" | "broken";

/** The figures of a line. */
async function figures(line: LineName) {
  const texts = await page.page.locator(`#${line}-score strong`).allInnerTexts();
  const [answered = "", lost, , connections] = texts;
  const [, count, sent] = /^(\d+) of (\d+)$/.exec(answered) ?? [];
  return {
    answered: Number(count),
    sent: Number(sent),
    lost: Number(lost),
    connections: Number(connections),
  };
}

/** Waits until a line has had so many answers more. */
async function goesOn(line: LineName, more = 5): Promise<void> {
  const { answered } = await figures(line);
  const from = Number.isNaN(answered) ? 0 : answered;
  await shown(async () =>
    expect((await figures(line)).answered).toBeGreaterThanOrEqual(from + more),
  );
}

type Side = "gateway" | "plain";

/** The ends that are listed on one side, newest first. */
async function ends(side: Side) {
  const texts = await page.page.locator(`#${side}-log li[data-code]`).allInnerTexts();
  return texts.map((text) => text.split("\n").map((part) => part.trim()));
}

/** Waits until each client on this side shows such a text. */
async function clientsShow(side: Side, ...wanted: readonly RegExp[]): Promise<void> {
  await shown(async () => {
    const texts = await page.page.locator(`#${side}-clients li`).allInnerTexts();
    const matches = expect.arrayContaining(wanted.map((text) => expect.stringMatching(text)));
    expect(texts).toEqual(matches);
    expect(texts).toHaveLength(wanted.length);
  });
}

/** The same button of both backends: nobody says which one serves whom. */
async function both(verb: "kill" | "freeze" | "revive", state: string): Promise<void> {
  for (const index of [0, 1]) {
    await click(`#${verb}-${index}`);
    await shows(`#state-${index}`, state);
  }
}

/** What the browser complains about, beside the plain proxy's connections: they do break. */
async function unexpectedComplaints(): Promise<Complaint[]> {
  const info = await fetch(`${await printed("softclose demo")}/api/info`);
  const { plainPort, plainCappedPort } = JSON.parse(await info.text());
  const plain = [plainPort, plainCappedPort].map(
    (port) => `WebSocket connection to 'ws://127.0.0.1:${port}/`,
  );
  return page.complaints.filter(({ text }) => !plain.some((start) => text.startsWith(start)));
}

/** Keeps a picture at either width; at neither one has to scroll sideways. */
async function expectPictures(name: string, where: TestPage): Promise<void> {
  for (const [kind, size] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    await where.page.setViewportSize(size);
    const { isPng, width, height } = await where.screenshot(`${name}-${kind}.png`);
    expect([isPng, width]).toEqual([true, size.width]);
    expect(height).toBeGreaterThanOrEqual(size.height);
    expect(await where.overflow()).toBeLessThanOrEqual(0);
  }
}

async function expectGoodEnd(): Promise<void> {
  expect(await unexpectedComplaints()).toEqual([]);
  await page.close();
  demo.child.kill("SIGTERM");
  await eventually(() => expect(demo.child.exitCode).toBe(0));
}

describe.skipIf(lacks(CHROMIUM))("in a browser", () => {
  beforeAll(async () => {
    browser = await TestBrowser.start();
  });

  afterAll(async () => {
    await browser?.stop();
  });

  beforeEach(async () => {
    demo = new CommandProcess(["demo", "--port", "0"]);
    page = await browser.open(await printed("softclose demo"));
  });

  afterEach(async () => {
    try {
      await expectGoodEnd();
    } finally {
      await demo.stop();
    }
  });

  it("the demo's line goes on over two kills with one connection, and the plain proxy's breaks", async () => {
    for (let kill = 1; kill <= 2; kill += 1) {
      await goesOn("kept");
      await goesOn("broken");
      const [, killed = ""] = /^Kill backend ([AB])$/.exec(await page.text("#line-act")) ?? [];
      const other = killed === "A" ? "B" : "A";
      await click("#line-act");
      await shows(
        "#kept-told",
        new RegExp(
          `^Backend ${killed} went, the WebSocket stayed: backend ${other} answers now, after a gap of [\\d.]+ m?s\\.$`,
        ),
      );
      await goesOn("kept");
      expect(await figures("kept")).toMatchObject({ lost: 0, connections: 1 });
      await shows(
        "#plain-log",
        `The connection over backend ${killed} broke: 1006, no reason given.`,
      );
      await shown(async () => expect((await figures("broken")).connections).toBe(kill + 1));
      expect((await figures("broken")).lost).toBeGreaterThan(0);
      if (kill === 1) await expectPictures("demo", page);
      await shows("#line-act", `Revive backend ${killed}`);
      await click("#line-act");
      await shows(killed === "A" ? "#state-0" : "#state-1", "running");
    }
    await shown(async () => {
      const { answered, sent } = await figures("kept");
      expect(answered).toBe(sent);
    });
    expect(await page.text("#gateway-log")).not.toContain("1006");
  });

  it("the demo's clients are told 1014 when their backend is killed, or nothing, and come back when it is revived", async () => {
    await click("#connect");
    for (const side of ["gateway", "plain"] as const)
      await clientsShow(side, /open.*backend [AB] · [1-9]\d* echo/s);
    await both("kill", "dead");
    await shows("#gateway-explained", /^[1-9]/);
    await shows("#plain-unexplained", /^[1-9]/);
    await both("revive", "running");
    for (const side of ["gateway", "plain"] as const) {
      await clientsShow(side, /open.*backend [AB] /s);
      await shows(`#${side}-log`, /back, on backend [AB]/);
    }
    const told = await ends("gateway");
    expect(told.at(-1)).toEqual(
      expect.arrayContaining(["1014", "“upstream connection lost”", "wasClean true"]),
    );
    expect(told.map(([code]) => code)).not.toContain("1006");
    expect(await number("#gateway-unexplained")).toBe(0);
    for (const end of await ends("plain"))
      expect(end).toEqual(expect.arrayContaining(["1006", "no reason given"]));
    expect(await number("#plain-explained")).toBe(0);
    await page.page.locator("#message").fill("Grüße");
    await click("#send");
    for (const side of ["gateway", "plain"])
      await shows(`#${side}-log`, /echo: backend [AB]: Grüße/);
  });

  it("the demo's second client under a cap of 1 is told when to come back, or nothing, and gets the first one's place", async () => {
    await click("#cap");
    await click("#connect");
    for (const side of ["gateway", "plain"] as const)
      await clientsShow(side, /open.*capped · backend A/s);
    await click("#connect");
    await shown(async () => {
      const [told] = await ends("gateway");
      expect(told).toEqual(
        expect.arrayContaining([
          "1013",
          expect.stringMatching(/^“at capacity; retry-after=[2-8]”$/),
          "wasClean true",
          expect.stringMatching(/^reconnects in [\d.]+ s: as told$/),
        ]),
      );
      const [guess] = await ends("plain");
      expect(guess).toEqual(
        expect.arrayContaining(["1006", "wasClean false, the handshake never succeeded"]),
      );
    });
    await click("#gateway-clients li:first-child button");
    await shown(async () => {
      const told = await ends("gateway");
      expect(told).toContainEqual(expect.arrayContaining(["1000", "“closed by the user”"]));
    });
    await clientsShow("gateway", /^#2.*open.*capped · backend A/s);
    expect(await number("#gateway-unexplained")).toBe(0);
  });

  it("the demo's line waits for frozen backends and loses nothing, while other clients are told 1014", async () => {
    await click("#connect");
    for (const side of ["gateway", "plain"] as const) await clientsShow(side, /open/);
    await goesOn("kept", 1);
    await both("freeze", "frozen");
    await shown(async () => {
      const told = await ends("gateway");
      expect(told.at(-1)).toEqual(
        expect.arrayContaining(["1014", "“upstream sent no pong in time”", "wasClean true"]),
      );
    });
    await shows("#kept-state", /^connected, \d+ messages wait$/);
    await clientsShow("plain", /no answer for \d+ s/);
    expect(await ends("plain")).toEqual([]);
    await both("revive", "running");
    await goesOn("kept");
    expect(await figures("kept")).toMatchObject({ lost: 0, connections: 1 });
  });

  it("the admin page lists the demo's sessions, moves one off a drained backend, and closes it", async () => {
    await goesOn("kept");
    const admin = await browser.open(await printed("admin page"));
    await shows("#state", "ready", admin);
    const row = "#sessions tbody tr:has-text('line')";
    await shows(row, /^127\.0\.0\.1\s+line\s+127\.0\.0\.1:\d+\s+open\s/, admin);
    expect(await admin.text("#tile-sessions")).toBe("1");
    await click("#pools .backend:has-text('pool echo'):has-text('1, no limit') button", admin);
    await shows("#pools", /0, no limit\s+pool echo\s+draining\s+Put back/, admin);
    await shows("#kept-told", /went, the WebSocket stayed/);
    await click(`${row} button`, admin);
    await shows("#closes tbody", /adminClosed[^]*\s1012\s/, admin);
    await shows("#gateway-log", /broke: 1012, “closed by an administrator”/);
    await shows(row, /open/, admin);
    await expectPictures("admin", admin);
    expect(admin.complaints).toEqual([]);
    await admin.close();
  });
});
