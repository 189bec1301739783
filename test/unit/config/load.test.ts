import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { formatProblem, loadConfig, loadConfigFile } from "../../../src/config/load.ts";
import { load, MINIMAL, messagesOf, problemsOf } from "./support.ts";

/** The token that a file with this text for it has. */
function tokenOf(text: string, env = {}): string {
  return load(`${MINIMAL}admin: { token: '${text}' }`, env).admin.token;
}

/** What `retry.session` with these keys comes to. */
function sessionOf(keys: string) {
  return load(`${MINIMAL}retry: { session: { ${keys} } }`).policies.retry.session;
}

/** As an editor on Windows would save it. */
function windows(text: string): string {
  return `\uFEFF${text.replaceAll("\n", "\r\n")}`;
}

function linesOf(path: string): string[] {
  const result = loadConfigFile(path, {});
  return "errors" in result ? result.errors.map(formatProblem) : [];
}

describe("a minimal configuration", () => {
  it("gets the documented defaults", () => {
    const config = load(MINIMAL);
    expect(config.listeners).toEqual([
      {
        name: "public",
        bind: { host: "127.0.0.1", port: 8080 },
        trustedProxies: [],
        maxConnections: 0,
        acceptRate: 0,
      },
    ]);
    expect(config.admin).toEqual({ bind: { host: "127.0.0.1", port: 9901 }, token: "" });
    expect(config.pools).toEqual([
      {
        name: "chat",
        balance: "leastConnections",
        hashKey: null,
        connectTimeoutMs: 5000,
        queue: { size: 0, timeoutMs: 5000 },
        health: null,
        ejection: { failures: 5, windowMs: 30_000, durationMs: 10_000, maxDurationMs: 300_000 },
        slowStartMs: 0,
        dns: { intervalMs: 30_000 },
        backends: [
          {
            url: "ws://127.0.0.1:9001",
            host: "127.0.0.1",
            port: 9001,
            isName: false,
            maxConnections: 0,
            weight: 1,
          },
        ],
      },
    ]);
    expect(config.drain).toEqual({ delayMs: 0, timeoutMs: 25_000 });
    expect(config.log).toEqual({ level: "info", format: "json" });
    expect(config.policies).toEqual({
      heartbeat: {
        client: { intervalMs: 25_000, timeoutMs: 20_000, payload: "ping", text: "" },
        upstream: { intervalMs: 25_000, timeoutMs: 20_000, payload: "ping", text: "" },
      },
      retry: {
        connect: { attempts: 3, timeoutMs: 10_000 },
        session: null,
        backoff: { initialMs: 1000, factor: 2, maxMs: 30_000, jitter: 0.5 },
      },
      close: { timeoutMs: 5000, legacyCodes: false, causes: new Map(), translate: new Map() },
      refuse: "close",
      retryAfter: { minMs: 1000, maxMs: 60_000, acceptRate: 100 },
      limits: {
        handshakeTimeoutMs: 10_000,
        maxMessageBytes: 16_777_216,
        messageRate: 0,
        messageBurst: 0,
        maxConnections: 0,
        maxConnectionsPerClient: 0,
        idleTimeoutMs: 0,
        maxConnectionAgeMs: 0,
        slowConsumerTimeoutMs: 30_000,
      },
    });
    // The top-level handshakeTimeout is for the request's head, before a route is known.
    const limits = { ...config.policies.limits, handshakeTimeoutMs: Number.POSITIVE_INFINITY };
    expect(config.routes).toEqual([
      { name: "chat", match: { host: null, path: null }, pool: "chat", ...config.policies, limits },
    ]);
  });

  it("may turn the admin listener off", () => {
    expect(load(`${MINIMAL}admin: { bind: "off" }`).admin.bind).toBeNull();
    expect(load(`${MINIMAL}admin: { bind: off }`).admin.bind).toBeNull();
  });

  it("may have a pool that no route uses", () => {
    const text = MINIMAL.replace("{ chat: {", "{ spare: { backends: [{ url: ws://b }] }, chat: {");
    expect(load(text).pools.map((pool) => pool.name)).toEqual(["spare", "chat"]);
  });

  it("may say of keys that are not supported yet what holds anyway", () => {
    const text = MINIMAL.replace("127.0.0.1:8080", "127.0.0.1:8080, http2: false");
    expect(load(text)).toEqual(load(MINIMAL));
  });
});

