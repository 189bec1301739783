/**
 * A pool and its line against a model, through any sequence of arrivals, releases, departures, timeouts
 * and reloads: never more than the cap, never a slot that lies idle while somebody waits, never out of turn.
 */
import * as fc from "fast-check";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import type { Backend, Slot } from "../../../src/upstream/backend.ts";
import type { Pool } from "../../../src/upstream/pool.ts";
import type { Place, Turn } from "../../../src/upstream/waiting-line.ts";
import { backendConfig, makePool, poolConfig } from "../../support/pool-config.ts";

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

const NONE: ReadonlySet<Backend> = new Set();
const BACKENDS = 3;

/**
 * What a client does from within its turn. `fickle`: gives its slot back and comes again, once; `pushy`:
 * makes the first of those who still wait leave, as a drain of one session may do to another.
 */
type Kind = "steady" | "fickle" | "pushy";
type State = "waiting" | "holding" | "over" | "left" | "timeout" | "refused";

class Client {
  readonly world: World;
  state: State = "waiting";
  slot: Slot | null = null;
  turns = 0;
  #kind: Kind;
  #place: Place | null = null;

  constructor(world: World, kind: Kind) {
    this.world = world;
    this.#kind = kind;
  }

  arrive(): void {
    const { pool, waiting } = this.world;
    const hadWaiters = pool.queueLength > 0;
    const slot = pool.takeSlot(NONE);
    if (slot !== null) {
      // Overtaken: somebody waited, and still does.
      if (hadWaiters && pool.queueLength > 0) throw new Error("a newcomer was served first");
      this.#hold(slot);
      return;
    }
    this.#place = pool.wait((turn) => this.#onTurn(turn));
    this.state = this.#place === null ? "refused" : "waiting";
    if (this.#place !== null) waiting.push(this);
  }

  leave(): void {
    this.#place?.leave();
    this.world.waiting.splice(this.world.waiting.indexOf(this), 1);
    this.state = "left";
  }

  release(): void {
    this.state = "over";
    this.slot?.release();
  }

  #hold(slot: Slot): void {
    const { connections, maxConnections } = slot.backend;
    if (maxConnections > 0 && connections > maxConnections) throw new Error("more than the cap");
    this.slot = slot;
    this.state = "holding";
  }

  #onTurn(turn: Turn): void {
    const { waiting } = this.world;
    this.turns += 1;
    if (this.state !== "waiting") throw new Error(`called while ${this.state}`);
    waiting.splice(waiting.indexOf(this), 1);
    const kind = this.#kind;
    this.#kind = "steady";
    if (typeof turn === "string") this.state = "timeout";
    else this.#hold(turn);
    if (kind === "pushy") waiting[0]?.leave();
    if (kind === "fickle" && typeof turn !== "string") {
      turn.release();
      this.slot = null;
      this.arrive();
    }
  }
}

class World {
  readonly pool: Pool;
  readonly clients: Client[] = [];
  /** In the order in which they joined. */
  readonly waiting: Client[] = [];
  #queue: { size: number; timeoutMs: number };

  constructor(caps: readonly number[], queue: { size: number; timeoutMs: number }) {
    const backends = caps.map((maxConnections, i) =>
      backendConfig({ host: `b${i}`, maxConnections }),
    );
    this.#queue = queue;
    this.pool = makePool({ backends, queue }, () => Date.now());
  }

