/** A hop behind the gateway that ends idle connections just when they might be used again: no GET fails. */
import { Agent } from "node:http";
import { setTimeout as delay } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { eventually } from "../support/eventually.ts";
import { ask } from "../support/http-backend.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { HopSetting } from "./support/hop-setting.ts";
import { HAPROXY, HOP_PROGRAMS, NGINX } from "./support/hops.ts";

const CLIENTS = 8;
const RELOADS = 6;
const LIMIT_MS = 20_000;

/** One client's connection. */
async function withAgent(use: (agent: Agent) => Promise<void>): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  await use(agent).finally(() => agent.destroy());
}

describe.skipIf(lacks(...HOP_PROGRAMS)).each(
  titled([
    { title: "nginx", kind: NGINX, rules: "keepalive_timeout 50ms;" },
    { title: "HAProxy", kind: HAPROXY, rules: "timeout http-keep-alive 50ms" },
  ]),
)("%s that ends connections which are idle for 50 ms", (_title, { kind, rules }) => {
  it("fails no GET that comes at that moment", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.http((_request, response) => void response.end("ok"));
    const hop = await setting.hop(kind, { to: backend.port, rules });
    const gateway = await setting.startGateway([hop.url]);
    const failures: string[] = [];
    const clients = Array.from({ length: CLIENTS }, () =>
      withAgent(async (agent) => {
        for (let i = 0; i < 50; i += 1) {
          // Around the limit, by chance on either side of it.
          await delay(45 + 10 * Math.random());
          const { status, body } = await ask(gateway.port, { agent });
          if (status !== 200) failures.push(`${status} ${body}`);
        }
      }),
    );
    await Promise.all(clients);
    expect(failures).toEqual([]);
    expect(backend.requests).toHaveLength(50 * CLIENTS);
  });
});

describe.skipIf(lacks(...HOP_PROGRAMS))("nginx that is reloaded again and again", () => {
  // Not HAProxy: its old process may reset connections that it has not accepted yet.
  it("fails no GET", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.http((_request, response) => void response.end("ok"));
    const hop = await setting.hop(NGINX, { to: backend.port });
    const gateway = await setting.startGateway([hop.url]);
    const failures: string[] = [];
    const done = new AbortController();
    const clients = Array.from({ length: CLIENTS }, () =>
      withAgent(async (agent) => {
        while (!done.signal.aborted) {
          const { status, body } = await ask(gateway.port, { agent });
          if (status !== 200) failures.push(`${status} ${body}`);
          await delay(20 * Math.random());
        }
      }),
    );
    try {
      for (let i = 0; i < RELOADS; i += 1) {
        hop.reload();
        const enough = backend.requests.length + 20 * CLIENTS;
        await eventually(() => expect(backend.requests.length).toBeGreaterThan(enough), LIMIT_MS);
      }
    } finally {
      done.abort();
      await Promise.all(clients);
    }
    expect(failures).toEqual([]);
  });
});