describe("session retry", () => {
  it("is off unless enabled, whatever else is set", () => {
    expect(sessionOf("buffer: 1MiB, on: [lost], resend: unconfirmed")).toBeNull();
    expect(sessionOf("enabled: false")).toBeNull();
  });

  it("gets the documented defaults once enabled", () => {
    expect(sessionOf("enabled: true")).toEqual({
      onLost: true,
      onUnresponsive: true,
      onDrained: true,
      onCodes: new Set([1012]),
      attempts: 6,
      timeoutMs: 30_000,
      bufferBytes: 65_536,
      resend: "none",
      replayFirst: 0,
      replaySwallow: 0,
      notify: "",
    });
  });

  it("takes every key", () => {
    const keys = `enabled: true, on: [unresponsive, 1001, 4000], attempts: 2, timeout: 5s, buffer: 1MiB,
      resend: unconfirmed, replay: { first: 2, swallow: 1 }, notify: "back after {downMs} ms"`;
    expect(sessionOf(keys)).toEqual({
      onLost: false,
      onUnresponsive: true,
      onDrained: false,
      onCodes: new Set([1001, 4000]),
      attempts: 2,
      timeoutMs: 5000,
      bufferBytes: 1_048_576,
      resend: "unconfirmed",
      replayFirst: 2,
      replaySwallow: 1,
      notify: "back after {downMs} ms",
    });
  });

  it("can be set for one route, key by key, with the rest from the top", () => {
    const { policies, routes } = load(`
listeners: [{ name: public, bind: 127.0.0.1:8080 }]
routes:
  - { name: same, match: { path: /same }, pool: chat }
  - name: other
    match: { path: /other }
    pool: chat
    retry: { session: { on: [lost], replay: { first: 2 }, resend: unconfirmed } }
  - { name: none, match: { path: /none }, pool: chat, retry: { session: { enabled: false } } }
pools: { chat: { backends: [{ url: "ws://127.0.0.1:9001" }] } }
retry: { session: { enabled: true, buffer: 1MiB, replay: { first: 1, swallow: 1 } } }
`);
    const [same, other, none] = routes.map(({ retry }) => retry.session);
    expect(same).toEqual(policies.retry.session);
    expect(other).toEqual({
      ...same,
      onUnresponsive: false,
      onDrained: false,
      onCodes: new Set(),
      replayFirst: 2,
      resend: "unconfirmed",
    });
    expect(other).toMatchObject({ bufferBytes: 1_048_576, replaySwallow: 1 });
    expect(none).toBeNull();
  });

  it("can be on for one route alone", () => {
    const { policies, routes } = load(
      MINIMAL.replace("pool: chat }", "pool: chat, retry: { session: { enabled: true } } }"),
    );
    expect(policies.retry.session).toBeNull();
    expect(routes[0]?.retry.session).toMatchObject({ attempts: 6, onLost: true });
  });
});

