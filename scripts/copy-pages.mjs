// Copies the HTML pages that src serves as they are (no bundler) next to the compiled code.
import { cpSync, readdirSync } from "node:fs";
import { join } from "node:path";

for (const entry of readdirSync("src", { recursive: true, encoding: "utf8" })) {
  if (entry.endsWith(".html")) cpSync(join("src", entry), join("dist", entry));
}
