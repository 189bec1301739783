/**
 * A self-contained HTML page, read once, with a Content-Security-Policy that names its inline scripts
 * and style by hash: text that slipped into the page as markup would still not run.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Answer } from "./http-server.ts";

export interface StaticPage {
  readonly answer: Answer;
}

/** `connectTo`: CSP sources that the page's script may talk to besides its own origin. */
export function loadStaticPage(file: URL, connectTo: readonly string[] = []): StaticPage {
  const text = withScripts(file);
  const policy = [
    "default-src 'none'",
    `script-src ${hashes(text, "script")}`,
    `style-src ${hashes(text, "style")}`,
    "img-src data:",
    `connect-src ${["'self'", ...connectTo].join(" ")}`,
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
  const headers = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": policy,
  };
  return { answer: { status: 200, headers, body: Buffer.from(text) } };
}

/** `<script type="module" src="name.js">` becomes the text of that file: the page stays one answer. */
function withScripts(file: URL): string {
  const tag = /<script type="module" src="([\w-]+\.js)"><\/script>/g;
  return readFileSync(file, "utf8").replace(
    tag,
    (_, name: string) =>
      `<script type="module">\n${readFileSync(new URL(name, file), "utf8")}</script>`,
  );
}

function hashes(html: string, element: "script" | "style"): string {
  const sources: string[] = [];
  for (const [, body] of html.matchAll(
    new RegExp(`<${element}[^>]*>([\\s\\S]*?)</${element}>`, "g"),
  )) {
    const digest = createHash("sha256")
      .update(body ?? "")
      .digest("base64");
    sources.push(`'sha256-${digest}'`);
  }
  return sources.length === 0 ? "'none'" : sources.join(" ");
}
