/**
 * An upstream's answer to the upgrade request: any bytes in any chunks are one verdict of the dial, on which
 * Node's parser agrees, and what the client would be shown of it holds no header but those. An input is two
 * characters of options and the answer; `@ACCEPT@` in it stands for the right key.
 */
import { deepEqual, equal, ok } from "node:assert/strict";
import { createServer, type Server, type Socket } from "node:net";
import { responseHeaderLines } from "../../../src/edge/request-headers.ts";
import { Backend } from "../../../src/upstream/backend.ts";
import { Dial, type DialResult } from "../../../src/upstream/dial.ts";
import { MAX_BODY_BYTES } from "../../../src/upstream/rejection.ts";
import { type UpgradeRequest, verifyAnswer } from "../../../src/upstream/upgrade-request.ts";
import { ReadBuffers } from "../../../src/upstream/upstream-socket.ts";
import { readOffers } from "../../../src/wire/deflate.ts";
import {
  endOfHead,
  MAX_HEAD_BYTES,
  parseResponseHead,
  type ResponseHead,
} from "../../../src/wire/response-head.ts";
import { SlabPool } from "../../../src/wire/slab.ts";
import { acceptFor } from "../../support/raw-upstream.ts";
import { cut } from "../../unit/wire/relay-harness.ts";
import { readAnswerWithNode } from "../node-parser.ts";
import { latin1, type Target } from "../target.ts";

const KEY = "dGhlIHNhbXBsZSBub25jZQ==";
const REQUEST: UpgradeRequest = {
  target: "/",
  headerLines: "Host: h\r\n",
  subprotocols: ["v1", "v2"],
  offers: readOffers("permessage-deflate; client_max_window_bits") ?? [],
};
/** Long enough for any machine: the answer always ends by itself. */
const DIAL_TIMEOUT_MS = 15_000;
/** What Node says of framing that the head alone does not decide: a 101 has no body. */
const NODE_STRICTER: ReadonlySet<string> = new Set([
  "HPE_INVALID_CONTENT_LENGTH",
  "HPE_UNEXPECTED_CONTENT_LENGTH",
  "HPE_INVALID_TRANSFER_ENCODING",
  "HPE_INVALID_CHUNK_SIZE",
  "HPE_HEADER_OVERFLOW",
]);

export async function responseTarget(): Promise<Target> {
  const upstream = await AnsweringUpstream.start();
  return {
    seeds: SEEDS.map(latin1),
    tokens: TOKENS.map(latin1),
    maxInputBytes: 4096,
    check: async (input) => {
      const [mode = 0, size = 0] = input;
      const answer = input.subarray(2);
      await checkHead(withAccept(answer, KEY));
      // A connection costs more than all the rest.
      if (mode % 4 === 1) await checkDial(upstream, answer, size, mode % 8 === 1);
    },
    close: () => upstream.close(),
  };
}

async function checkHead(bytes: Buffer): Promise<void> {
  const end = endOfHead(bytes);
  equal(end, endOfHeadOf(bytes));
  if (end === -1) return;
  const head = parseResponseHead(bytes.subarray(0, end));
  if (typeof head === "string") {
    ok(head !== "");
    return;
  }
  ok(head.status >= 100 && head.status <= 599);
  const passed = head.headers.filter(([name]) => passes(name, head));
  const shown = `HTTP/1.1 101 x\r\n${responseHeaderLines(head.headers)}\r\n`;
  const again = parseResponseHead(latin1(shown));
  deepEqual(typeof again === "string" ? again : again.headers, passed);
  checkAgreement(head);
  const read = await readAnswerWithNode(bytes);
  if ("error" in read) {
    ok(NODE_STRICTER.has(read.error) || end > MAX_HEAD_BYTES, `Node says ${read.error}`);
    return;
  }
  // Node reads on behind a 100 and says nothing of it.
  if (head.status === 100) return;
  equal(read.status, head.status);
  deepEqual(read.headers, head.headers);
}

/** Without `indexOf`. */
function endOfHeadOf(bytes: Buffer): number {
  const match = /\r\n\r\n/.exec(bytes.toString("latin1"));
  return match === null ? -1 : match.index + 4;
}

