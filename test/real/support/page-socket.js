/**
 * Put into every page of the test's browser: a WebSocket as an application has it, with the account of
 * what the browser told it. `browser.ts` drives it.
 */
const PATIENCE_MS = 20_000;

class PageSocket {
  #socket;
  #account = { opens: 0, errors: 0 };
  #end = null;
  #heard = [];
  #waiters = new Set();

  constructor(url, protocols) {
    const socket = new WebSocket(url, protocols);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => this.#note(() => this.#account.opens++));
    socket.addEventListener("error", () => this.#note(() => this.#account.errors++));
    socket.addEventListener("message", ({ data }) => this.#note(() => this.#heard.push(data)));
    socket.addEventListener("close", ({ code, reason, wasClean }) => {
      this.#note(() => {
        this.#end = { code, reason, wasClean, ...this.#account };
      });
    });
  }

  async opened() {
    await this.#until("open", () => this.#account.opens > 0);
    const { protocol, extensions } = this.#socket;
    return { protocol, extensions };
  }

  async ended() {
    await this.#until("closed", () => this.#end !== null);
    return this.#end;
  }

  /** Waits for a text message, and forgets it and those before it. */
  async hears(wanted) {
    await this.#until(`told "${wanted}"`, () => this.#heard.includes(wanted));
    this.#heard.splice(0, this.#heard.indexOf(wanted) + 1);
  }

  send(message) {
    this.#socket.send(message);
  }

  sendBytes(length) {
    this.#socket.send(new Uint8Array(length));
  }

  close(code, reason) {
    this.#socket.close(code, reason);
  }

  /** Sends a message of so many bytes and waits for the next one: its size, and whether it is the same. */
  async exchange(kind, length) {
    const message = kind === "text" ? textOf(length) : bytesOf(length);
    this.#heard.length = 0;
    this.#socket.send(message);
    await this.#until("answered", () => this.#heard.length > 0);
    const [answer] = this.#heard.splice(0);
    const same = kind === "text" ? answer === message : equal(new Uint8Array(answer), message);
    return { length: answer.byteLength ?? new TextEncoder().encode(answer).length, same };
  }

  #note(change) {
    change();
    for (const waiter of this.#waiters) waiter();
  }

  #until(what, holds) {
    return new Promise((resolve, reject) => {
      const check = () => {
        if (holds()) end(resolve);
        else if (this.#end !== null) end(() => reject(gone()));
      };
      const gone = () => new Error(`never ${what}: ${JSON.stringify(this.#end)}`);
      const timer = setTimeout(() => end(() => reject(gone())), PATIENCE_MS);
      const end = (settle) => {
        clearTimeout(timer);
        this.#waiters.delete(check);
        settle();
      };
      this.#waiters.add(check);
      check();
    });
  }
}

/** Of two and four bytes a letter, too, so that cuts fall inside of letters. */
function textOf(length) {
  const phrase = "Grüße 👋 from a browser; ";
  const phraseBytes = new TextEncoder().encode(phrase).length;
  const times = Math.floor(length / phraseBytes);
  return phrase.repeat(times) + "x".repeat(length - times * phraseBytes);
}

/** Half of it compresses, half does not. */
function bytesOf(length) {
  const made = new Uint8Array(length);
  // No more than this at once: a limit of the API.
  const step = 65_536;
  for (let at = 0; at < length / 2; at += step)
    crypto.getRandomValues(made.subarray(at, Math.min(at + step, length / 2)));
  return made;
}

function equal(one, other) {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}

globalThis.PageSocket = PageSocket;
