/**
 * Dials or probes a port on which nobody listens, again and again, in the namespace that it is started in.
 * Prints how often each outcome came, as JSON.
 */
import { Dial } from "../../../dist/upstream/dial.js";
import { probe } from "../../../dist/upstream/probe.js";
import { ReadBuffers } from "../../../dist/upstream/upstream-socket.js";
import { SlabPool } from "../../../dist/wire/slab.js";

const [what, ...numbers] = process.argv.slice(2);
const [port, count] = numbers.map(Number);
const backend = { url: `ws://127.0.0.1:${port}`, host: "127.0.0.1", port };
const request = { target: "/", headerLines: "Host: a\r\n", subprotocols: [], offers: [] };
const options = {
  timeoutMs: 5_000,
  readBuffers: new ReadBuffers(new SlabPool()),
  wantsBody: false,
};

function dial() {
  return new Promise((resolve) => {
    void new Dial(backend, request, options, (result) =>
      resolve(result.failure?.outcome ?? "connected"),
    );
  });
}

async function probed() {
  const config = { type: "tcp", timeoutMs: 5_000 };
  const { good } = await probe(backend, config, new AbortController().signal);
  return good ? "good" : "bad";
}

const tally = {};
for (let n = 0; n < count; n += 1) {
  const outcome = await (what === "dial" ? dial() : probed());
  tally[outcome] = (tally[outcome] ?? 0) + 1;
}
console.log(JSON.stringify(tally));
