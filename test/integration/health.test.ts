/** Active health on real sockets: down after `fall`, up after `rise`, and what a stopped check leaves. */
import { setImmediate as turn } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HealthCheck } from "../../src/upstream/health.ts";
import { probe } from "../../src/upstream/probe.ts";
import { eventually } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import {
  answers,
  answersPing,
  backendAt,
  configOf,
  drip,
  PATIENCE_MS,
  type ProbeType,
  silent,
  speaksWebSocket,
  tcpSockets,
} from "../support/probed-backends.ts";
import { type Behaviour, RawUpstream, type UpstreamPeer } from "../support/raw-upstream.ts";

let upstream: RawUpstream | null = null;
let baseline: number;

beforeEach(() => {
  baseline = tcpSockets();
});

afterEach(async () => {
  // Every connection that a backend got has been ended by the probe, not by the end of the test.
  const started = upstream;
  upstream = null;
  if (started !== null) {
    await Promise.all(started.peers.map((peer) => peer.ended()));
    await started.stop();
  }
  await eventually(() => {
    const left = tcpSockets() - baseline;
    if (left > 0) throw new Error(`${left} sockets left`);
  });
});

async function start(behaviour: Behaviour): Promise<RawUpstream> {
  upstream = await RawUpstream.start(behaviour);
  return upstream;
}

describe("a health check on real sockets", () => {
  const illnesses: readonly {
    readonly title: string;
    readonly type: ProbeType;
    readonly ill: Behaviour;
    readonly well: Behaviour;
    readonly detail: string;
  }[] = [
    {
      title: "accepts TCP and never answers",
      type: "http",
      ill: silent,
      well: answers(200),
      detail: `no answer within ${PATIENCE_MS} ms`,
    },
    {
      title: "answers 500",
      type: "http",
      ill: answers(500),
      well: answers(200),
      detail: "answered 500",
    },
    {
      title: "lets the WebSocket handshake hang",
      type: "websocket",
      ill: silent,
      well: speaksWebSocket,
      detail: `no answer to the handshake within ${PATIENCE_MS} ms`,
    },
  ];

  it.each(titled(illnesses))(
    "takes a backend down that %s, and up again when it is well",
    async (_title, { type, ill, well, detail }) => {
      let behaviour = well;
      const { port } = await start((peer) => behaviour(peer));
      const backend = backendAt(port);
      const ended: boolean[] = [];
      const changes: { readonly isUp: boolean; readonly detail: string }[] = [];
      const lastBefore: boolean[][] = [];
      const config = configOf(type, { timeoutMs: PATIENCE_MS });
      const check = new HealthCheck(
        backend,
        config,
        {
          probe,
          observer: { probeEnded: (_backend, { good }) => void ended.push(good) },
          now: () => performance.now(),
          random: Math.random,
        },
        (isUp, why) => {
          changes.push({ isUp, detail: why });
          lastBefore.push(ended.slice(isUp ? -config.rise : -config.fall));
        },
      );
      check.start();
      await eventually(() => expect(check.state).toBe("up"));
      behaviour = ill;
      await eventually(() => expect(check.state).toBe("down"));
      behaviour = well;
      await eventually(() => expect(check.state).toBe("up"));
      check.stop();
      expect(changes[0]).toEqual({ isUp: false, detail });
      expect(changes.map(({ isUp }) => isUp)).toEqual([false, true]);
      expect(lastBefore).toEqual([
        [false, false, false],
        [true, true],
      ]);
      // Probes take no slot: its one place is free.
      expect([backend.connections, backend.full]).toEqual([0, false]);
    },
  );

  const moments: readonly {
    readonly title: string;
    readonly type: ProbeType;
    readonly behaviour: Behaviour;
    /** What the check has sent when it is stopped. */
    readonly until: (peer: UpstreamPeer) => boolean;
  }[] = [
    { title: "for an answer", type: "http", behaviour: silent, until: hasHead },
    {
      title: "for the end of a body",
      type: "http",
      behaviour: (peer) => peer.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok"),
      until: hasHead,
    },
    {
      title: "for the end of a slow body",
      type: "http",
      behaviour: (peer) => drip(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "x"),
      until: hasHead,
    },
    { title: "for a handshake", type: "websocket", behaviour: silent, until: hasHead },
    {
      title: "for a pong",
      type: "websocket",
      behaviour: (peer) => peer.accept(),
      until: ({ log }) => log.frames.some(({ opcode }) => opcode === 9),
    },
    {
      title: "for a Close",
      type: "websocket",
      behaviour: answersPing,
      until: ({ log }) => log.frames.some(({ opcode }) => opcode === 8),
    },
  ];

  it.each(titled(moments))(
    "that is stopped while a probe waits %s leaves no timer and no socket",
    async (_title, { type, behaviour, until }) => {
      const { port, peers } = await start(behaviour);
      const changed = vi.fn<(isUp: boolean) => void>();
      // What the check and its probe have started is counted on a clock of their own.
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
      try {
        const check = begun(port, type, changed);
        await vi.advanceTimersByTimeAsync(0);
        await turns(() => peers.some(until));
        // A few turns more: what the backend has answered by then has been read.
        for (let i = 0; i < 20; i += 1) await turn();
        expect(vi.getTimerCount()).toBeGreaterThan(0);
        check.stop();
        await turns(() => peers.every(({ ending }) => ending !== null));
        expect(vi.getTimerCount()).toBe(0);
        expect(peers).toHaveLength(1);
        expect(changed).not.toHaveBeenCalled();
      } finally {
        vi.useRealTimers();
      }
    },
  );

  it.each(["http", "tcp", "websocket"] as const)(
    "that is stopped while a probe connects leaves nothing (%s)",
    async (type) => {
      const { port } = await start(silent);
      const changed = vi.fn<(isUp: boolean) => void>();
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "setInterval", "clearInterval"] });
      try {
        const check = begun(port, type, changed);
        vi.advanceTimersByTime(0);
        expect(vi.getTimerCount()).toBeGreaterThan(0);
        check.stop();
        await turns(() => tcpSockets() === baseline);
        expect(vi.getTimerCount()).toBe(0);
        expect(changed).not.toHaveBeenCalled();
      } finally {
        vi.useRealTimers();
      }
    },
  );
});

function begun(port: number, type: ProbeType, changed: (isUp: boolean) => void): HealthCheck {
  const check = new HealthCheck(
    backendAt(port),
    configOf(type, { fall: 1 }),
    {
      probe,
      observer: { probeEnded: () => undefined },
      now: () => performance.now(),
      random: () => 0,
    },
    changed,
  );
  check.start();
  return check;
}

function hasHead({ head }: UpstreamPeer): boolean {
  return head !== "";
}

/** Turns of the event loop until something holds; needs no timer. The test's own limit ends it. */
async function turns(holds: () => boolean): Promise<void> {
  while (!holds()) await turn();
}