  /** A reload that changes one cap, or the queue. */
  reconfigure(change: {
    cap?: readonly [backend: number, maxConnections: number];
    queue?: { size: number; timeoutMs: number };
  }): void {
    const [changed, cap = 0] = change.cap ?? [];
    this.#queue = change.queue ?? this.#queue;
    const backends = this.pool.backends.map(({ host, maxConnections }, i) =>
      backendConfig({ host, maxConnections: i === changed ? cap : maxConnections }),
    );
    this.pool.reconfigure(poolConfig({ backends, queue: this.#queue }));
  }

  /** Slots that could be taken if `changed` were as `change` says. Above a lowered cap there is none. */
  free(changed: Backend, change: { maxConnections?: number; connections?: number }): number {
    let sum = 0;
    for (const backend of this.pool.backends) {
      const { maxConnections, connections } = backend;
      const now = { maxConnections, connections, ...(backend === changed ? change : {}) };
      sum += freeIn(now.maxConnections, now.connections);
    }
    return sum;
  }
}

interface Expected {
  state: State;
  kind: Kind;
  deadline: number;
  number: number;
}

/** The same by the simplest means: arrays, and everything looked at again after every event. */
class Model {
  readonly clients: Expected[] = [];
  waiting: Expected[] = [];
  now = 0;
  size: number;
  timeoutMs: number;
  /** Slots that may be taken; which backend's does not matter to the order. */
  free: number;
  #joined = 0;

  constructor(free: number, queue: { size: number; timeoutMs: number }) {
    this.free = free;
    this.size = queue.size;
    this.timeoutMs = queue.timeoutMs;
  }

  arrive(client: Expected): void {
    if (this.waiting.length === 0 && this.free > 0) {
      client.state = "holding";
      this.free -= 1;
    } else if (this.waiting.length < this.size) {
      this.#joined += 1;
      client.number = this.#joined;
      client.state = "waiting";
      client.deadline = this.now + this.timeoutMs;
      this.waiting.push(client);
    } else {
      client.state = "refused";
    }
  }

  serve(): void {
    const last = this.#joined;
    for (let [head] = this.waiting; head !== undefined && this.free > 0; [head] = this.waiting) {
      if (head.number > last) {
        this.serve();
        return;
      }
      this.waiting.shift();
      head.state = "holding";
      this.free -= 1;
      const { kind } = head;
      head.kind = "steady";
      if (kind === "pushy") this.#push();
      if (kind === "fickle") {
        this.free += 1;
        this.arrive(head);
      }
    }
  }

  leave(client: Expected): void {
    client.state = "left";
    this.waiting = this.waiting.filter((one) => one !== client);
  }

  advance(ms: number): void {
    const until = this.now + ms;
    for (;;) {
      const next = Math.min(...this.waiting.map(({ deadline }) => deadline));
      if (next > until) break;
      this.now = next;
      // By arrival, as after a reload with a shorter timeout deadlines may come in another order.
      for (const client of this.waiting.filter(({ deadline }) => deadline <= next)) {
        if (client.state !== "waiting") continue;
        client.state = "timeout";
        this.waiting = this.waiting.filter((one) => one !== client);
        if (client.kind === "pushy") this.#push();
      }
    }
    this.now = until;
  }

  #push(): void {
    const [first] = this.waiting;
    if (first !== undefined) this.leave(first);
  }
}

type Step = fc.Command<Model, World>;

/** What every command ends with: the same clients in the same states, and the counts to the slot. */
function compare(model: Model, world: World): void {
  vi.advanceTimersByTime(0);
  expect(world.clients.map(({ state }) => state)).toEqual(model.clients.map(({ state }) => state));
  expect(world.pool.queueLength).toBe(model.waiting.length);
  let free = 0;
  for (const backend of world.pool.backends) {
    const held = world.clients.filter((one) => one.state === "holding" && one.slot !== null);
    const here = held.filter(({ slot }) => slot?.backend === backend).length;
    expect(backend.connections).toBe(here);
    if (backend.available && model.waiting.length > 0) throw new Error("a slot lies idle");
    free += freeIn(backend.maxConnections, here);
  }
  expect(model.free).toBe(free);
}

function freeIn(cap: number, held: number): number {
  return cap === 0 ? Number.POSITIVE_INFINITY : Math.max(0, cap - held);
}

function pick<T>(all: readonly T[], which: number): T | undefined {
  return all[which % Math.max(1, all.length)];
}

class Arrive implements Step {
  readonly #kind: Kind;

  constructor(kind: Kind) {
    this.#kind = kind;
  }

  check = (): boolean => true;

  run(model: Model, world: World): void {
    const expected: Expected = { state: "waiting", kind: this.#kind, deadline: 0, number: 0 };
    model.clients.push(expected);
    model.arrive(expected);
    const client = new Client(world, this.#kind);
    world.clients.push(client);
    client.arrive();
    compare(model, world);
  }

  toString = (): string => `arrive(${this.#kind})`;
}

class Release implements Step {
  readonly #which: number;

  constructor(which: number) {
    this.#which = which;
  }

  check = (model: Model): boolean => model.clients.some(({ state }) => state === "holding");

  run(model: Model, world: World): void {
    const holding = world.clients.filter(({ state }) => state === "holding");
    const client = pick(holding, this.#which);
    const backend = client?.slot?.backend;
    const expected = model.clients[client === undefined ? -1 : world.clients.indexOf(client)];
    if (client === undefined || backend === undefined || expected === undefined) throw new Error();
    expected.state = "over";
    model.free = world.free(backend, { connections: backend.connections - 1 });
    model.serve();
    client.release();
    client.release();
    compare(model, world);
  }

  toString = (): string => `release(${this.#which})`;
}

class Leave implements Step {
  readonly #which: number;

  constructor(which: number) {
    this.#which = which;
  }

  check = (model: Model): boolean => model.waiting.length > 0;

  run(model: Model, world: World): void {
    const client = pick(world.waiting, this.#which);
    const expected = pick(model.waiting, this.#which);
    if (client === undefined || expected === undefined) throw new Error();
    model.leave(expected);
    client.leave();
    compare(model, world);
  }

  toString = (): string => `leave(${this.#which})`;
}

class Advance implements Step {
  readonly #ms: number;

  constructor(ms: number) {
    this.#ms = ms;
  }

  check = (): boolean => true;

  run(model: Model, world: World): void {
    model.advance(this.#ms);
    vi.advanceTimersByTime(this.#ms);
    compare(model, world);
  }

  toString = (): string => `advance(${this.#ms})`;
}

class SetCap implements Step {
  readonly #backend: number;
  readonly #cap: number;

  constructor(backend: number, cap: number) {
    this.#backend = backend;
    this.#cap = cap;
  }

  check = (): boolean => true;

  run(model: Model, world: World): void {
    const backend = world.pool.backends[this.#backend];
    if (backend === undefined) throw new Error();
    model.free = world.free(backend, { maxConnections: this.#cap });
    model.serve();
    world.reconfigure({ cap: [this.#backend, this.#cap] });
    compare(model, world);
  }

  toString = (): string => `setCap(${this.#backend}, ${this.#cap})`;
}

class SetQueue implements Step {
  readonly #size: number;
  readonly #timeoutMs: number;

  constructor(size: number, timeoutMs: number) {
    this.#size = size;
    this.#timeoutMs = timeoutMs;
  }

  check = (): boolean => true;

  run(model: Model, world: World): void {
    model.size = this.#size;
    model.timeoutMs = this.#timeoutMs;
    world.reconfigure({ queue: { size: this.#size, timeoutMs: this.#timeoutMs } });
    compare(model, world);
  }

  toString = (): string => `setQueue(${this.#size}, ${this.#timeoutMs})`;
}

const kind = fc.constantFrom<Kind>("steady", "steady", "steady", "fickle", "pushy");
const size = fc.integer({ min: 0, max: 8 });
const timeoutMs = fc.integer({ min: 1, max: 100 });
/** 0, no limit, is rare: under it nobody waits. */
const cap = fc.oneof(
  { weight: 9, arbitrary: fc.integer({ min: 1, max: 4 }) },
  { weight: 1, arbitrary: fc.constant(0) },
);

const steps = fc.commands(
  [
    kind.map((one) => new Arrive(one)),
    kind.map((one) => new Arrive(one)),
    kind.map((one) => new Arrive(one)),
    fc.nat({ max: 50 }).map((which) => new Release(which)),
    fc.nat({ max: 50 }).map((which) => new Release(which)),
    fc.nat({ max: 50 }).map((which) => new Leave(which)),
    fc.integer({ min: 1, max: 60 }).map((ms) => new Advance(ms)),
    fc.tuple(fc.nat({ max: BACKENDS - 1 }), cap).map(([one, max]) => new SetCap(one, max)),
    fc.tuple(size, timeoutMs).map(([most, ms]) => new SetQueue(most, ms)),
  ],
  { maxCommands: 120, size: "max" },
);

it("never exceeds a cap, lets no slot lie idle and serves in order, whatever happens in which order", () => {
  const seen: Record<string, number> = {};
  const caps = fc.array(fc.integer({ min: 1, max: 3 }), {
    minLength: BACKENDS,
    maxLength: BACKENDS,
  });
  fc.assert(
    fc.property(caps, size, timeoutMs, steps, (initialCaps, most, ms, commands) => {
      vi.setSystemTime(0);
      const queue = { size: most, timeoutMs: ms };
      const world = new World(initialCaps, queue);
      const free = initialCaps.reduce((sum, one) => sum + one, 0);
      fc.modelRun(() => ({ model: new Model(free, queue), real: world }), commands);
      for (const { state, turns } of world.clients) {
        const key = turns > 0 ? `${state} after its turn` : state;
        seen[key] = (seen[key] ?? 0) + 1;
      }
      // Everybody leaves: the line runs dry by itself, and nothing is left behind.
      for (let held: Client[] = world.clients; held.length > 0; ) {
        held = world.clients.filter(({ state }) => state === "holding");
        for (const client of held) client.release();
        vi.advanceTimersByTime(0);
      }
      vi.advanceTimersByTime(1_000);
      expect(world.waiting).toEqual([]);
      expect(world.pool.queueLength).toBe(0);
      expect(world.pool.backends.map(({ connections }) => connections)).toEqual([0, 0, 0]);
      expect(vi.getTimerCount()).toBe(0);
    }),
    { numRuns: 400 },
  );
  // A property over sequences in which nobody waits would hold as well.
  for (const key of ["holding after its turn", "over after its turn", "left", "refused"]) {
    expect(seen[key], key).toBeGreaterThan(20);
  }
  expect(seen["timeout after its turn"]).toBeGreaterThan(20);
});
