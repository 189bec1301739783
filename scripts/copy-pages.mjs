// Copies the HTML pages, and their scripts, that src serves as they are (no bundler) next to the compiled code.
import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";

for (const entry of readdirSync("src", { recursive: true, encoding: "utf8" })) {
  if (/\.(?:html|js)$/.test(entry)) cpSync(join("src", entry), join("dist", entry));
}
