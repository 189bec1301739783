/**
 * One of the demo page's two lines as a whole: client, graph, figures, and what became of it last. The
 * page gets it inlined, behind `demo-line.js` and `demo-line-graph.js`.
 */
const { LineClient } = globalThis.softcloseLine;
const { LineGraph, duration } = globalThis.softcloseGraph;

class LinePanel {
  /**
   * `page`: the page's own tools. `line`: `address()`; `wish()`, the backend that it would rather have;
   * `settled()`, at each greeting and end; `note(text)`, a line for the log.
   */
  constructor(name, page, line) {
    this.name = name;
    this.page = page;
    this.line = line;
    this.running = false;
    this.lostBefore = 0;
    const on = {
      opened: (backend) => this.opened(backend),
      resumed: (lost, backend, ms) => this.resumed(lost, backend, ms),
      ended: (end) => this.ended(end),
    };
    this.client = new LineClient({ address: line.address, wish: line.wish, plan: page.plan, on });
    this.graph = new LineGraph(this.part("graph"), () => this.client.track, page.lanes);
    this.figures = ["answered", "lost", "longest gap", "connections"].map((label) => {
      const { element } = page;
      const figure = { value: element("strong"), label: element("span", "soft small", label) };
      const box = element("div");
      box.append(figure.value, figure.label);
      this.part("score").append(box);
      return figure;
    });
  }

  part(name) {
    return this.page.byId(`${this.name}-${name}`);
  }

  get backend() {
    return this.running ? this.client.track.backend : "";
  }

  run(running) {
    if (this.running === running) return;
    this.running = running;
    this.lostBefore = 0;
    this.part("told").textContent = "";
    if (running) this.client.start();
    else this.client.stop();
    this.show(performance.now());
  }

  opened(backend) {
    const { opened, gaps, lost } = this.client.track;
    if (opened > 1)
      this.tell(
        `A new connection, on backend ${backend}, ${duration(gaps.at(-1).ms)} later. ${this.page.plural(lost - this.lostBefore, "message was", "messages were")} lost.`,
      );
    this.lostBefore = lost;
    this.line.settled();
  }

  resumed(lost, backend, ms) {
    this.tell(
      `Backend ${lost} went, the WebSocket stayed: backend ${backend} answers now, after a gap of ${duration(ms)}.`,
    );
  }

  ended({ code, reason, backend, next, wasOpen }) {
    this.line.settled();
    const what = wasOpen ? `The connection over backend ${backend} broke` : "No connection";
    const back =
      next === null
        ? "It does not come back."
        : `The client tries again in ${duration(next.delay)}.`;
    this.tell(`${what}: ${code}, ${reason === "" ? "no reason given" : `“${reason}”`}. ${back}`);
  }

  tell(text) {
    this.part("told").textContent = text;
    this.part("graph").setAttribute("aria-label", text);
    this.line.note(text);
  }

  show(now) {
    const { track, backAt } = this.client;
    const { sent, answered, repeated, lost, opened } = track;
    const gapMs = track.longestGapMs(now);
    const values = [`${answered} of ${sent}`, lost, gapMs === 0 ? "–" : duration(gapMs), opened];
    values.forEach((value, i) => {
      this.figures[i].value.textContent = value;
    });
    this.figures[0].label.textContent = repeated === 0 ? "answered" : `answered, ${repeated} twice`;
    this.figures[1].value.classList.toggle("hot", lost > 0);
    const [tone, state] = this.state(track, backAt, now);
    this.part("state").className = `pill ${tone}`;
    this.part("state").textContent = state;
  }

  state(track, backAt, now) {
    if (!this.running) return ["", "stopped"];
    if (backAt !== null)
      return [
        "bad",
        `${track.connections.at(-1)?.code ?? "refused"}, back in ${duration(Math.max(0, backAt - now))}`,
      ];
    if (track.connection === null) return ["warn", "connecting"];
    const late = track.lateSince(now);
    if (late === null)
      return ["good", `connected for ${Math.floor((now - track.connection.from) / 1000)} s`];
    return [
      "warn",
      `connected, ${this.page.plural(track.waiting, "message waits", "messages wait")}`,
    ];
  }
}

globalThis.softcloseLinePanel = { LinePanel };
