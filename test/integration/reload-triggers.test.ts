/** What makes a running gateway read its configuration again, in a process of its own. */
import {
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { completeConfig } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let folder: string;
let file: string;
let gateway: GatewayProcess;
let client: PoliteRawClient;

beforeEach(async () => {
  upstream = await RawUpstream.start((peer) => peer.answersClose().accept());
  folder = mkdtempSync(join(tmpdir(), "softclose-triggers-"));
  file = join(folder, "gateway.yaml");
});

afterEach(async () => {
  client.raw.socket.destroy();
  await gateway.stop();
  await upstream.stop();
});

/** A configuration that can be told by its route's name. */
function named(route: string, more = ""): string {
  return completeConfig(
    `routes: [{ name: ${route}, pool: main }]\npools: { main: { backends: [{ url: "${upstream.url}" }] } }\n${more}`,
  );
}

/** With a session that is to see nothing of it all. */
async function start(): Promise<void> {
  gateway = await GatewayProcess.startWith(file, folder);
  client = new PoliteRawClient(gateway.port);
  await client.opened();
}

async function runsWith(route: string): Promise<void> {
  await eventually(async () => {
    const { routes } = await gateway.status();
    expect(routes.map(({ name }) => name)).toContain(route);
  }, 12_000);
}

async function theSessionLives(): Promise<void> {
  client.sendText("still here");
  await (await upstream.peer()).log.received(1);
  expect([client.log.closes, gateway.records]).toEqual([[], []]);
}

async function reloads(outcome: string): Promise<number> {
  return await gateway.metric(`softclose_config_reloads_total{outcome="${outcome}"}`);
}

it("a file that is written in place, and one that an editor puts in its place", async () => {
  writeFileSync(file, named("first"));
  await start();
  writeFileSync(file, named("second"));
  await runsWith("second");
  writeFileSync(`${file}.swp`, named("third"));
  renameSync(`${file}.swp`, file);
  await runsWith("third");
  // vim's way: the old one is moved aside first, and for a moment there is none.
  renameSync(file, `${file}~`);
  writeFileSync(file, named("fourth"));
  await runsWith("fourth");
  await theSessionLives();
  expect([await reloads("applied"), await reloads("invalid")]).toEqual([3, 0]);
  expect(await gateway.status()).toMatchObject({ lastReload: { outcome: "applied" } });
});

it("a ConfigMap whose link is swapped", async () => {
  const version = (name: string): void => {
    mkdirSync(join(folder, name));
    writeFileSync(join(folder, name, "gateway.yaml"), named(name.slice(2)));
    symlinkSync(name, join(folder, "..data_tmp"));
    renameSync(join(folder, "..data_tmp"), join(folder, "..data"));
  };
  version("..one");
  symlinkSync("..data/gateway.yaml", file);
  await start();
  version("..two");
  rmSync(join(folder, "..one"), { recursive: true });
  await runsWith("two");
  version("..three");
  rmSync(join(folder, "..two"), { recursive: true });
  await runsWith("three");
  await theSessionLives();
  expect([await reloads("applied"), await reloads("invalid")]).toEqual([2, 0]);
});

it("SIGHUP and POST /api/reload, also where nothing has changed", async () => {
  writeFileSync(file, named("first", "admin: { bind: '127.0.0.1:0', token: secret }\n"));
  await start();
  gateway.signal("SIGHUP");
  await eventually(async () => expect(await reloads("unchanged")).toBe(1));
  const ask = async (headers: Record<string, string>): Promise<number> =>
    (await fetch(`${gateway.adminUrl}/api/reload`, { method: "POST", headers })).status;
  expect(await ask({})).toBe(401);
  expect(await ask({ Authorization: "Bearer wrong" })).toBe(401);
  expect(await ask({ Authorization: "Bearer secret", Origin: "http://evil.example" })).toBe(403);
  expect(await ask({ Authorization: "Bearer secret" })).toBe(200);
  expect(await reloads("unchanged")).toBe(2);
  await theSessionLives();
});

it("a file that is no good is reported with every line, and changes nothing", async () => {
  writeFileSync(file, named("first"));
  await start();
  writeFileSync(file, named("second", "refuse: never\nlimits: { maxConnections: -1 }\n"));
  await eventually(async () => expect(await reloads("invalid")).toBe(1));
  const { routes, lastReload } = await gateway.status();
  expect(routes).toMatchObject([{ name: "first" }]);
  expect(lastReload).toMatchObject({ outcome: "invalid" });
  expect(lastReload?.problems).toHaveLength(2);
  expect(lastReload?.problems[0]).toContain(`${file}:5:9: refuse: `);
  expect(gateway.lines.find(({ level }) => level === "error")).toMatchObject({
    msg: "reload changed nothing",
    problems: lastReload?.problems,
  });
  // Nor does one that is gone, which nobody reports: it may be on its way.
  unlinkSync(file);
  gateway.signal("SIGHUP");
  await eventually(async () => expect(await reloads("invalid")).toBe(2));
  await theSessionLives();
  writeFileSync(file, named("third"));
  await runsWith("third");
});
