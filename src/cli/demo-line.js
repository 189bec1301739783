/**
 * The demo page's lines: a client that sends numbered messages steadily, and the account of what became
 * of each and of its connection. It draws nothing. The page gets it inlined, so it exports to globalThis.
 */
const SEND_MS = 200;
/** An answer that is this late shows as a gap. */
const LATE_MS = 300;
const KEPT_MS = 60_000;
const ALIGN_TRIES = 3;
/** A backend that hangs is not sent more than this. */
const MAX_WAITING = 500;

/** What happened to one client's connection, as pure bookkeeping: every method is told the time. */
class Track {
  /** Each from its greeting to its close; `code` is null while it is open. */
  connections = [];
  /** Each a time in which one backend answered; `to` is null while it does. */
  spans = [];
  /** Each without a backend (`kept`: the connection stayed) or without a connection. */
  gaps = [];
  sent = 0;
  answered = 0;
  lost = 0;
  /** Answered a second time: what is sent at least once may be answered twice. */
  repeated = 0;
  opened = 0;
  #longestGapMs = 0;
  #pending = new Map();
  #resumedAt = null;

  get connection() {
    const last = this.connections.at(-1);
    return last === undefined || last.to !== null ? null : last;
  }

  /** The backend that answered last; empty: none, or the connection has ended. */
  get backend() {
    return this.connection === null ? "" : (this.spans.at(-1)?.backend ?? "");
  }

  get waiting() {
    return this.#pending.size;
  }

  /** Since when an answer is overdue; null: none is. */
  lateSince(now) {
    const [first] = this.#pending.values();
    return first !== undefined && now - first > LATE_MS ? first : null;
  }

