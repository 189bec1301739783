/**
 * The demo page's graph of one line: the client's connection over the backends that answered it, as
 * inline SVG. What it draws is kept by `demo-line.js`. The page gets it inlined, so it exports to globalThis.
 */
const LABELS_PX = 60;
const ROW = { label: 11, client: 20, laneA: 62, laneB: 88, axis: 112 };
const WIRE_PX = 16;
const BAR_PX = 10;
const CROSS_PX = 5;
/** The room that a note above the line needs, for each of its letters. */
const LETTER_PX = 7;

/** Draws a track: the client's line on top, a lane for each backend below, now at the right edge. */
class LineGraph {
  #svg;
  #track;
  #lanes;
  #now = 0;
  #width = 0;
  #windowMs = 0;

  constructor(svg, track, lanes) {
    this.#svg = svg;
    this.#track = track;
    this.#lanes = lanes;
  }

  draw(now) {
    const track = this.#track();
    this.#now = now;
    this.#width = this.#svg.clientWidth;
    this.#windowMs = this.#width < 420 ? 12_000 : 20_000;
    track.forget(now);
    const late = track.lateSince(now);
    const spans = track.spans.map((span) => ({ ...span, to: span.to ?? late }));
    const lanes = { A: ROW.laneA, B: ROW.laneB };
    this.#svg.replaceChildren(
      ...Object.entries(lanes).flatMap(([name, y]) => this.#lane(name, y, spans)),
      ...track.connections.map(({ from, to }) => this.#bar("wire", from, to, ROW.client, WIRE_PX)),
      ...spans.flatMap((span) => this.#wire(span)),
      ...this.#gaps(track, late),
      ...this.#notes(track),
      this.#text("client", 0, ROW.client + 12, "client"),
      this.#text("tick", LABELS_PX, ROW.axis + 8, `${this.#windowMs / 1000} s ago`),
      this.#text("tick end", this.#width, ROW.axis + 8, "now"),
    );
  }

  /** A backend: a thin rail while it runs, a thick bar while it serves, a cross where it died. */
  #lane(name, y, spans) {
    const states = this.#lanes.of(name);
    const rails = states.map(({ state, from, to }) =>
      this.#bar(`rail ${state}`, from, to, y - 1, 2),
    );
    const bars = spans
      .filter(({ backend }) => backend === name)
      .flatMap(({ from, to }) => [
        this.#bar(`band by-${name}`, from, to, ROW.client + WIRE_PX, y - ROW.client - WIRE_PX),
        this.#bar(`by-${name}`, from, to, y - BAR_PX / 2, BAR_PX),
      ]);
    const deaths = states.filter(
      ({ state, from }, i) => i > 0 && state === "dead" && this.#shows(from),
    );
    const state = this.#lanes.state(name);
    return [
      ...rails,
      ...bars,
      ...deaths.map(({ from }) => this.#cross(from, y)),
      this.#text(`of-${name}`, 0, y + 4, name),
      this.#text(state, 14, y + 4, state === "running" ? "" : state),
    ];
  }

  #wire({ backend, from, to }) {
    const bar = this.#bar(`by-${backend}`, from, to, ROW.client, WIRE_PX);
    const left = this.#x(from);
    const width = this.#x(to ?? this.#now) - left;
    if (width < 20) return [bar];
    const label = width < 76 ? backend : `backend ${backend}`;
    return [bar, this.#text("inside", left + width / 2, ROW.client + 12, label)];
  }

  /** What a long gap means, where there is room to say it. */
  #gaps(track, late) {
    const { connection, connections, gaps } = track;
    const ended = connection === null ? (connections.at(-1)?.to ?? null) : null;
    const all = [...gaps];
    if (late !== null) all.push({ from: late, to: null, kept: true });
    if (ended !== null) all.push({ from: ended, to: null, kept: false });
    return all.flatMap(({ from, to, kept }) => {
      const left = this.#x(from);
      const width = this.#x(to ?? this.#now) - left;
      const label = kept ? "waiting" : "no connection";
      if (width < (label.length + 1) * LETTER_PX) return [];
      const kind = `inside ${kept ? "kept" : "gone"}`;
      return [this.#text(kind, left + width / 2, ROW.client + 12, label)];
    });
  }

  /** Above the line: where it went on over another backend, or broke. */
  #notes(track) {
    const kept = track.gaps.filter((gap) => gap.kept);
    const broken = track.connections.filter(({ to }) => to !== null);
    const notes = [
      ...kept.map(({ to, ms }) => ({
        at: to,
        tone: "good",
        text: `gap ${duration(ms)}`,
      })),
      ...broken.map(({ to, code }) => ({ at: to, tone: "bad", text: String(code) })),
    ].filter(({ at }) => this.#shows(at));
    let leftOfLast = Number.POSITIVE_INFINITY;
    const drawn = [];
    for (const { at, tone, text } of notes.toSorted((a, b) => b.at - a.at)) {
      const x = this.#x(at);
      drawn.push(tone === "bad" ? this.#cross(at, ROW.client + WIRE_PX / 2) : this.#seam(x));
      const half = (text.length * LETTER_PX) / 2;
      const middle = Math.min(x, this.#width - half);
      // The newest note is the one to read: an older one that would touch it is left out.
      if (middle + half > leftOfLast) continue;
      leftOfLast = middle - half;
      drawn.push(this.#text(`note ${tone}`, middle, ROW.label, text));
    }
    return drawn;
  }

  #x(time) {
    const room = this.#width - LABELS_PX;
    const x = this.#width - (room * (this.#now - time)) / this.#windowMs;
    return Math.max(LABELS_PX, x);
  }

  #shows(time) {
    return this.#now - time < this.#windowMs;
  }

  #bar(kind, from, to, y, height) {
    const x = this.#x(from);
    const width = Math.max(0, this.#x(to ?? this.#now) - x);
    return this.#shape("rect", { class: kind, x, y, width, height });
  }

  #cross(time, y) {
    const x = this.#x(time);
    const [near, far] = [-CROSS_PX, CROSS_PX];
    const d = `M${x + near} ${y + near}L${x + far} ${y + far}M${x + near} ${y + far}L${x + far} ${y + near}`;
    return this.#shape("path", { class: "cross", d });
  }

  #seam(x) {
    const ends = { x1: x, x2: x, y1: ROW.client - 4, y2: ROW.laneB + 8 };
    return this.#shape("line", { class: "seam", ...ends });
  }

  #text(kind, x, y, content) {
    const text = this.#shape("text", { class: kind, x, y });
    text.textContent = content;
    return text;
  }

  #shape(name, attributes) {
    const shape = document.createElementNS(this.#svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
    return shape;
  }
}

function duration(ms) {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

globalThis.softcloseGraph = { LineGraph, duration };
