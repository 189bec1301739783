/** A link that is down while the gateway dials: another backend, or a refusal that a browser can read. */
import { describe, expect, it } from "vitest";
import { cleanEnd, FAR, type FaultSetting, FileNetwork, NEAR } from "./support/fault-setting.ts";
import { MECHANISM } from "./support/network.ts";

const NO_CODES = { sent: null, received: null };
const network = new FileNetwork();

describe.concurrent(`The upstream's link (${MECHANISM}) is down while the gateway dials`, () => {
  const impatient = "connectTimeout: 500ms";
  const ended = {
    cause: "clientClosed",
    client: { sent: 1000, received: 1000 },
    upstream: { sent: 1000, received: 1000 },
    dials: 2,
  } as const;

  /** Returns how often the first backend was too late, and the second one in time. */
  async function expectGoodSession(setting: FaultSetting): Promise<number[]> {
    const client = await setting.openEchoing();
    client.sendClose(1000, "done");
    expect(await client.finished()).toEqual(cleanEnd(1000, "done"));
    expect(await setting.expectAccount(ended)).toMatchObject({ backend: setting.upstream(1).url });
    return [await setting.dials(0, "timeout"), await setting.dials(1, "connected")];
  }

  it("before it connects: the next backend serves the client", async (context) => {
    const setting = await network.start(context, { backends: [FAR, NEAR], pool: impatient });
    await setting.path.upstream.down();
    expect(await expectGoodSession(setting)).toEqual([1, 1]);
  });

  it("once the upstream has read the request: the next backend serves the client", async (context) => {
    const hook = { down: async (): Promise<void> => undefined };
    const setting = await network.start(context, {
      backends: [
        { where: "far", behaviour: (peer) => void hook.down().then(() => peer.accept()) },
        NEAR,
      ],
      pool: impatient,
    });
    hook.down = () => setting.path.upstream.down();
    expect(await expectGoodSession(setting)).toEqual([1, 1]);
    expect(setting.upstream(0).peers).toHaveLength(1);
  });

  it("and there is no other: the client gets 1013 and a time to come back", async (context) => {
    const setting = await network.start(context, {
      pool: impatient,
      more: "retry: { connect: { attempts: 2 }, backoff: { initial: 100ms } }\n",
    });
    await setting.path.upstream.down();
    const client = await setting.client();
    const ending = await client.finished();
    const { reason } = ending.told;
    expect(reason).toMatch(/^upstream is unreachable; retry-after=\d+$/);
    expect(ending).toEqual(cleanEnd(1013, reason));
    await setting.expectAccount({
      cause: "upstreamUnreachable",
      client: { sent: 1013, received: 1013 },
      upstream: NO_CODES,
      dials: 2,
      refused: true,
    });
  });
});
