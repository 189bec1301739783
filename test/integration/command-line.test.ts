/** The `softclose` binary, as an operator meets it: what it prints, and its exit codes. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { CommandProcess, softclose } from "../support/command.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient } from "../support/raw-client.ts";
import { RawUpstream } from "../support/raw-upstream.ts";

let folder: string;
const running: CommandProcess[] = [];

const GOOD = `
listeners: [{ name: public, bind: "127.0.0.1:0" }]
admin: { bind: "127.0.0.1:0" }
routes: [{ name: all, pool: main }]
pools: { main: { backends: [{ url: "ws://127.0.0.1:1" }] } }
`;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "softclose-command-"));
});

afterAll(() => rmSync(folder, { recursive: true }));

afterEach(async () => {
  for (const command of running.splice(0)) await command.stop();
});

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function start(...parameters: ConstructorParameters<typeof CommandProcess>): CommandProcess {
  const command = new CommandProcess(...parameters);
  running.push(command);
  return command;
}

const LOCAL = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/** An operator's mistake: one clear line, and nothing that looks like a crash. */
function expectOneLine(stderr: string): void {
  expect(stderr.trimEnd().split("\n")).toHaveLength(1);
  expectNoStack(stderr);
}

function expectNoStack(text: string): void {
  expect(text).not.toMatch(/^ {4}at /m);
  expect(text).not.toMatch(/node:internal|\bError:/);
}

describe("check", () => {
  it("says what a good file holds and ends with 0", async () => {
    const path = file("good.yaml", GOOD);
    expect(await softclose(["check", path])).toEqual({
      code: 0,
      stdout: `${path}: ok (1 listener, 1 route, 1 pool, 1 backend)\n`,
      stderr: "",
    });
  });

  it("lists everything that is wrong with line and column and ends with 64", async () => {
    const path = file(
      "bad.yaml",
      GOOD.replace("all", '"a b"').replace("ws://", "http://").concat("nonsense: 1\n"),
    );
    const { code, stdout, stderr } = await softclose(["check", path]);
    expect([code, stdout]).toEqual([64, ""]);
    const lines = stderr.trimEnd().split("\n");
    expect(lines).toHaveLength(3);
    for (const line of lines) expect(line).toMatch(/bad\.yaml:\d+:\d+: /);
    expectNoStack(stderr);
  });
});

describe.each(["check", "run"])("%s", (command) => {
  const args = (path: string): string[] =>
    command === "run" ? ["run", "-c", path] : ["check", path];

  it("says in one line that a file is missing", async () => {
    const { code, stderr } = await softclose(args(join(folder, "none.yaml")));
    expect(code).toBe(64);
    expectOneLine(stderr);
    expect(stderr).toContain("none.yaml: there is no such file");
  });

  it("says in one line that a file cannot be read", async () => {
    // Not by its permissions: root reads everything.
    const path = join(folder, "a-folder.yaml");
    mkdirSync(path, { recursive: true });
    const { code, stderr } = await softclose(args(path));
    expect(code).toBe(64);
    expectOneLine(stderr);
    expect(stderr).toContain("is a directory, not a file");
  });

  it("says in one line that a variable is not set", async () => {
    const path = file("unset.yaml", GOOD.replace("ws://127.0.0.1:1", "${BACKEND_URL}"));
    const { code, stderr } = await softclose(args(path));
    expect(code).toBe(64);
    expectOneLine(stderr);
    expect(stderr).toMatch(/unset\.yaml:5:\d+: .*BACKEND_URL/);
  });

  it.each([
    ["an empty file", ""],
    ["no YAML", "\tx: [}"],
    ["binary", "\u0000\u0001\u0002"],
  ])("survives %s", async (_title, text) => {
    const { code, stderr } = await softclose(args(file("odd.yaml", text)));
    expect(code).toBe(64);
    expect(stderr).not.toBe("");
    expectNoStack(stderr);
  });
});

