/**
 * A link that goes down while a Close is under way: whoever can still be reached gets its whole Close, and
 * after `close.timeout` (1 s here) nothing of the session is left.
 */
import { describe, expect, it } from "vitest";
import { eventually, LONG_MS } from "../support/eventually.ts";
import {
  cleanEnd,
  FileNetwork,
  HEARTBEATS_OFF,
  WITHOUT_AND_WITH_RETRY,
} from "./support/fault-setting.ts";
import { MECHANISM } from "./support/network.ts";

/** So that a link can go down while something is on its way. */
const DELAY_MS = 300;
const network = new FileNetwork();

describe.concurrent.each(WITHOUT_AND_WITH_RETRY)(`A link (${MECHANISM}), %s,`, (_name, more) => {
  const options = { more: HEARTBEATS_OFF + more };

  it("to the upstream, that is down when the client closes: the client gets its echo", async (context) => {
    const setting = await network.start(context, options);
    const client = await setting.openEchoing();
    await setting.path.upstream.down();
    client.sendClose(1000, "done");
    expect(await client.finished()).toEqual(cleanEnd(1000, "done"));
    await setting.expectAccount({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: null },
    });
  });

  it("to the upstream, that goes down behind its Close: the client gets that", async (context) => {
    const setting = await network.start(context, options);
    const client = await setting.openEchoing();
    await setting.path.upstream.delay(DELAY_MS);
    const peer = await setting.peer();
    peer.sendClose(4000, "moved");
    const ending = await client.finished();
    await setting.path.upstream.down();
    expect(ending).toEqual(cleanEnd(4000, "moved"));
    await setting.expectAccount({
      cause: "upstreamClosed",
      client: { sent: 4000, received: 4000 },
      upstream: { sent: 4000, received: 4000 },
    });
  });

  it("to the client, that is down when the upstream closes: the upstream gets its echo", async (context) => {
    const setting = await network.start(context, options);
    const client = await setting.openEchoing();
    await setting.path.client.down();
    const peer = await setting.peer();
    peer.sendClose(4000, "moved");
    await eventually(() => peer.ended(), LONG_MS);
    expect(peer.log.closes).toEqual([{ code: 4000, reason: "moved" }]);
    await setting.expectAccount({
      cause: "upstreamClosed",
      client: { sent: 4000, received: null },
      upstream: { sent: 4000, received: 4000 },
    });
    // The gateway has let go of it, but its kernel delivers what was written.
    await setting.path.client.up();
    const { told, closes, wasClean } = await client.finished();
    expect(closes).toEqual([{ code: 4000, reason: "moved" }]);
    expect({ ...told, wasClean }).toEqual({ code: 4000, reason: "moved", wasClean: true });
  });

  it("to the client, that goes down behind its Close: the upstream gets that", async (context) => {
    const setting = await network.start(context, options);
    const client = await setting.openEchoing();
    await setting.path.client.delay(DELAY_MS);
    client.sendClose(1000, "done");
    const peer = await setting.peer();
    await eventually(() => peer.log.frame(8), LONG_MS);
    await setting.path.client.down();
    expect(peer.log.closes).toEqual([{ code: 1000, reason: "done" }]);
    await setting.expectAccount({
      cause: "clientClosed",
      client: { sent: 1000, received: 1000 },
      upstream: { sent: 1000, received: 1000 },
    });
    await setting.path.client.up();
    const { told, closes, wasClean } = await client.finished();
    expect(closes).toEqual([{ code: 1000, reason: "done" }]);
    expect({ ...told, wasClean }).toEqual({ code: 1000, reason: "done", wasClean: true });
  });
});
