/**
 * permessage-deflate over a resume: backends that compress are killed as processes, under sessions of the
 * `ws` library, and every echo is compared byte for byte.
 */
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BackendProcess } from "../support/backend-process.ts";
import { DeflateClient, expectSame, type Message } from "../support/deflate-client.ts";
import { eventually } from "../support/eventually.ts";
import { onePool, startGateway, type TestGateway } from "../support/gateway.ts";
import { FAST_BACKOFF } from "../support/retry-setting.ts";

const SESSIONS = 24;
const KILLS = 4;
const SMALL = [1, 2, 125, 126, 1_000];
/** Each session sends one of these a round: compressing takes time on two cores. */
const LARGE = [65_535, 65_536, 200_000, 1024 * 1024];
/** Half of it text that repeats itself: what comes later refers to what came before, if it may. */
const PHRASES = randomBytes(24 * 1024).toString("base64");
/** More than a session sends while it has no upstream, and than its longest message. */
const SESSION = "buffer: 4MiB, attempts: 100";

let backends: BackendProcess[];
let gateway: TestGateway;
let clients: DeflateClient[];

beforeEach(async () => {
  clients = [];
  backends = await Promise.all([0, 1].map(() => BackendProcess.start("", "deflating-backend.mjs")));
});

afterEach(async () => {
  for (const { socket } of clients) socket.terminate();
  await gateway.stopClean();
  await Promise.all(backends.map((backend) => backend.kill()));
});

async function start(session = SESSION): Promise<void> {
  gateway = await startGateway(
    onePool(
      backends.map(({ url }) => url),
      `retry: { session: { enabled: true, ${session} }, ${FAST_BACKOFF} }`,
    ),
  );
}

/** Text is repetitive; of a binary message the second half is noise. */
function messageOf(size: number, binary: boolean, shift: number): Message {
  const data = Buffer.alloc(size, PHRASES.slice(shift % 1_000));
  if (binary) randomBytes(size >> 1).copy(data, size - (size >> 1));
  return { data, binary };
}

/** Sends every size as text and as binary, whole and in fragments, and waits for the echoes. */
async function exchange(client: DeflateClient, round: number): Promise<Message[]> {
  const messages: Message[] = [];
  const say = (size: number, binary: boolean, fragments: number): void => {
    const message = messageOf(size, binary, round);
    client.send(message, fragments);
    messages.push(message);
  };
  for (const size of SMALL) {
    for (const binary of [false, true])
      for (const fragments of [1, 2, 7]) say(size, binary, fragments);
  }
  const large = LARGE[(clients.indexOf(client) + round) % LARGE.length] ?? 0;
  say(large, round % 2 === 0, 1);
  say(large, round % 2 === 1, 7);
  await client.echoed(messages);
  return messages;
}

async function open(unaware = false): Promise<DeflateClient> {
  const client = new DeflateClient(gateway.url(), unaware);
  clients.push(client);
  await client.opened();
  return client;
}

async function killAndRestart(victim: BackendProcess | undefined): Promise<void> {
  await victim?.kill();
  await victim?.restart();
}

/** What a client sends around a kill: some that are on the way, and the two halves of a long one. */
function aroundKill(kill: number): { flying: Message[]; torn: Message } {
  const flying = [0, 1, 2, 3].map((i) => ({
    data: Buffer.from(`${kill}.${i} ${PHRASES.slice(0, 1_000)}`),
    binary: false,
  }));
  return { flying, torn: messageOf(300_000, kill % 2 === 0, kill) };
}