function passes(name: string, { headers }: ResponseHead): boolean {
  const named = headers
    .filter(([key]) => /^connection$/i.test(key))
    .flatMap(([, value]) => value.toLowerCase().split(/[ \t]*,[ \t]*/));
  const own =
    /^(?:connection|keep-alive|proxy-authenticate|proxy-authorization|proxy-connection|te|trailer|transfer-encoding|upgrade|content-length|sec-websocket-.*)$/i;
  return !own.test(name) && !named.includes(name.toLowerCase());
}

/** RFC 6455 §4.1, the client's side: what is agreed on satisfies each of its six points. */
function checkAgreement(head: ResponseHead): void {
  const agreement = verifyAnswer(head, REQUEST, KEY);
  const all = (name: string): string[] =>
    head.headers.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
  const isSound =
    all("upgrade").join(", ").toLowerCase() === "websocket" &&
    all("connection").some((value) => /(?:^|,)[ \t]*upgrade[ \t]*(?:,|$)/i.test(value)) &&
    all("sec-websocket-accept").join(", ") === acceptFor(KEY) &&
    ["", ...REQUEST.subprotocols].includes(all("sec-websocket-protocol").join(", "));
  if (typeof agreement === "string") {
    if (isSound) ok(all("sec-websocket-extensions").length > 0, agreement);
    return;
  }
  ok(isSound, "agreed without a sound answer");
  equal(agreement.subprotocol, all("sec-websocket-protocol").join(", "));
  equal(agreement.deflate === null, all("sec-websocket-extensions").join("").trim() === "");
}

/** The same by a real dial, in chunks, against a slow reading of the whole answer. */
async function checkDial(
  upstream: AnsweringUpstream,
  answer: Buffer,
  size: number,
  wantsBody: boolean,
): Promise<void> {
  const { result, sent, key } = await upstream.dial(answer, size, wantsBody);
  const expected = expectedOf(sent, key);
  if ("connection" in result) {
    equal(expected.verdict, "connected");
    const { early, subprotocol } = result.connection;
    ok(expected.rest.subarray(0, early.length).equals(early), "early bytes are not what follows");
    ok(["", ...REQUEST.subprotocols].includes(subprotocol));
    return;
  }
  const { outcome, rejection, detail } = result.failure;
  equal(outcome, expected.verdict, detail);
  equal(rejection?.status, expected.status, detail);
  ok(rejection === null || rejection.body.length <= MAX_BODY_BYTES);
}

interface ExpectedDial {
  readonly verdict: "connected" | "rejected" | "reset";
  /** Of an answer that is none of a handshake's. */
  readonly status?: number;
  readonly rest: Buffer;
}

function expectedOf(bytes: Buffer, key: string): ExpectedDial {
  let rest = bytes;
  for (;;) {
    const end = endOfHeadOf(rest);
    if (end === -1) return { verdict: rest.length < MAX_HEAD_BYTES ? "reset" : "rejected", rest };
    const head = parseResponseHead(rest.subarray(0, end));
    if (end > MAX_HEAD_BYTES || typeof head === "string") return { verdict: "rejected", rest };
    rest = rest.subarray(end);
    if (head.status >= 200) return { verdict: "rejected", status: head.status, rest };
    if (head.status !== 101) continue;
    const agreement = verifyAnswer(head, REQUEST, key);
    return { verdict: typeof agreement === "string" ? "rejected" : "connected", rest };
  }
}

interface Dialled {
  readonly result: DialResult;
  readonly key: string;
  /** The answer with the right key in it. */
  readonly sent: Buffer;
}

/** A backend that answers each dial with bytes, in chunks, and ends. */
class AnsweringUpstream {
  readonly #server: Server;
  readonly #backend: Backend;
  readonly #readBuffers = new ReadBuffers(new SlabPool());
  #answer: (socket: Socket, key: string) => void = () => undefined;

