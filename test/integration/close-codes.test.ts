/** Which close code reaches the other leg: every legal one unchanged, every illegal one as an error. */
import { afterEach, describe, expect, it } from "vitest";
import { CLIENT_KINDS, oneClose, PoliteRawClient } from "../support/clients.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { expectOutcome, expectWellFormed, titled } from "../support/outcome.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream;
let gateway: TestGateway;

afterEach(async () => {
  await gateway.stopClean();
  await upstream.stop();
});

const LEGAL = [
  1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
];
const ILLEGAL = [0, 999, 1004, 1005, 1006, 1015, 1016, 1999, 2000, 2999, 5000, 65_535];
const accepting: Behaviour = (peer) => peer.answersClose().accept();

const closes =
  (code: number, reason = ""): Behaviour =>
  (peer) => {
    accepting(peer);
    peer.sendClose(code, reason);
  };
const empty: Behaviour = (peer) => {
  accepting(peer);
  peer.send({ opcode: 8 });
};
const lost: Behaviour = (peer) => {
  peer.accept();
  peer.end();
};
const busy: Behaviour = (peer) => peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");

/** As long as a reason can be: 123 bytes. */
const LONG_REASON = "ü".repeat(61) + "!";

describe.each(CLIENT_KINDS)("with %s", (_name, open) => {
  it.each(LEGAL)("passes the upstream's %i on to the client and echoes it", async (code) => {
    upstream = await RawUpstream.start(accepting);
    gateway = await startGateway(onePool([upstream.url]));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    peer.sendClose(code, LONG_REASON);
    expect(await client.ended()).toEqual(oneClose(code, LONG_REASON));
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code, reason: LONG_REASON }]);
    await expectOutcome(gateway, {
      cause: "upstreamClosed",
      client: { sent: code, received: code },
      upstream: { sent: code, received: code },
    });
  });

  it("passes the upstream's empty Close on as an empty Close", async () => {
    upstream = await RawUpstream.start(accepting);
    gateway = await startGateway(onePool([upstream.url]));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    peer.send({ opcode: 8 });
    expect(await client.ended()).toEqual(oneClose(1005));
    expect(client.log.frames.map(({ payload }) => payload.length)).toEqual([0]);
    await peer.ended();
    expect(peer.log.frames.map(({ opcode, payload }) => [opcode, payload.length])).toEqual([
      [8, 0],
    ]);
    await expectOutcome(gateway, {
      cause: "upstreamClosed",
      client: { sent: 1005, received: 1005 },
      upstream: { sent: 1005, received: 1005 },
    });
  });

  it.each(ILLEGAL)("turns the upstream's %i into 1014, and answers 1002", async (code) => {
    upstream = await RawUpstream.start(accepting);
    gateway = await startGateway(onePool([upstream.url]));
    const client = open(gateway.port);
    await client.opened();
    const peer = await upstream.peer();
    peer.sendClose(code, "no");
    const rule = `Close code ${code} is not allowed on the wire`;
    expect(await client.ended()).toEqual(oneClose(1014, `upstream broke the protocol: ${rule}`));
    await peer.ended();
    expectWellFormed(peer);
    expect(peer.log.closes).toEqual([{ code: 1002, reason: rule }]);
    await expectOutcome(gateway, {
      cause: "upstreamProtocolError",
      client: { sent: 1014, received: 1014 },
      upstream: { sent: 1002, received: null },
      detail: rule,
    });
  });

  it.each([...LEGAL, 1005])(
    "passes the client's %i on to the upstream and echoes it",
    async (code) => {
      upstream = await RawUpstream.start(accepting);
      gateway = await startGateway(onePool([upstream.url]));
      const client = open(gateway.port);
      await client.opened();
      const peer = await upstream.peer();
      const reason = code === 1005 ? "" : LONG_REASON;
      client.sendClose(code, reason);
      expect(await client.ended()).toEqual(oneClose(code, reason));
      await peer.ended();
      expectWellFormed(peer);
      expect(peer.log.closes).toEqual([{ code, reason }]);
      await expectOutcome(gateway, {
        cause: "clientClosed",
        client: { sent: code, received: code },
        upstream: { sent: code, received: code },
      });
    },
  );
});