  /** The longest time without answers or without a connection, the one that lasts included. */
  longestGapMs(now) {
    const before = this.connections.at(-1);
    const since = this.connection === null ? (before?.to ?? now) : (this.lateSince(now) ?? now);
    return Math.max(this.#longestGapMs, now - since);
  }

  greeted(backend, now) {
    const before = this.connections.at(-1);
    if (before !== undefined) this.#gap(before.to, now, now - before.to, false);
    this.opened += 1;
    this.connections.push({ from: now, to: null, code: null });
    this.spans.push({ backend, from: now, to: null });
  }

  /** The number of the message that is due now; without a connection it is lost. */
  send(now) {
    this.sent += 1;
    if (this.connection === null) this.lost += 1;
    else this.#pending.set(this.sent, now);
    return this.sent;
  }

  echoed(backend, number, now) {
    const late = this.lateSince(now);
    if (this.#pending.delete(number)) this.answered += 1;
    else this.repeated += 1;
    const span = this.spans.at(-1);
    if (span?.to === null) {
      if (span.backend === backend && late === null) return;
      span.to = late ?? now;
    }
    this.spans.push({ backend, from: this.#resumedAt ?? now, to: null });
    this.#resumedAt = null;
  }

  /** The gateway says that another upstream took over, after so long without one. */
  resumed(downMs, now) {
    const from = this.lateSince(now) ?? now - downMs;
    const gap = this.#gap(from, now, Math.max(downMs, now - from), true);
    this.#endSpan(from);
    this.#resumedAt = now;
    return gap;
  }

  ended(code, now) {
    const { connection } = this;
    if (connection === null) return;
    this.#longestGapMs = this.longestGapMs(now);
    this.#endSpan(this.lateSince(now) ?? now);
    connection.to = now;
    connection.code = code;
    this.lost += this.#pending.size;
    this.#pending.clear();
    this.#resumedAt = null;
  }

  /** Drops what no graph shows any more. */
  forget(now) {
    const shown = ({ to }) => to === null || now - to < KEPT_MS;
    const last = this.connections.at(-1);
    this.connections = this.connections.filter((each) => each === last || shown(each));
    this.spans = this.spans.filter(shown);
    this.gaps = this.gaps.filter(shown);
  }

  #endSpan(at) {
    const span = this.spans.at(-1);
    if (span?.to === null) span.to = Math.max(span.from, at);
  }

  #gap(from, to, ms, kept) {
    const gap = { from, to, ms, kept };
    this.gaps.push(gap);
    this.#longestGapMs = Math.max(this.#longestGapMs, ms);
    return gap;
  }
}

/** The client of one line: a browser WebSocket that sends a number every 200 ms, and comes back when it ends. */
class LineClient {
  track = new Track();
  /** When it comes back; null: it is not waiting to. */
  backAt = null;
  #socket = null;
  #timer = null;
  #sender = null;
  #attempt = 0;
  #aligned = 0;
  /** It went on after this gap, and nobody has answered yet. */
  #gap = null;
  #options;

  /**
   * `address()`; `plan(code, reason, attempt)`: when to come back; `wish()`: the backend that it would rather
   * have; `on`: told of what happens.
   */
  constructor(options) {
    this.#options = options;
  }

  start() {
    this.track = new Track();
    this.#attempt = 0;
    this.#aligned = 0;
    this.#open();
    this.#sender = setInterval(() => this.#send(), SEND_MS);
  }

  stop() {
    clearInterval(this.#sender);
    clearTimeout(this.#timer);
    this.backAt = null;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
  }

  #open() {
    const { address } = this.#options;
    const socket = new WebSocket(address());
    this.#socket = socket;
    this.backAt = null;
    socket.addEventListener("message", ({ data }) => {
      if (socket === this.#socket) this.#heard(String(data), performance.now());
    });
    socket.addEventListener("close", ({ code, reason }) => {
      if (socket === this.#socket) this.#ended(code, reason, performance.now());
    });
  }

  #send() {
    const { track } = this;
    // Before the first greeting there is nothing to lose.
    if (track.opened === 0 || track.waiting >= MAX_WAITING) return;
    const number = track.send(performance.now());
    if (track.connection !== null) this.#socket?.send(String(number));
  }

  #heard(text, now) {
    const { on, wish } = this.#options;
    const resumed = /^resumed after (\d+) ms/.exec(text);
    if (resumed !== null) {
      const lost = this.track.backend;
      this.#gap = { lost, ms: this.track.resumed(Number(resumed[1]), now).ms };
      return;
    }
    const [, backend, said] = /^backend (\w+): (.*)$/.exec(text) ?? [];
    if (backend === undefined) return;
    if (this.track.connection !== null) {
      if (!/^\d+$/.test(said)) return;
      this.track.echoed(backend, Number(said), now);
      if (this.#gap !== null) on.resumed(this.#gap.lost, backend, this.#gap.ms);
      this.#gap = null;
      return;
    }
    const wished = wish();
    if (wished !== "" && backend !== wished && ++this.#aligned < ALIGN_TRIES) {
      // A proxy that takes turns has the other one next: both lines should begin on the same backend.
      this.#socket.close(1000);
      this.#open();
      return;
    }
    this.#aligned = 0;
    this.#attempt = 0;
    this.track.greeted(backend, now);
    on.opened(backend);
  }

  #ended(code, reason, now) {
    const { on, plan } = this.#options;
    const { connection, backend } = this.track;
    this.track.ended(code, now);
    this.#gap = null;
    const next = plan(code, reason, this.#attempt++);
    if (next !== null) {
      this.backAt = now + next.delay;
      this.#timer = setTimeout(() => this.#open(), next.delay);
    }
    on.ended({ code, reason, backend, next, wasOpen: connection !== null });
  }
}

/** When which backend was what, for the lanes of every graph. */
class Lanes {
  #changes = new Map();

  note(name, state, now) {
    const changes = this.#changes.get(name) ?? [];
    this.#changes.set(name, changes);
    if (changes.at(-1)?.state !== state) changes.push({ state, at: now });
    while (changes.length > 1 && now - changes[1].at > KEPT_MS) changes.shift();
  }

  state(name) {
    return this.#changes.get(name)?.at(-1)?.state ?? "";
  }

  /** `to` is null for the state of now. */
  of(name) {
    const changes = this.#changes.get(name) ?? [];
    return changes.map(({ state, at }, i) => ({ state, from: at, to: changes[i + 1]?.at ?? null }));
  }
}

globalThis.softcloseLine = { Track, LineClient, Lanes };