describe("the environment", () => {
  it("fills in values, which then are the numbers and booleans that they look like", () => {
    const text = `${MINIMAL}
limits:
  maxConnections: \${CAP:-500}
  messageRate: \${RATE}
  idleTimeout: \${IDLE}
close:
  legacyCodes: \${LEGACY:-true}
`;
    const { limits, close } = load(text, { RATE: "2.5", IDLE: "5m" }).policies;
    expect(limits).toMatchObject({ maxConnections: 500, messageRate: 2.5, idleTimeoutMs: 300_000 });
    expect(close.legacyCodes).toBe(true);
    expect(load(text, { CAP: "7", RATE: "0", IDLE: "0s" }).policies.limits.maxConnections).toBe(7);
  });

  it.each([
    "12345",
    "1e5",
    "true",
    "0x1F",
    "null",
    "~",
    "",
    "a: b",
    "- a",
    "[x]",
    "# no",
    "*x",
    "'",
  ])("keeps the token %j as it is, quoted or not", (token) => {
    expect(load(`${MINIMAL}admin:\n  token: \${TOKEN}`, { TOKEN: token }).admin.token).toBe(token);
    expect(load(`${MINIMAL}admin:\n  token: "\${TOKEN}"`, { TOKEN: token }).admin.token).toBe(
      token,
    );
  });

  it("keeps a name that is all digits in a list as it is", () => {
    const text =
      "pools: { x: { backends: [{ url: ws://a }] } }\nroutes:\n  - { name: r, pool: x }\nlisteners:\n  - name: ${N}\n    bind: 127.0.0.1:1\n";
    expect(load(text, { N: "2024" }).listeners[0]?.name).toBe("2024");
  });

  it("does not let a value add structure", () => {
    const text = `${MINIMAL}admin:\n  token: \${T}\n`;
    const value = 'x"\nlog: { level: silent }\nadmin: { bind: 0.0.0.0:1 }';
    const config = load(text, { T: value });
    expect(config.admin).toEqual({ bind: { host: "127.0.0.1", port: 9901 }, token: value });
    expect(config.log.level).toBe("info");
  });

  it("may make up a part of a value, several times", () => {
    const text = MINIMAL.replace("127.0.0.1:9001", "${HOST}:${PORT:-9001}");
    expect(load(text, { HOST: "chat" }).pools[0]?.backends[0]?.url).toBe("ws://chat:9001");
  });

  it("stands for its default where it is empty, and for itself where it is escaped", () => {
    expect(tokenOf("${A:-b}", { A: "" })).toBe("b");
    expect(tokenOf("${A:-}", {})).toBe("");
    expect(tokenOf("${A:-:-}", {})).toBe(":-");
    expect(tokenOf("$${A}")).toBe("${A}");
    expect(tokenOf("$A $ {A} $")).toBe("$A $ {A} $");
    expect(tokenOf("$$${A}", { A: "x" })).toBe("$${A}");
  });

  it("does not fill in what a value brought along", () => {
    const text = `${MINIMAL}admin: { token: "\${A}" }`;
    expect(load(text, { A: "${B}", B: "no" }).admin.token).toBe("${B}");
  });

  it("has no variables but its own", () => {
    expect(messagesOf(`${MINIMAL}admin: { token: "\${constructor}" }`)).toEqual([
      "${constructor} is not set in the environment; set it, or write ${constructor:-default}",
    ]);
  });

  it("does not show a token that is wrong", () => {
    expect(problemsOf(`${MINIMAL}admin: { token: 31337 }`).join("")).not.toContain("31337");
  });
});