describe("usage", () => {
  it.concurrent.each([
    ["no command", []],
    ["an unknown command", ["serve"]],
    ["an unknown flag", ["run", "--port", "1"]],
    ["an unknown flag before the command", ["--verbose", "run"]],
    ["a flag without its value", ["run", "-c"]],
    ["too many arguments", ["check", "a", "b"]],
    ["check without a file", ["check"]],
    ["explain without a code", ["explain"]],
    ["explain with no code", ["explain", "busy"]],
    ["explain with a code that is none", ["explain", "70000"]],
    ["run without anything to run", ["run"]],
    ["run without a listener", ["run", "--upstream", "ws://127.0.0.1:1"]],
    ["run with a bad address", ["run", "--listen", "nowhere", "--upstream", "ws://127.0.0.1:1"]],
    ["run with a bad upstream", ["run", ...LOCAL, "--upstream", "ftp://x"]],
    [
      "run with a bad cap",
      ["run", ...LOCAL, "--upstream", "ws://127.0.0.1:1", "--max-connections", "-1"],
    ],
    ["run with a file and flags", ["run", "-c", "x.yaml", "--listen", "127.0.0.1:0"]],
    ["demo with a bad port", ["demo", "--port", "x"]],
  ])("ends with 64 for %s", async (_title, args) => {
    const { code, stdout, stderr } = await softclose(args);
    expect([code, stdout]).toEqual([64, ""]);
    expect(stderr).not.toBe("");
    expectNoStack(stderr);
  });

  it.each([[["--help"]], [["help"]], [["run", "--help"]], [["help", "check"]]])(
    "helps with %j and ends with 0",
    async (args) => {
      const { code, stdout, stderr } = await softclose(args);
      expect([code, stderr]).toEqual([0, ""]);
      expect(stdout).toContain("Usage: softclose");
    },
  );

  it("prints its version", async () => {
    const { code, stdout } = await softclose(["--version"]);
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^\d+\.\d+\.\d+\n$/)]);
  });
});

describe("schema", () => {
  it("prints the whole JSON Schema, from any folder", async () => {
    const { code, stdout, stderr } = await softclose(["schema"], { cwd: folder });
    expect([code, stderr]).toEqual([0, ""]);
    const schema: Record<string, unknown> = JSON.parse(stdout);
    expect(schema["$schema"]).toContain("json-schema.org");
    expect(schema["properties"]).toHaveProperty("listeners");
  });
});

describe("explain", () => {
  it("explains one code, or how two differ", async () => {
    const one = await softclose(["explain", "1006"]);
    expect([one.code, one.stdout.split("\n")[0]]).toEqual([0, expect.stringContaining("1006")]);
    const two = await softclose(["explain", "1000", "1013"]);
    expect(two.code).toBe(0);
    expect(two.stdout).toContain("How they differ");
  });

  it("does not mind a reader who leaves", async () => {
    for (const args of [["schema"], ["explain", "1006"], ["nonsense"]]) {
      const command = start(args);
      command.child.stdout?.destroy();
      const { code, stderr } = await command.ended;
      expect(code).toBe(args[0] === "nonsense" ? 64 : 0);
      expectNoStack(stderr);
    }
  });
});

