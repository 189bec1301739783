/** `softclose plan FILE` against running gateways: what it prints, and its exit code. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { freePort } from "../bench/free-port.ts";
import { PoliteRawClient } from "../support/clients.ts";
import { CommandProcess, type CommandResult, softclose } from "../support/command.ts";
import { type ConfigFile, startReloadable } from "../support/config-file.ts";
import { completeConfig, onePool, type TestGateway } from "../support/gateway.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let upstreams: RawUpstream[];
let gateway: TestGateway;
let file: ConfigFile;
const clients: PoliteRawClient[] = [];

beforeEach(async () => {
  upstreams = await Promise.all(
    [1, 2].map(() => RawUpstream.start((peer) => peer.answersClose().accept())),
  );
});

afterEach(async () => {
  for (const { raw } of clients.splice(0)) raw.socket.destroy();
  await gateway.gateway.stop();
  await Promise.all(upstreams.map((upstream) => upstream.stop()));
  file.remove();
});

const urls = (): string[] => upstreams.map(({ url }) => url);

async function start(yaml = onePool(urls())): Promise<void> {
  ({ gateway, file } = await startReloadable(yaml));
}

/** Runs `plan` with a file of its own, which nobody runs with. */
async function plan(
  yaml: string,
  args: readonly string[] = ["--admin", String(gateway.gateway.adminAddress)],
  env: Record<string, string> = {},
): Promise<CommandResult & { path: string }> {
  const path = join(file.folder, "next.yaml");
  writeFileSync(path, completeConfig(yaml));
  return { ...(await softclose(["plan", path, ...args], { env })), path };
}

it("says that nothing would change", async () => {
  await start();
  expect(await plan(`${onePool(urls())}# the same\n`)).toMatchObject({
    code: 0,
    stdout: "nothing would change\n",
    stderr: "",
  });
});

it("names everything that would, and how many sessions would be drained; changes nothing", async () => {
  await start();
  for (let i = 0; i < 5; i += 1) {
    const client = new PoliteRawClient(gateway.port);
    clients.push(client);
    await client.opened();
  }
  const [kept = "", removed = ""] = urls();
  const status = gateway.gateway.status().pools;
  const next = onePool(
    [kept, "ws://127.0.0.1:1"],
    "drain: { timeout: 1s }\nlog: { format: pretty }\n",
  )
    .replace("name: all", "name: every")
    .replace("backends:", "balance: roundRobin, backends:");
  const { code, stdout, stderr } = await plan(next);
  expect([code, stderr]).toEqual([0, ""]);
  expect(stdout.split("\n")).toEqual([
    "+ route every",
    "- route all",
    "~ pool main",
    "+ backend main ws://127.0.0.1:1",
    `- backend main ${removed}`,
    "~ drain",
    "~ log",
    "! log.format takes effect only with a restart",
    `${upstreams[1]?.peers.length} live sessions would be drained`,
    "",
  ]);
  expect(gateway.gateway.status()).toMatchObject({ pools: status, lastReload: null });
  expect(gateway.records).toEqual([]);
});

it("names what is wrong with the file, by line and column, without asking anybody", async () => {
  await start();
  const { code, stdout, stderr, path } = await plan(`${onePool(urls())}refuse: never\n`, [
    "--admin",
    "127.0.0.1:1",
  ]);
  expect([code, stdout]).toEqual([64, ""]);
  expect(stderr).toContain(`${path}:5:9: refuse: `);
  const missing = await softclose(["plan", join(file.folder, "nowhere.yaml")]);
  expect(missing).toMatchObject({ code: 64, stderr: expect.stringContaining("no such file") });
});

it("names what is wrong where the gateway runs, under the file's own name", async () => {
  await start();
  const { code, stderr, path } = await plan(
    `${onePool(urls())}refuse: "\${HOW}"\n`,
    ["--admin", String(gateway.gateway.adminAddress)],
    { HOW: "http" },
  );
  expect([code, stderr]).toEqual([64, expect.stringMatching(/HOW/)]);
  expect(stderr.startsWith(`${path}:5:`)).toBe(true);
});

it("finds the gateway by the file, with the file's token", async () => {
  const port = await freePort();
  const admin = (bind: string, token: string): string =>
    `admin: { bind: "${bind}:${port}", token: ${token} }\n${onePool(urls())}`;
  await start(admin("127.0.0.1", "secret"));
  expect(await plan(admin("127.0.0.1", "secret"), [])).toMatchObject({
    code: 0,
    stdout: "nothing would change\n",
  });
  const otherToken = admin("127.0.0.1", "other");
  const refused = await plan(otherToken, []);
  expect(refused).toMatchObject({ code: 1, stdout: "" });
  expect(refused.stderr).toBe(
    `the gateway at 127.0.0.1:${port} answered 401: {"error":"token required"}\n`,
  );
  expect(await plan(otherToken, ["--token", "secret"])).toMatchObject({
    code: 0,
    stdout: "~ admin\n0 live sessions would be drained\n",
  });
  // An address of all interfaces is asked by the loopback.
  expect(await plan(admin("0.0.0.0", "secret"), [])).toMatchObject({ code: 0 });
});

it("says that there is no gateway, or no way to one", async () => {
  await start();
  const port = await freePort();
  const dead = await plan(onePool(urls()), ["--admin", `127.0.0.1:${port}`]);
  expect(dead).toMatchObject({ code: 1, stdout: "" });
  expect(dead.stderr).toMatch(/^no gateway answers at 127\.0\.0\.1:\d+: .*ECONNREFUSED/);
  const nowhere = await plan(`admin: { bind: off }\n${onePool(urls())}`, []);
  expect(nowhere).toMatchObject({ code: 64, stderr: expect.stringContaining("--admin") });
  expect((await plan(onePool(urls()), ["--admin", "no port here"])).code).toBe(1);
});

it("says that a gateway without a file has nothing to reload", async () => {
  await start();
  const run = new CommandProcess([
    "run",
    "--listen",
    "127.0.0.1:0",
    "--upstream",
    urls()[0] ?? "",
    "--admin",
    "127.0.0.1:0",
  ]);
  await run.ready();
  const args = ["--admin", `127.0.0.1:${run.port("admin")}`];
  expect(await plan(onePool(urls()), args)).toMatchObject({
    code: 64,
    stderr: expect.stringContaining("no configuration file"),
  });
  await run.stop();
});
