/** How long a session that is closing waits for a client that is behind. */
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type FakeSocket, routeOf, SessionBench } from "./fake-socket.ts";

const NO_HEARTBEAT = "heartbeat: { client: { interval: 0s }, upstream: { interval: 0s } }\n";
const CLOSE_TIMEOUT_MS = 5_000;
const PATIENCE_MS = 30_000;
/** Two ticks of the wheel: the precision of everything that is timed. */
const PRECISION_MS = 100;
/** Of one write, which is not through before the last of it is taken. */
const WAITING_BYTES = 60_000;

let bench: SessionBench;

beforeEach(() => {
  vi.useFakeTimers({
    toFake: ["setInterval", "clearInterval", "setTimeout", "performance", "Date"],
  });
  bench = new SessionBench();
});

afterEach(() => {
  bench.wheel.stop();
  vi.useRealTimers();
});

/** The session is ended while its client has a write before it; `take`: the kernel takes some of that. */
function closing(): { client: FakeSocket; take: (bytes: number) => void } {
  const { session, client, upstream } = bench.open(
    routeOf(
      `${NO_HEARTBEAT}close: { timeout: ${CLOSE_TIMEOUT_MS}ms }\nlimits: { slowConsumerTimeout: ${PATIENCE_MS}ms }\n`,
    ),
  );
  const handle = { bytesWritten: WAITING_BYTES, writeQueueSize: WAITING_BYTES };
  Object.assign(client, { _handle: handle });
  client.stuck = true;
  upstream.sends({ opcode: 2, payload: Buffer.alloc(WAITING_BYTES) });
  session.end("adminClosed");
  expect(client.log.closes).toMatchObject([{ code: 1012 }]);
  return {
    client,
    take: (bytes) => {
      handle.writeQueueSize -= bytes;
    },
  };
}

describe("A client that is behind when its session closes", () => {
  it("is waited for as long as it takes some bytes now and then, though no write gets through", async () => {
    const { client, take } = closing();
    for (let i = 0; i < 5; i += 1) {
      await vi.advanceTimersByTimeAsync(PATIENCE_MS - CLOSE_TIMEOUT_MS - PRECISION_MS);
      take(1_000);
      expect(client.destroyed).toBe(false);
    }
  });

  it("is destroyed once it has taken nothing for limits.slowConsumerTimeout", async () => {
    const { client, take } = closing();
    await vi.advanceTimersByTimeAsync(CLOSE_TIMEOUT_MS - PRECISION_MS);
    take(1_000);
    await vi.advanceTimersByTimeAsync(PATIENCE_MS);
    expect(client.destroyed).toBe(false);
    await vi.advanceTimersByTimeAsync(CLOSE_TIMEOUT_MS + PRECISION_MS);
    expect(client.destroyed).toBe(true);
  });
});