describe("run", () => {
  it("logs every address, then that it is ready, and nothing else", async () => {
    const command = start(["run", "-c", file("run.yaml", GOOD)]);
    await command.ready();
    expect(command.lines.map(({ msg, listener }) => [msg, listener])).toEqual([
      ["listening", "admin"],
      ["listening", "public"],
      ["ready", undefined],
    ]);
    expect((await fetch(`http://127.0.0.1:${command.port("admin")}/readyz`)).status).toBe(200);
    command.child.kill("SIGTERM");
    expect(await command.ended).toMatchObject({ code: 0, stderr: "" });
    expect(command.lines.map(({ msg }) => msg)).toEqual([
      "listening",
      "listening",
      "ready",
      "stopping",
      "draining",
      "drained",
    ]);
  });

  it.each([
    [
      "flags",
      [
        "--upstream",
        "ws://127.0.0.1:1",
        "--upstream",
        "ws://127.0.0.1:2",
        "--max-connections",
        "7",
      ],
      {},
    ],
    [
      "the environment",
      [],
      {
        SOFTCLOSE_UPSTREAM: "ws://127.0.0.1:1, ws://127.0.0.1:2",
        SOFTCLOSE_MAX_CONNECTIONS: "7",
        SOFTCLOSE_CONFIG: "",
      },
    ],
  ])("needs no file with %s", async (_title, args, env) => {
    const command = start(["run", ...LOCAL, ...args], { env });
    await command.ready();
    const response = await fetch(`http://127.0.0.1:${command.port("admin")}/api/status`);
    expect(await response.json()).toMatchObject({
      pools: [
        {
          name: "default",
          backends: [
            { url: "ws://127.0.0.1:1", maxConnections: 7 },
            { url: "ws://127.0.0.1:2", maxConnections: 7 },
          ],
        },
      ],
    });
    command.child.kill("SIGINT");
    expect((await command.ended).code).toBe(0);
  });

  it("takes its file from the environment, with the file's own variables", async () => {
    const path = file("env.yaml", GOOD.replace("127.0.0.1:1", "127.0.0.1:${BACKEND_PORT:-9}"));
    const command = start(["run"], { env: { SOFTCLOSE_CONFIG: path, BACKEND_PORT: "4711" } });
    await command.ready();
    const response = await fetch(`http://127.0.0.1:${command.port("admin")}/api/status`);
    expect(JSON.stringify(await response.json())).toContain("ws://127.0.0.1:4711");
  });

  it.each(["public", "admin"])("says in one line that the port of %s is in use", async (which) => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const taken = `127.0.0.1:${port}`;
    const yaml =
      which === "admin"
        ? GOOD.replace('admin: { bind: "127.0.0.1:0" }', `admin: { bind: "${taken}" }`)
        : GOOD.replace('name: public, bind: "127.0.0.1:0"', `name: public, bind: "${taken}"`);
    const { code, stderr } = await softclose(["run", "-c", file("taken.yaml", yaml)]);
    expect(code).toBe(1);
    expectOneLine(stderr);
    const what = which === "admin" ? "admin" : "listener public";
    expect(stderr).toBe(`cannot listen on ${taken} (${what}): the address is in use\n`);
    await new Promise((resolve) => other.close(resolve));
  });

  it("says in one line that an address is not this machine's", async () => {
    const flags = [
      "--listen",
      "192.0.2.1:8080",
      "--admin",
      "off",
      "--upstream",
      "ws://127.0.0.1:1",
    ];
    const { code, stderr } = await softclose(["run", ...flags]);
    expect(code).toBe(1);
    expectOneLine(stderr);
    expect(stderr).toContain("this machine does not have that address");
  });

  it("ends at once at the second signal", async () => {
    const upstream = await RawUpstream.start();
    const command = start(["run", ...LOCAL, "--upstream", upstream.url]);
    await command.ready();
    const client = new RawClient(command.port("default"));
    expect(await client.answered()).toBe(101);
    command.child.kill("SIGTERM");
    await eventually(() => expect(command.stdout).toContain('"draining"'));
    command.child.kill("SIGTERM");
    expect(await command.ended).toMatchObject({ code: 1, stderr: "" });
    await client.ended();
    await upstream.stop();
  });

  it("goes on when nobody reads its log any more", async () => {
    const upstream = await RawUpstream.start();
    const yaml = GOOD.replace("ws://127.0.0.1:1", upstream.url);
    const quick = "close: { timeout: 100ms }\ndrain: { timeout: 500ms }\n";
    const command = start(["run", "-c", file("unread.yaml", yaml + quick)]);
    await command.ready();
    const port = command.port("public");
    command.child.stdout?.destroy();
    for (let i = 0; i < 5; i += 1) {
      const client = new RawClient(port);
      expect(await client.answered()).toBe(101);
      client.reset();
      await (await upstream.peer(i)).log.frame(8);
    }
    const client = new WebSocket(`ws://127.0.0.1:${port}`);
    const code = new Promise((resolve) => client.on("close", resolve));
    await new Promise((resolve) => client.on("open", resolve));
    command.child.kill("SIGTERM");
    expect(await code).toBe(1012);
    await upstream.stop();
    expect(await command.ended).toMatchObject({ code: 0, stderr: "" });
  });

  it("survives running out of file descriptors, and serves again afterwards", async () => {
    const upstream = await RawUpstream.start();
    const command = start(["run", ...LOCAL, "--upstream", upstream.url], { maxFiles: 200 });
    await command.ready();
    const port = command.port("default");
    const crowd = Array.from({ length: 400 }, () => new RawClient(port));
    await eventually(() => {
      expect(
        crowd.filter(({ head, ending }) => head !== null || ending !== null).length,
      ).toBeGreaterThan(10);
    });
    for (const client of crowd) client.reset();
    await eventually(async () => {
      const client = new RawClient(port);
      const status = await client.answered();
      client.reset();
      expect(status).toBe(101);
    });
    expect(command.child.exitCode).toBe(null);
    expectNoStack(command.stderr);
    await upstream.stop();
  });
});
