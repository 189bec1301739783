/** As much of a socket as a leg uses, under full control: what waits, what drains, what was written. */
import { EventEmitter } from "node:events";
import type { Socket } from "node:net";
import { vi } from "vitest";
import { RetryAfter } from "../../../src/close/retry-after.ts";
import type { RouteConfig } from "../../../src/config/config.ts";
import { loadConfig } from "../../../src/config/load.ts";
import { monotonicClock } from "../../../src/session/clock.ts";
import { PingMark } from "../../../src/session/heartbeat.ts";
import type { LegSocket } from "../../../src/session/leg.ts";
import type { SessionRecord } from "../../../src/session/record.ts";
import { Session } from "../../../src/session/session.ts";
import type { SessionContext } from "../../../src/session/session-parts.ts";
import type { Redial } from "../../../src/session/session-retry.ts";
import { Wheel } from "../../../src/session/wheel.ts";
import { Slot } from "../../../src/upstream/backend.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { FrameLog } from "../../support/frame-log.ts";
import { buildFrame, type FrameSpec } from "../../support/frames.ts";
import { makeBackend } from "../../support/pool-config.ts";

export const HIGH_WATER_MARK_BYTES = 64 * 1024;

export class FakeSocket extends EventEmitter implements LegSocket {
  receiver: LegSocket["receiver"] = null;
  readonly log = new FrameLog();
  writable = true;
  writableLength = 0;
  paused = false;
  ended = false;
  destroyed = false;
  /** Takes nothing: what is written waits. */
  stuck = false;

  get socket(): Socket {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a leg uses of it is here
    return this as unknown as Socket;
  }

  write(bytes: Buffer): boolean {
    this.log.add(bytes);
    if (this.stuck) this.writableLength += bytes.length;
    return this.writableLength < HIGH_WATER_MARK_BYTES;
  }

  cork(): void {}

  uncork(): void {}

  pause(): void {
    this.paused = true;
  }

  resume(): void {
    this.paused = false;
  }

  end(): void {
    this.ended = true;
    this.writable = false;
  }

  destroySoon(): void {
    this.writable = false;
    if (this.writableLength === 0) this.destroy();
  }

  destroy(): void {
    if (this.destroyed) return;
    this.destroyed = true;
    this.writable = false;
    queueMicrotask(() => this.emit("close"));
  }

  /** Everything that waited has been taken. */
  drain(): void {
    this.stuck = false;
    this.writableLength = 0;
    this.emit("drain");
  }

  /** The peer sends frames, which are read at once. */
  sends(...frames: readonly FrameSpec[]): void {
    this.receiver?.received(Buffer.concat(frames.map((frame) => buildFrame(frame))));
  }

  count(opcode: number): number {
    return this.log.frames.filter((frame) => frame.opcode === opcode).length;
  }
}

export function routeOf(policies: string): RouteConfig {
  const yaml = `listeners: [{ name: l, bind: "127.0.0.1:0" }]
routes: [{ name: all, pool: main }]
pools: { main: { backends: [{ url: "ws://127.0.0.1:1" }] } }
${policies}`;
  const result = loadConfig(yaml, { file: "unit.yaml", env: {} });
  const route = "config" in result ? result.config.routes[0] : undefined;
  if (route === undefined) throw new Error(JSON.stringify(result));
  return route;
}

const BACKEND = makeBackend();

/** Sessions over fake sockets, on the clock of `vi.useFakeTimers()`. */
export class SessionBench {
  readonly wheel = new Wheel(monotonicClock);
  readonly records: SessionRecord[] = [];
  readonly observer = {
    sessionOpened: vi.fn<(route: string) => void>(),
    relayed: vi.fn<() => void>(),
    closeFrame: vi.fn<() => void>(),
    heartbeatRtt: vi.fn<(side: string, seconds: number) => void>(),
    resumed: vi.fn<() => void>(),
    moved: vi.fn<() => void>(),
    resumeEnded: vi.fn<() => void>(),
    sessionEnded: vi.fn<() => void>(),
  };
  readonly slots = { released: 0 };
  readonly #context: SessionContext;
  #count = 0;

  constructor(random: () => number = Math.random) {
    this.#context = {
      clock: monotonicClock,
      wheel: this.wheel,
      observer: this.observer,
      pingMark: new PingMark(),
      retryAfter: new RetryAfter(() => 0),
      random,
      highWaterMarkBytes: HIGH_WATER_MARK_BYTES,
      slabs: new SlabPool(),
      onBug: (error) => {
        throw error;
      },
    };
  }

  open(
    route: RouteConfig,
    redial: Redial | null = null,
  ): { session: Session; client: FakeSocket; upstream: FakeSocket } {
    const client = new FakeSocket();
    const upstream = new FakeSocket();
    this.#count += 1;
    const slot = new Slot(BACKEND, null, {
      now: () => performance.now(),
      onTrial: () => undefined,
      onRelease: () => {
        this.slots.released += 1;
      },
    });
    const session = new Session(
      {
        id: `session ${this.#count}`,
        route,
        clientIp: "192.0.2.1",
        subprotocol: "",
        deflate: null,
        client,
        upstream: { slot, socket: upstream },
        redial,
        dials: 1,
        startedAt: Date.now(),
        startedAtMs: performance.now(),
        onClosed: (_session, record) => this.records.push(record),
      },
      this.#context,
    );
    session.start(Buffer.alloc(0), Buffer.alloc(0));
    return { session, client, upstream };
  }
}
