/** What a hop behind the gateway answers in place of its backend: who is dialled next, what the client is told. */
import { describe, expect, it } from "vitest";
import { freePort } from "../bench/free-port.ts";
import { oneClose } from "../support/clients.ts";
import { expectOutcome, titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { RawClient } from "../support/raw-client.ts";
import { HopSetting } from "./support/hop-setting.ts";
import { HAPROXY, HOP_PROGRAMS, type Hop, type HopKind, NGINX } from "./support/hops.ts";

const ONE_ROUND = "retry: { connect: { attempts: 1 } }\n";

interface Failing {
  readonly title: string;
  readonly kind: HopKind;
  readonly backend: "dead" | "silent" | "out of service";
  readonly status: number;
  /** What the client gets where there is nobody else. */
  readonly code: number;
  readonly reason: string;
}

const failing: readonly Failing[] = [
  {
    title: "nginx, whose backend is dead",
    kind: NGINX,
    backend: "dead",
    status: 502,
    code: 1014,
    reason: "upstream answered 502",
  },
  {
    title: "nginx, whose backend is silent",
    kind: NGINX,
    backend: "silent",
    status: 504,
    code: 1014,
    reason: "upstream answered 504",
  },
  {
    title: "HAProxy, whose backend is dead",
    kind: HAPROXY,
    backend: "dead",
    status: 503,
    code: 1013,
    reason: "upstream answered 503",
  },
  {
    title: "HAProxy, whose backend is silent",
    kind: HAPROXY,
    backend: "silent",
    status: 504,
    code: 1014,
    reason: "upstream answered 504",
  },
  {
    title: "HAProxy, which has no server in service",
    kind: HAPROXY,
    backend: "out of service",
    status: 503,
    code: 1013,
    reason: "upstream answered 503",
  },
];

async function startFailing(setting: HopSetting, { kind, backend }: Failing): Promise<Hop> {
  return await setting.hop(kind, {
    to: backend === "dead" ? await freePort() : (await setting.silent()).port,
    idleTimeout: "1s",
    server: backend === "out of service" ? "disabled" : "",
  });
}

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(failing))("%s", (_title, row) => {
  const { status, code, reason } = row;

  it(`answers ${status}, and the next backend is dialled`, async (context) => {
    const setting = new HopSetting(context);
    const hop = await startFailing(setting, row);
    const backend = await setting.echo();
    const gateway = await setting.startGateway([hop.url, backend.url]);
    const client = await setting.open(gateway.port);
    client.sendClose(1000);
    expect(await client.ended()).toEqual(oneClose(1000));
    const record = await expectOutcome(gateway, {
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
      dials: 2,
    });
    expect(record.backend).toBe(backend.url);
  });

  it(`answers ${status}, which is ${code} where there is no other`, async (context) => {
    const setting = new HopSetting(context);
    const hop = await startFailing(setting, row);
    const gateway = await setting.startGateway([hop.url], ONE_ROUND);
    const client = setting.knock(gateway.port);
    expect(await client.ended()).toEqual(oneClose(code, reason));
    await expectOutcome(gateway, {
      cause: "upstreamRejected",
      refused: true,
      client: { sent: code, received: code },
    });
  });
});

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each([
  { status: 401, code: 1008 },
  { status: 403, code: 1008 },
  { status: 429, code: 1013 },
])("HAProxy, which denies with $status", ({ status, code }) => {
  const rules = `http-request deny deny_status ${status}`;

  it(`has the last word: ${code}`, async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.echo();
    const hop = await setting.hop(HAPROXY, { to: backend.port, rules });
    const gateway = await setting.startGateway([hop.url, backend.url]);
    const client = setting.knock(gateway.port);
    expect(await client.ended()).toEqual(oneClose(code, `upstream answered ${status}`));
    await expectOutcome(gateway, {
      cause: "upstreamRejected",
      refused: true,
      client: { sent: code, received: code },
    });
    expect(backend.connections).toBe(0);
  });

  it("gives the answer where refusals are plain HTTP", async (context) => {
    const setting = new HopSetting(context);
    const backend = await setting.echo();
    const hop = await setting.hop(HAPROXY, { to: backend.port, rules });
    const gateway = await setting.startGateway([hop.url, backend.url], "refuse: http\n");
    const client = new RawClient(gateway.port);
    expect(await client.answered()).toBe(status);
    await client.ended();
    // HAProxy's own page.
    expect(client.body.toString()).toContain(`<h1>${status} `);
  });
});
