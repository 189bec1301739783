/** What ends the wait for another upstream. */
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { PoliteRawClient } from "../support/clients.ts";
import { eventually } from "../support/eventually.ts";
import { onePool } from "../support/gateway.ts";
import { GatewayProcess } from "../support/gateway-process.ts";
import { type Behaviour, RawUpstream } from "../support/raw-upstream.ts";
import { accepts, RetrySetting, SLOW_BACKOFF } from "../support/retry-setting.ts";

/** Accepts, and leaves the end of TCP to the other side. */
const closesAndStays: Behaviour = (peer) => peer.accept();

const onlyTheFirstStays: Behaviour = (peer) => {
  if (retry.handshakes.length === 1) closesAndStays(peer);
  else accepts(peer);
};

let retry: RetrySetting;

beforeEach(() => {
  retry = new RetrySetting();
});

afterEach(() => retry.stop());

describe("The wait ends", () => {
  it.each([
    ["attempts are used up", "attempts: 2, timeout: 20s", [3]],
    // At once, then 50 ms later, then every 100 ms; a busy machine misses one.
    ["its time is over", "attempts: 100, timeout: 300ms", [3, 4, 5]],
  ])("with 1013 and a time to come back where %s", async (_title, session, dials) => {
    await retry.start({ session, backends: [accepts] });
    const client = await retry.open();
    const peer = await retry.serving();
    await retry.upstreams[0]?.stop();
    peer.reset();
    const { closes, tcp } = await client.ended();
    expect(closes).toMatchObject([{ code: 1013 }]);
    expect(closes[0]?.reason).toMatch(/; retry-after=\d+$/);
    expect(tcp).toBe("fin");
    const [record] = await retry.gateway.recorded();
    expect(record).toMatchObject({ cause: "retryExhausted", resumes: 0 });
    expect(dials).toContain(record?.dials);
  });

  it("at once with a Close of the client's, which is echoed", async () => {
    await retry.start({ backends: [accepts], backoff: SLOW_BACKOFF, session: "timeout: 60s" });
    const client = await retry.open();
    (await retry.serving()).reset();
    await retry.waiting();
    const before = performance.now();
    client.sendClose(4001, "enough");
    expect(await client.ended()).toMatchObject({
      closes: [{ code: 4001, reason: "enough" }],
      tcp: "fin",
    });
    const [record] = await retry.gateway.recorded();
    expect(performance.now() - before).toBeLessThan(500);
    expect(record).toMatchObject({ cause: "clientClosed", resumes: 0 });
  });

  it.each(["fin", "reset"])("at once with the client's TCP: %s", async (how) => {
    await retry.start({ backends: [accepts], backoff: SLOW_BACKOFF, session: "timeout: 60s" });
    const client = await retry.open();
    (await retry.serving()).reset();
    await retry.waiting();
    const before = performance.now();
    if (how === "fin") client.raw.socket.end();
    else client.raw.reset();
    const [record] = await retry.gateway.recorded();
    expect(performance.now() - before).toBeLessThan(500);
    expect(record).toMatchObject({ cause: "clientLost", resumes: 0 });
  });

  it("at once inside a dial, which is given up", async () => {
    await retry.start({
      backends: [
        (peer) => {
          if (retry.upstreams[0]?.peers.length === 1) accepts(peer);
        },
      ],
    });
    const client = await retry.open();
    const first = await retry.serving();
    first.reset();
    const second = await retry.serving(2);
    client.sendClose(1000);
    expect((await retry.gateway.recorded())[0]).toMatchObject({ cause: "clientClosed", dials: 2 });
    await second.ended();
  });

  it("with the gateway's drain: 1012 and a time to come back", async () => {
    const started = await retry.start({
      backends: [accepts],
      backoff: SLOW_BACKOFF,
      session: "timeout: 60s",
    });
    const client = await retry.open();
    (await retry.serving()).reset();
    await retry.waiting();
    const drained = started.gateway.drain();
    const { closes } = await client.ended();
    expect(closes).toMatchObject([{ code: 1012 }]);
    await drained;
    expect(started.records[0]).toMatchObject({ cause: "draining", resumes: 0 });
  });

  it("without an upstream that was told its Close and never ended TCP", async () => {
    const started = await retry.start({
      backends: [closesAndStays],
      backoff: SLOW_BACKOFF,
      session: "timeout: 60s",
      more: "close: { timeout: 60s }",
    });
    const client = await retry.open();
    const peer = await retry.serving();
    peer.sendClose(1012, "restart");
    expect((await peer.log.frame(8)).payload.readUInt16BE(0)).toBe(1012);
    await eventually(() => expect(started.gateway.sessions(1)[0]?.state).toBe("retrying"));
    // It has its slot until TCP ends, or close.timeout is over.
    expect(started.slots).toBe(1);
    const before = performance.now();
    client.sendClose(1000);
    const [record] = await started.recorded();
    await peer.ended();
    await eventually(() => expect(started.slots).toBe(0));
    expect(performance.now() - before).toBeLessThan(2_000);
    expect(record).toMatchObject({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1012, received: 1012 },
      resumes: 0,
      dials: 1,
    });
    const { durationMs = 0, retryingMs = 0 } = record ?? {};
    expect(retryingMs).toBeGreaterThan(0);
    expect(retryingMs).toBeLessThanOrEqual(durationMs);
    expect(durationMs).toBeLessThan(5_000);
  });

  it("and an upstream that was given up before a resume goes with the session, too", async () => {
    const started = await retry.start({
      backends: [onlyTheFirstStays, onlyTheFirstStays],
      more: "close: { timeout: 60s }",
    });
    const client = await retry.open();
    const first = await retry.serving();
    first.sendClose(1012);
    await eventually(() => expect(retry.handshakes).toHaveLength(2));
    await eventually(() => expect(started.gateway.sessions(1)[0]?.state).toBe("open"));
    expect(started.slots).toBe(2);
    client.sendClose(1000);
    await first.ended();
    await eventually(() => expect(started.slots).toBe(0));
    expect(started.records[0]).toMatchObject({ cause: "clientClosed", resumes: 1 });
  });

  it("for such an upstream with close.timeout, while the session goes on", async () => {
    const started = await retry.start({
      backends: [onlyTheFirstStays, onlyTheFirstStays],
      more: "close: { timeout: 300ms }",
    });
    const client = await retry.open();
    const first = await retry.serving();
    first.sendClose(1012);
    await first.ended();
    await eventually(() => expect(started.slots).toBe(1));
    expect(started.gateway.sessions(1)[0]?.state).toBe("open");
    await retry.leave(client);
  });
});

describe("SIGTERM during the wait", () => {
  it("closes the client with 1012 and a time to come back, and the process exits with 0", async () => {
    const upstream = await RawUpstream.start(accepts);
    const gateway = await GatewayProcess.start(
      onePool(
        [upstream.url],
        `drain: { timeout: 1s }
retry: { session: { enabled: true, timeout: 60s }, ${SLOW_BACKOFF} }
`,
      ),
    );
    const client = new PoliteRawClient(gateway.port);
    await client.opened();
    (await upstream.peer()).reset();
    await eventually(async () => {
      expect((await gateway.sessions()).map(({ state }) => state)).toEqual(["retrying"]);
    });
    gateway.signal("SIGTERM");
    const { closes, tcp, tornBytes } = await client.ended();
    expect(closes).toMatchObject([{ code: 1012 }]);
    expect(closes[0]?.reason).toMatch(/; retry-after=\d+$/);
    expect([tcp, tornBytes]).toEqual(["fin", 0]);
    expect(await gateway.exited).toBe(0);
    expect(gateway.records).toMatchObject([{ cause: "draining", resumes: 0 }]);
    await gateway.stop();
    await upstream.stop();
  });
});
