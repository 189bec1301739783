/**
 * What the Node programs here share: each is told what to do by lines of JSON, and tells what it sees in the
 * same way (the words are in `test/support/stack.ts`). It has one connection at a time, and ends with its input.
 */
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

let connection = null;

/**
 * `listen` and `open`: how the stack does that. They hand each new connection to `opened`, as an object with
 * `send(bytes, binary, fragments)`, `ping(payload)` and `close(code, reason)`; a code of null: give none.
 */
export function obey({ listen, open }) {
  const commands = {
    listen,
    open,
    send: (message) => connection.send(bytesOf(message), message.binary, message.fragments),
    ping: ({ payload }) => connection.ping(payload),
    close: ({ code, reason }) => connection.close(code, reason),
  };
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  });
  lines.on("close", () => process.exit());
}

export function listening(server) {
  tell("listening", { port: server.address().port });
}

export function opened(open, subprotocol) {
  connection = open;
  // Libraries say "", null or undefined where none was chosen.
  tell("open", { subprotocol: subprotocol || null });
}

/** `data`: text as a string or its bytes. */
export function received(data, binary) {
  const bytes = Buffer.from(data);
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  tell("message", { binary, length: bytes.length, sha256 });
}

export function ponged(payload) {
  tell("pong", { payload: String(payload) });
}

/** `clean`: null where the stack does not say. */
export function closed(code, reason, clean = null) {
  tell("close", { code, reason: String(reason), clean });
}

function bytesOf({ part, times }) {
  const bytes = Buffer.from(part, "base64");
  return Buffer.alloc(bytes.length * times, bytes);
}

function tell(event, fields) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}