describe(`${SESSIONS} sessions that compress, over ${KILLS} kills`, () => {
  it.each(["none", "unconfirmed"])(
    "get every echo back byte for byte: resend %s",
    async (resend) => {
      await start(`${SESSION}, resend: ${resend}`);
      await Promise.all(Array.from({ length: SESSIONS }, () => open()));
      for (let kill = 0; kill < KILLS; kill += 1) {
        const before = await Promise.all(clients.map((client) => exchange(client, kill)));
        const { flying, torn } = aroundKill(kill);
        const half = torn.data.length >> 1;
        for (const { socket } of clients) {
          for (const { data, binary } of flying) socket.send(data, { binary });
          socket.send(torn.data.subarray(0, half), { binary: torn.binary, fin: false });
        }
        await killAndRestart(backends[kill % backends.length]);
        for (const { socket } of clients) {
          socket.send(torn.data.subarray(half), { binary: torn.binary, fin: true });
        }
        await eventually(() => {
          expect(clients.flatMap(({ endings }) => endings)).toEqual([]);
          const last = clients.map(({ echoes }) => echoes.at(-1)?.data.length);
          expect(last).toEqual(clients.map(() => torn.data.length));
        }, 20_000);
        for (const [index, client] of clients.entries()) {
          const echoes = client.echoes.splice(0);
          const sent = [...flying, torn];
          // unconfirmed may repeat some of what came before, too: as it was.
          const known = [...sent, ...(before[index] ?? [])];
          expect(echoes.filter((echo) => !isIn(known, echo))).toHaveLength(0);
          // none may have lost what was on the way, but not what was unfinished.
          const due = resend === "none" ? [torn] : sent;
          expect(due.filter((one) => !isIn(echoes, one))).toHaveLength(0);
          const inOrder = sent.filter((one) => isIn(echoes, one));
          expectSame(
            firstOfEach(echoes).filter((one) => isIn(sent, one)),
            inOrder,
          );
        }
      }
      await Promise.all(clients.map((client) => exchange(client, KILLS)));
      for (const { socket } of clients) socket.close(1000);
      const records = await gateway.recorded(SESSIONS);
      expect(new Set(records.map(({ cause }) => cause))).toEqual(new Set(["clientClosed"]));
      // The first kill has hit half of them, each later one everybody.
      const resumes = records.reduce((sum, record) => sum + record.resumes, 0);
      expect(resumes).toBeGreaterThanOrEqual(SESSIONS * (KILLS - 1));
    },
    120_000,
  );
});

const isIn = (messages: readonly Message[], one: Message): boolean =>
  messages.some(({ data }) => data.equals(one.data));

const firstOfEach = (messages: readonly Message[]): Message[] =>
  messages.filter((one, i) => !isIn(messages.slice(0, i), one));

/** Two texts before a kill, and the first one again after it. */
async function sayAgain(client: DeflateClient): Promise<Message> {
  const [first, second] = [messageOf(1_000, false, 0), messageOf(2_000, true, 500)];
  client.send(first, 1);
  client.send(second, 1);
  await client.echoed([first, second]);
  const serving = gateway.gateway.sessions(1)[0]?.backend;
  await killAndRestart(backends.find(({ url }) => url === serving));
  const resumed = 'softclose_resumes_total{route="all",outcome="resumed"}';
  await eventually(async () => expect(await gateway.metric(resumed)).toBe(1));
  client.send(first, 1);
  return first;
}

describe("A client that keeps its context", () => {
  it("is understood by no other upstream: 1007", async () => {
    await start();
    const client = await open(true);
    await sayAgain(client);
    await eventually(() => expect(client.endings).toEqual([1007]));
    const [record] = await gateway.recorded();
    expect(record).toMatchObject({ cause: "upstreamClosed", upstream: { received: 1007 } });
  });

  it("is why it is told client_no_context_takeover: with that, the same goes well", async () => {
    await start();
    const client = await open();
    const said = await sayAgain(client);
    await client.echoed([said]);
    expect(client.endings).toEqual([]);
  });
});

describe("Messages that only the client, or only the upstream, has seen", () => {
  it.each([
    ["the answer to a repeated message is swallowed", "replay: { first: 1, swallow: 1 }", 0],
    ["the client is told of the resume", 'notify: "back again"', 1],
  ])("confuse nobody: %s", async (_title, keys, notices) => {
    await start(`${SESSION}, ${keys}`);
    const client = await open();
    const text = await sayAgain(client);
    client.send(text, 1);
    const told = Array.from({ length: notices }, () => ({
      data: Buffer.from("back again"),
      binary: false,
    }));
    await client.echoed([...told, text, text]);
    // What comes later refers to more of what came before.
    const more = [1, 2, 3].map((shift) => messageOf(3_000, shift === 2, shift));
    for (const message of more) client.send(message, 1);
    await client.echoed(more);
    expect(client.endings).toEqual([]);
  });
});
