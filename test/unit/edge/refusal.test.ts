import { createServer, type IncomingMessage, type Server } from "node:http";
import type { Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { RetryAfter } from "../../../src/close/retry-after.ts";
import { ClientSocket } from "../../../src/edge/client-socket.ts";
import { REFUSALS_PER_TURN, Refuser } from "../../../src/edge/refusal.ts";
import { monotonicClock } from "../../../src/session/clock.ts";
import type { CloseCodes, SessionObserver } from "../../../src/session/record.ts";
import { eventually } from "../../support/eventually.ts";
import { RawClient } from "../../support/raw-client.ts";
import { aRoute } from "./routes.ts";

const observer: SessionObserver = {
  sessionOpened: () => undefined,
  relayed: () => undefined,
  closeFrame: () => undefined,
  heartbeatRtt: () => undefined,
  resumed: () => undefined,
  moved: () => undefined,
  resumeEnded: () => undefined,
  sessionEnded: () => undefined,
};

let server: Server;
let refuser: Refuser;
let port = 0;
let over: CloseCodes[] = [];
const clients: RawClient[] = [];

beforeEach(async () => {
  const ended: CloseCodes[] = [];
  over = ended;
  refuser = new Refuser({
    retryAfter: new RetryAfter(() => 0),
    observer,
    clock: monotonicClock,
    maxLingering: 2,
  });
  server = createServer();
  server.on("upgrade", (request: IncomingMessage, socket: Socket, early: Buffer) => {
    const client = new ClientSocket(socket);
    const policies = aRoute("r", { host: null, path: null });
    refuser.refuse(
      { request, client, early, policies, cause: "capacity", detail: {}, rejection: null },
      (codes) => ended.push(codes),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  port = typeof address === "object" && address !== null ? address.port : 0;
});

afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy();
  refuser.close();
  await new Promise((resolve) => server.close(resolve));
});

function open(): RawClient {
  const client = new RawClient(port);
  clients.push(client);
  return client;
}

describe("many refusals in one turn of the event loop", () => {
  /** The next upgrades are held; call what it resolves to and all are refused in this turn. */
  async function heldUpgrades(count: number): Promise<() => void> {
    const held: (() => void)[] = [];
    server.removeAllListeners("upgrade");
    const policies = aRoute("r", { host: null, path: null });
    refuser = new Refuser({
      retryAfter: new RetryAfter(() => 0),
      observer: { ...observer, closeFrame: (_, way) => frames.push(way) },
      clock: monotonicClock,
    });
    server.on("upgrade", (request: IncomingMessage, socket: Socket, early: Buffer) => {
      const client = new ClientSocket(socket);
      const refused = { cause: "capacity", detail: {}, rejection: null } as const;
      held.push(() =>
        refuser.refuse({ ...refused, request, client, early, policies }, (codes) =>
          over.push(codes),
        ),
      );
    });
    for (let i = 0; i < count; i += 1) open();
    await eventually(() => expect(held).toHaveLength(count));
    return () => {
      for (const refuse of held) refuse();
    };
  }

  let frames: string[] = [];

  beforeEach(() => {
    frames = [];
  });

  it("are spread over turns, and all get their Close", async () => {
    const refuseAll = await heldUpgrades(3 * REFUSALS_PER_TURN);
    refuseAll();
    expect(frames).toHaveLength(REFUSALS_PER_TURN);
    expect(refuser.lingering).toBe(3 * REFUSALS_PER_TURN);
    await new Promise((resolve) => setImmediate(resolve));
    expect(frames).toHaveLength(2 * REFUSALS_PER_TURN);
    for (const client of clients) expect((await client.log.frame(8)).opcode).toBe(8);
    expect(frames).toHaveLength(3 * REFUSALS_PER_TURN);
    for (const client of clients) client.sendClose(1013);
    await refuser.settled(60_000);
    expect(over).toHaveLength(3 * REFUSALS_PER_TURN);
  });

  it("are not forgotten when the refuser closes in between", async () => {
    const refuseAll = await heldUpgrades(2 * REFUSALS_PER_TURN);
    refuseAll();
    refuser.close();
    expect(frames).toHaveLength(2 * REFUSALS_PER_TURN);
    await eventually(() => expect(over).toHaveLength(2 * REFUSALS_PER_TURN));
    expect(refuser.lingering).toBe(0);
  });
});

describe("the bound on refused clients that linger", () => {
  it("turns those beyond it away by HTTP", async () => {
    const first = open();
    await first.log.frame(8);
    await open().log.frame(8);
    expect(refuser.lingering).toBe(2);
    const third = open();
    expect(await third.answered()).toBe(503);
    expect(third.header("retry-after")).toBe("1");
    await third.ended();
    expect(over).toEqual([{ sent: null, received: null }]);
    first.sendClose(1013);
    await eventually(() => expect(refuser.lingering).toBe(1));
    expect(over).toContainEqual({ sent: 1013, received: 1013 });
    const fourth = open();
    expect(await fourth.answered()).toBe(101);
  });

  it("frees the place of a client that vanishes", async () => {
    const client = open();
    await client.log.frame(8);
    client.reset();
    await eventually(() => expect(refuser.lingering).toBe(0));
    expect(over).toEqual([{ sent: 1013, received: null }]);
  });

  it("says when the last one has gone, or that it waits no longer", async () => {
    await refuser.settled(60_000);
    const client = open();
    await client.log.frame(8);
    await refuser.settled(20);
    expect(refuser.lingering).toBe(1);
    const settled = refuser.settled(60_000);
    client.sendClose(1013);
    await settled;
    expect(refuser.lingering).toBe(0);
  });

  it("ends all of them when it closes", async () => {
    const client = open();
    await client.log.frame(8);
    refuser.close();
    await client.ended();
    expect(refuser.lingering).toBe(0);
  });
});