it.each(ILLEGAL)("answers the client's %i with 1002, and gives the upstream 1001", async (code) => {
  upstream = await RawUpstream.start(accepting);
  gateway = await startGateway(onePool([upstream.url]));
  const client = new PoliteRawClient(gateway.port);
  await client.opened();
  const peer = await upstream.peer();
  client.raw.sendClose(code, "no");
  const rule = `Close code ${code} is not allowed on the wire`;
  expect(await client.ended()).toEqual(oneClose(1002, rule));
  await peer.ended();
  expectWellFormed(peer);
  expect(peer.log.closes).toEqual([{ code: 1001, reason: `client broke the protocol: ${rule}` }]);
  await expectOutcome(gateway, {
    cause: "clientProtocolError",
    client: { sent: 1002, received: null },
    upstream: { sent: 1001, received: 1001 },
    detail: rule,
  });
});

describe("as a route's close section says", () => {
  const rows: readonly {
    readonly title: string;
    readonly route: string;
    readonly behaviour: (peer: UpstreamPeer) => void;
    readonly close: readonly [code: number, reason: string];
  }[] = [
    {
      title: "translates 1011 to 1012 and keeps the reason",
      route: "translated",
      behaviour: closes(1011, "deploy"),
      close: [1012, "deploy"],
    },
    {
      title: "translates an empty Close to 1000",
      route: "translated",
      behaviour: empty,
      close: [1000, ""],
    },
    {
      title: "translates 4000 to 4001",
      route: "translated",
      behaviour: closes(4000),
      close: [4001, ""],
    },
    {
      title: "passes on what it does not translate",
      route: "translated",
      behaviour: closes(1001),
      close: [1001, ""],
    },
    {
      title: "gives a cause its own code and reason",
      route: "worded",
      behaviour: lost,
      close: [4100, "please come back"],
    },
    {
      title: "gives a refusal its own code",
      route: "worded",
      behaviour: busy,
      close: [4103, "upstream answered 503"],
    },
    {
      title: "turns 1014 into 1011 for legacy clients",
      route: "legacy",
      behaviour: lost,
      close: [1011, "upstream connection lost"],
    },
    {
      title: "turns the upstream's own 1012 into 1001 for legacy clients",
      route: "legacy",
      behaviour: closes(1012, "restart"),
      close: [1001, "restart"],
    },
    {
      title: "turns a refusal's 1013 into 1001 for legacy clients",
      route: "legacy",
      behaviour: busy,
      close: [1001, "upstream answered 503"],
    },
    {
      title: "holds for its own route only",
      route: "plain",
      behaviour: closes(1011, "deploy"),
      close: [1011, "deploy"],
    },
    {
      title: "lets a route that sets nothing inherit the top level",
      route: "plain",
      behaviour: lost,
      close: [3014, "top"],
    },
  ];

  it.each(titled(rows))("%s", async (_title, { route, behaviour, close: [code, reason] }) => {
    upstream = await RawUpstream.start(behaviour);
    gateway = await startGateway(
      `routes:
  - { name: translated, match: { path: /translated }, pool: main, close: { translate: { 1011: 1012, 1005: 1000, 4000: 4001 } } }
  - { name: worded, match: { path: /worded }, pool: main, close: { causes: { upstreamLost: { code: 4100, reason: "please come back" }, upstreamRejected: { code: 4103 } } } }
  - { name: legacy, match: { path: /legacy }, pool: main, close: { legacyCodes: true, causes: { upstreamLost: { code: 1014, reason: "upstream connection lost" } } } }
  - { name: plain, pool: main }
pools: { main: { backends: [{ url: "${upstream.url}" }] } }
retry: { connect: { attempts: 1 } }
close: { causes: { upstreamLost: { code: 3014, reason: top } } }
`,
    );
    const client = new PoliteRawClient(gateway.port, `/${route}`);
    expect(await client.ended()).toEqual(oneClose(code, reason));
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ route, client: { sent: code, received: code } });
    // The upstream is answered in its own words, whatever the client is told.
    const peer = upstream.peers[0];
    const sent = record?.upstream.received ?? null;
    await peer?.ended();
    expect(peer?.log.closes.map((close) => close.code)).toEqual(sent === null ? [] : [sent]);
  });
});
