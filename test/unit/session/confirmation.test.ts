/** When a ping is due that confirms what the upstream has read, and what its pong confirms. */
import { describe, expect, it } from "vitest";
import { ClientLog } from "../../../src/session/client-log.ts";
import { Confirmation, MAX_BARRIERS } from "../../../src/session/confirmation.ts";

const BUFFER_BYTES = 1_000;
const NEVER = Number.POSITIVE_INFINITY;

function start() {
  const log = new ClientLog({ bufferBytes: BUFFER_BYTES, resend: "unconfirmed", replayFirst: 0 });
  let messages = 0;
  return {
    log,
    confirmation: new Confirmation(log, BUFFER_BYTES),
    send: (bytes: number) => log.append(Buffer.alloc(bytes), 0, (messages += 1)),
  };
}

describe("A confirmation", () => {
  it("is due for nothing where nothing was sent", () => {
    expect(start().confirmation.dueAt).toBe(NEVER);
  });

  it("is due a second after the last ping", () => {
    const { confirmation, send } = start();
    send(10);
    expect(confirmation.dueAt).toBe(1_000);
    confirmation.pinged(1, 5_000);
    confirmation.ponged(1);
    send(10);
    expect(confirmation.dueAt).toBe(6_000);
  });

  it("is due at once when a quarter of the buffer waits for it", () => {
    const { confirmation, send } = start();
    send(249);
    expect(confirmation.dueAt).toBe(1_000);
    send(1);
    expect(confirmation.dueAt).toBe(0);
  });

  it("waits for the pong before the next ping", () => {
    const { confirmation, send, log } = start();
    send(300);
    confirmation.pinged(1, 0);
    send(300);
    expect(confirmation.dueAt).toBe(NEVER);
    confirmation.ponged(1);
    expect([log.keptBytes, confirmation.dueAt]).toEqual([300, 0]);
  });

  it("takes a later pong for the earlier ones, too, and a stranger's for none", () => {
    const { confirmation, send, log } = start();
    send(100);
    confirmation.pinged(1, 0);
    send(100);
    confirmation.pinged(2, 0);
    confirmation.ponged(3);
    expect(log.keptBytes).toBe(200);
    confirmation.ponged(2);
    expect([log.keptBytes, log.unconfirmed]).toEqual([0, false]);
    confirmation.ponged(1);
    expect(log.keptBytes).toBe(0);
  });

  it("starves the client while a full buffer waits for a pong", () => {
    const { confirmation, send } = start();
    send(300);
    confirmation.pinged(1, 5_000);
    expect(confirmation.starvedSince).toBe(NEVER);
    send(700);
    expect(confirmation.starvedSince).toBe(5_000);
    confirmation.ponged(1);
    expect(confirmation.starvedSince).toBe(NEVER);
  });

  it("awaits a bounded number of pongs, the first and the latest among them", () => {
    const { confirmation, send, log } = start();
    const pings = Array.from({ length: 3 * MAX_BARRIERS }, (_, number) => number);
    for (const ping of pings) {
      send(1);
      confirmation.pinged(ping, ping);
    }
    const heard = pings.filter((ping) => confirmation.ponged(ping));
    expect(heard).toHaveLength(MAX_BARRIERS);
    expect([heard[0], heard.at(-1)]).toEqual([0, pings.at(-1)]);
    expect([log.keptBytes, log.unconfirmed]).toEqual([0, false]);
  });

  it("expects nothing from an upstream that is lost", () => {
    const { confirmation, send, log } = start();
    send(100);
    confirmation.pinged(1, 0);
    confirmation.reset();
    confirmation.ponged(1);
    expect(log.keptBytes).toBe(100);
    expect(confirmation.dueAt).toBe(1_000);
  });
});