  private constructor(server: Server, port: number) {
    this.#server = server;
    const home = {
      now: () => 0,
      onRoom: () => undefined,
      mayEject: () => false,
      ejected: () => undefined,
      returned: () => undefined,
    };
    this.#backend = new Backend(
      {
        url: `ws://127.0.0.1:${port}`,
        host: "127.0.0.1",
        port,
        isName: false,
        maxConnections: 0,
        weight: 1,
      },
      { ejection: null, slowStartMs: 0 },
      home,
    );
    server.on("connection", (socket) => {
      socket.on("error", () => socket.destroy());
      socket.setNoDelay(true);
      let head = "";
      socket.on("data", (chunk: Buffer) => {
        head += chunk.toString("latin1");
        const key = /\r\nSec-WebSocket-Key: (\S+)\r\n(?:.*\r\n)*\r\n$/.exec(head)?.[1];
        if (key !== undefined) this.#answer(socket, key);
      });
    });
  }

  static async start(): Promise<AnsweringUpstream> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    if (address === null || typeof address === "string") throw new Error("no port");
    return new AnsweringUpstream(server, address.port);
  }

  async dial(answer: Buffer, size: number, wantsBody: boolean): Promise<Dialled> {
    let key = "";
    let sent: Buffer = Buffer.alloc(0);
    this.#answer = (socket, itsKey) => {
      key = itsKey;
      sent = withAccept(answer, key);
      for (const chunk of cut(sent, [size + 1, 4 * size + 1, sent.length])) socket.write(chunk);
      socket.end();
    };
    const options = { timeoutMs: DIAL_TIMEOUT_MS, readBuffers: this.#readBuffers, wantsBody };
    let calls = 0;
    const result = await new Promise<DialResult>((resolve) => {
      // oxlint-disable-next-line no-new -- it calls back by itself
      new Dial(this.#backend, REQUEST, options, (end) => {
        calls += 1;
        resolve(end);
      });
    });
    equal(calls, 1);
    if ("connection" in result) {
      const { socket } = result.connection.upstream;
      equal(socket.listenerCount("error"), 0);
      socket.on("error", () => undefined).destroy();
    }
    return { result, key, sent };
  }

  async close(): Promise<void> {
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

function withAccept(answer: Buffer, key: string): Buffer {
  return latin1(answer.toString("latin1").replaceAll("@ACCEPT@", acceptFor(key)));
}

const GOOD =
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: @ACCEPT@\r\n";

/** By mode: the head alone, and a dial with and without the body of a refusal, in small or large chunks. */
const SEEDS = [
  `${GOOD}\r\n`,
  `${GOOD}Sec-WebSocket-Protocol: v1\r\nSet-Cookie: a=b\r\n\r\n\x81\x02hi`,
  `${GOOD}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\r\n\r\n`,
  `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n${GOOD}\r\n`,
  "HTTP/1.1 503 Busy\r\nContent-Length: 5\r\nRetry-After: 3\r\n\r\nlater",
  "HTTP/1.1 401 \r\nTransfer-Encoding: chunked\r\nWWW-Authenticate: Basic\r\n\r\n5\r\nwrong\r\n0\r\n\r\n",
  "HTTP/1.0 500 Oops\r\nConnection: close, X-Secret\r\nX-Secret: 1\r\n\r\nuntil the end",
  "HTTP/1.1 200 OK\r\nfolded: a\r\n b\r\n\r\n",
].flatMap((answer) =>
  ["@A", "1\x00", "1\xff", "5\x10"].map((mode) => `${mode === "@A" ? "0A" : mode}${answer}`),
);

const TOKENS = [
  GOOD,
  "\r\n",
  "\r\n\r\n",
  "\n",
  "\r",
  "\0",
  "\t",
  " ",
  ":",
  ",",
  "\xa0",
  "\xff",
  "\x7f",
  "HTTP/1.1 ",
  "HTTP/1.0 ",
  "101",
  "100 ",
  "200 OK",
  "404 x",
  "503 x",
  "204 x",
  "304 x",
  "Content-Length: ",
  "Transfer-Encoding: chunked\r\n",
  "Connection: ",
  "Upgrade: ",
  "Upgrade, ",
  "websocket",
  "Sec-WebSocket-Accept: @ACCEPT@\r\n",
  "@ACCEPT@",
  "Sec-WebSocket-Protocol: v2\r\n",
  "v1",
  "x: y\r\n",
  "Sec-WebSocket-Extensions: permessage-deflate\r\n",
  "Set-Cookie: a\r\n",
  "5\r\n",
  "ffffffff\r\n",
  "0\r\n\r\n",
  "__proto__: x\r\n",
  "x: y\r\n".repeat(64),
  `p: ${"z".repeat(1000)}\r\n`,
];
