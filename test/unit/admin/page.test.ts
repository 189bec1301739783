import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { loadStaticPage } from "../../../src/admin/static-page.ts";
import { CAUSES } from "../../../src/close/causes.ts";

const PAGES = ["admin/page.html", "cli/demo-page.html"];

const fileOf = (page: string) => new URL(`../../../src/${page}`, import.meta.url);

describe.each(PAGES)("the page %s", (page) => {
  const file = fileOf(page);
  const { answer } = loadStaticPage(file);
  const html = answer.body.toString();

  it("fetches nothing from elsewhere", () => {
    expect(html.replace('<link rel="icon" href="data:,">', "")).not.toMatch(
      /<(?:link|img|iframe|object|embed|base)\b/i,
    );
    expect(html).not.toMatch(/<script[^>]+src/i);
    expect(html).not.toMatch(/@import|url\((?!["']?data:)/i);
    expect(html).not.toMatch(/(?:https?|wss?):\/\/(?!\$\{location\.hostname\})\w/i);
  });

  it("puts no text of others into markup", () => {
    expect(html).not.toMatch(/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b/);
    expect(html).not.toMatch(/\son\w+\s*=\s*["']/);
  });

  it("runs only its own script and style", () => {
    const policy = answer.headers["Content-Security-Policy"];
    const scripts = html.match(/<script\b/g) ?? [];
    expect(policy).toMatch(/default-src 'none'/);
    expect(policy).toMatch(new RegExp(`script-src(?: 'sha256-[^']+'){${scripts.length}};`));
    expect(policy).toMatch(/style-src 'sha256-[^']+';/);
    expect(policy).not.toContain("unsafe");
    expect(html).not.toMatch(/\sstyle\s*=/);
  });

  it("fits a phone and both colour schemes", () => {
    expect(html).toMatch(/<meta name="viewport"/);
    expect(html).toContain("prefers-color-scheme");
  });

  it("gives each id once", () => {
    const ids = [...html.matchAll(/\sid="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
  });
});

describe("the admin page", () => {
  it("explains every cause in one line", () => {
    const html = readFileSync(fileOf("admin/page.html"), "utf8");
    const table = /const CAUSES = \{\n([\s\S]*?)\n\};/.exec(html)?.[1] ?? "";
    const explained = [...table.matchAll(/^ {2}(\w+): \["(?:good|warn|bad)?", ".+"\],$/gm)];
    expect(explained.map(([, cause]) => cause)).toEqual([...CAUSES]);
  });
});