describe("YAML", () => {
  it("may use anchors, aliases and merge keys", () => {
    const { routes } = load(`
listeners: [{ name: public, bind: 127.0.0.1:8080 }]
routes:
  - &first
    name: a
    pool: chat
    match: { path: /a }
    limits: &limits { maxConnections: 5, idleTimeout: 5s }
  - <<: *first
    name: b
    match: { path: /b }
  - name: c
    pool: chat
    limits: { <<: [*limits], idleTimeout: 6s }
pools: { chat: { backends: [{ url: "ws://127.0.0.1:9001" }] } }
`);
    expect(
      routes.map((route) => [route.name, route.limits.maxConnections, route.limits.idleTimeoutMs]),
    ).toEqual([
      ["a", 5, 5000],
      ["b", 5, 5000],
      ["c", 5, 6000],
    ]);
  });

  it("points into the anchor where a merged value is wrong", () => {
    expect(
      problemsOf(`${MINIMAL}
limits: &limits { idleTimeout: soon }
heartbeat: { client: { <<: *limits } }
`),
    ).toEqual([
      "6:19: heartbeat.client.idleTimeout: unknown key; possible here: interval, timeout, payload, text",
      '6:32: limits.idleTimeout: "soon" is not a duration; write a number with ms, s, m or h, like 5m',
    ]);
  });

  it("may come with a byte order mark and Windows line ends, and positions hold", () => {
    expect(load(windows(MINIMAL))).toEqual(load(MINIMAL));
    const wrong = `limits: { idleTimeout: soon }\n${MINIMAL}refuse: never\n`;
    expect(problemsOf(windows(wrong))).toEqual(problemsOf(wrong));
  });

  it("has integer keys, in any notation, or quoted ones", () => {
    const { translate } = load(
      `${MINIMAL}close: { translate: { 1011: 1012, "1005": 1000, 0x3F4: 1013 } }`,
    ).policies.close;
    expect([...translate].toSorted(([one], [other]) => one - other)).toEqual([
      [1005, 1000],
      [1011, 1012],
      [1012, 1013],
    ]);
  });

  it.each([
    ["brackets", "[".repeat(100_000)],
    ["braces", "{a: ".repeat(100_000)],
    ["dashes", "- ".repeat(100_000)],
    ["questions", "? ".repeat(100_000)],
    [
      "indentation",
      Array.from({ length: 1000 }, (_, depth) => `${" ".repeat(depth)}a:`).join("\n"),
    ],
  ])("that nests %s too deeply is refused by its depth", (_what, text) => {
    expect(messagesOf(text)).toEqual(["nested too deeply; the most is 50 levels"]);
  });

  it("that nests by aliases is refused by its depth", () => {
    const text = Array.from(
      { length: 300 },
      (_, n) => `a${n}: &a${n} [${n > 0 ? `*a${n - 1}` : ""}]`,
    ).join("\n");
    expect(messagesOf(text)).toContain("nested too deeply; the most is 50 levels");
  });

  it("may have deep text in a block, which is no nesting", () => {
    expect(
      load(`${MINIMAL}admin:\n  token: |-\n    ${"[{- ".repeat(100)}\n`).admin.token,
    ).toHaveLength(400);
  });

  it("may have a long line of short entries, which is no nesting", () => {
    const backends = Array.from({ length: 500 }, (_, n) => `{ url: "ws://h${n}" }`).join(", ");
    const pools = `pools: { chat: { backends: [${backends}] } }`;
    expect(load(MINIMAL.replace(/^pools:.*$/m, pools)).pools[0]?.backends).toHaveLength(500);
  });

  it("with many errors in its syntax names the first few", () => {
    expect(messagesOf("]\n".repeat(10_000)).length).toBeLessThan(25);
  });
});

describe("loadConfigFile", () => {
  const folder = mkdtempSync(join(tmpdir(), "softclose-config-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  const write = (name: string, content: string | Uint8Array): string => {
    const path = join(folder, name);
    writeFileSync(path, content);
    return path;
  };

  it("loads a good file", () => {
    expect(loadConfigFile(write("good.yaml", MINIMAL), {})).toEqual({ config: load(MINIMAL) });
  });

  it("says in one line that there is no file, or that it is a directory", () => {
    const path = join(folder, "none.yaml");
    expect(linesOf(path)).toEqual([`${path}: there is no such file`]);
    expect(linesOf(folder)).toEqual([`${folder}: is a directory, not a file`]);
    expect(linesOf(join(path, "\0"))).toHaveLength(1);
  });

  it("says in one line that a file is no text, or too large", () => {
    const binary = write("binary.yaml", Uint8Array.of(0x61, 0xff, 0xfe));
    expect(linesOf(binary)).toEqual([`${binary}: is not a text file in UTF-8`]);
    const large = write("large.yaml", `# ${"x".repeat(1_048_576)}`);
    expect(linesOf(large)).toEqual([`${large}: is larger than 1MiB; that is no configuration`]);
    expect(loadConfig("#".repeat(1_048_577), { file: "f", env: {} })).toMatchObject({
      errors: [{ file: "f", line: 0, column: 0, path: "" }],
    });
  });

  it("gives positions in the file's own name", () => {
    const path = write("wrong.yaml", `${MINIMAL}refuse: never\n`);
    expect(linesOf(path)).toEqual([
      `${path}:5:9: refuse: "never" is not known; write close or http`,
    ]);
  });
});
