/** The account that the demo page's graph draws, without a browser. */
import { readFileSync } from "node:fs";
import { runInNewContext } from "node:vm";
import { beforeEach, describe, expect, it } from "vitest";

interface Span {
  readonly from: number;
  readonly to: number | null;
}

interface Track {
  readonly connections: readonly (Span & { readonly code: number | null })[];
  readonly spans: readonly (Span & { readonly backend: string })[];
  readonly gaps: readonly (Span & { readonly ms: number; readonly kept: boolean })[];
  readonly sent: number;
  readonly answered: number;
  readonly lost: number;
  readonly repeated: number;
  readonly waiting: number;
  readonly backend: string;
  lateSince(now: number): number | null;
  longestGapMs(now: number): number;
  greeted(backend: string, now: number): void;
  send(now: number): number;
  echoed(backend: string, number: number, now: number): void;
  resumed(downMs: number, now: number): void;
  ended(code: number, now: number): void;
  forget(now: number): void;
}

interface Lanes {
  note(name: string, state: string, now: number): void;
  state(name: string): string;
  of(name: string): readonly (Span & { readonly state: string })[];
}

interface Exports {
  readonly Track: new () => Track;
  readonly Lanes: new () => Lanes;
}

const file = new URL("../../../src/cli/demo-line.js", import.meta.url);

function load(): Exports {
  const context: { softcloseLine?: Exports } = {};
  runInNewContext(readFileSync(file, "utf8"), context);
  if (context.softcloseLine === undefined) throw new Error("the script exports nothing");
  return context.softcloseLine;
}

const { Track, Lanes } = load();

/** Values of another realm have another `Object`, which `toEqual` would mind. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe("the track of a line", () => {
  let track: Track;

  beforeEach(() => {
    track = new Track();
    track.greeted("A", 1000);
  });

  it("counts what is sent, answered and still waiting", () => {
    track.echoed("A", track.send(1200), 1201);
    track.send(1400);
    expect(track).toMatchObject({ sent: 2, answered: 1, waiting: 1, lost: 0, backend: "A" });
  });

  it("is one connection over two backends when the session is resumed", () => {
    track.echoed("A", track.send(1200), 1201);
    track.resumed(8, 1300);
    track.echoed("B", track.send(1400), 1401);
    expect(plain(track.connections)).toEqual([{ from: 1000, to: null, code: null }]);
    expect(plain(track.spans)).toEqual([
      { backend: "A", from: 1000, to: 1292 },
      { backend: "B", from: 1300, to: null },
    ]);
    expect(plain(track.gaps)).toEqual([{ from: 1292, to: 1300, ms: 8, kept: true }]);
    expect(track).toMatchObject({ lost: 0, backend: "B" });
    expect(track.longestGapMs(1402)).toBe(8);
  });

  it("counts a message that is answered twice once, and says so", () => {
    const number = track.send(1200);
    track.echoed("A", number, 1201);
    track.resumed(3, 1300);
    track.echoed("B", number, 1301);
    expect(track).toMatchObject({ sent: 1, answered: 1, repeated: 1, waiting: 0 });
  });

  it("takes a backend that hangs as gone since the first message it did not answer", () => {
    track.echoed("A", track.send(1200), 1201);
    const unanswered = track.send(1400);
    expect([track.lateSince(1600), track.lateSince(4000)]).toEqual([null, 1400]);
    track.resumed(8, 4000);
    track.echoed("B", unanswered, 4001);
    expect(plain(track.spans)).toMatchObject([{ to: 1400 }, { backend: "B", from: 4000 }]);
    expect(plain(track.gaps)).toMatchObject([{ ms: 2600, kept: true }]);
  });

  it("breaks at 1006: what was under way or due without a connection is lost", () => {
    track.send(1200);
    track.ended(1006, 1210);
    track.send(1400);
    expect(track).toMatchObject({ sent: 2, lost: 2, waiting: 0, backend: "" });
    track.greeted("B", 2210);
    expect(plain(track.connections)).toEqual([
      { from: 1000, to: 1210, code: 1006 },
      { from: 2210, to: null, code: null },
    ]);
    expect(plain(track.gaps)).toEqual([{ from: 1210, to: 2210, ms: 1000, kept: false }]);
    expect(plain(track.spans)).toMatchObject([{ backend: "A", to: 1210 }, { backend: "B" }]);
  });

  it("knows its longest gap while that still lasts, and after", () => {
    track.send(1200);
    expect(track.longestGapMs(3200)).toBe(2000);
    track.ended(1006, 3300);
    expect(track.longestGapMs(3400)).toBe(2100);
    expect(track.longestGapMs(9300)).toBe(6000);
    track.greeted("B", 9400);
    expect(track.longestGapMs(9500)).toBe(6100);
  });

  it("does not end a connection that there is none of: a refused handshake", () => {
    track.ended(1006, 1100);
    track.ended(1006, 3000);
    expect(plain(track.connections)).toEqual([{ from: 1000, to: 1100, code: 1006 }]);
  });

  it("forgets what no graph shows any more, and keeps its figures", () => {
    track.ended(1006, 1100);
    track.greeted("B", 2000);
    track.ended(1006, 3000);
    track.forget(100_000);
    expect(plain([track.connections, track.spans, track.gaps])).toEqual([
      [{ from: 2000, to: 3000, code: 1006 }],
      [],
      [],
    ]);
    expect(track.longestGapMs(3000)).toBe(900);
  });
});

it("keeps when which backend was what", () => {
  const lanes = new Lanes();
  for (const now of [0, 1000]) lanes.note("A", "running", now);
  lanes.note("A", "dead", 2000);
  expect(plain(lanes.of("A"))).toEqual([
    { state: "running", from: 0, to: 2000 },
    { state: "dead", from: 2000, to: null },
  ]);
  expect([lanes.state("A"), lanes.state("B")]).toEqual(["dead", ""]);
  lanes.note("A", "dead", 90_000);
  expect(plain(lanes.of("A"))).toMatchObject([{ state: "dead" }]);
});
