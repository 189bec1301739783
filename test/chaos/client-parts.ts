/** What each part of a client does, from the open session to its end. */
import { buildFrame, closePayload, type FrameSpec } from "../support/frames.ts";
import { Random } from "../support/random.ts";
import { ChaosClient } from "./client.ts";
import { type ClientPart, messageOf, type Story } from "./story.ts";

const TEXT = 0x1;
const CONTINUATION = 0x0;
const PING = 0x9;
const MASK = Buffer.from([0x11, 0x22, 0x33, 0x44]);

/** Over the rate and the burst that the `limits` route allows, and enough to fill buffers. */
const FLOOD_MESSAGES = 1_500;
/** Over `maxMessageSize`, in one frame whose payload is never sent. */
const TOO_BIG_BYTES = 64 * 1024 * 1024;
/** Under `slowConsumerTimeout`, with some air; and over it, with the time to be closed. */
const PAUSE_MS = 1_500;
const STALL_MS = 12_000;
/** Over `heartbeat.client` interval and timeout. */
const SILENCE_MS = 20_000;
const IDLE_MS = 4_000;
/** How long an echo is waited for; on the routes with session retry it comes over outages, too. */
const ECHO_LIMIT_MS = 12_000;

type Act = (client: ChaosClient, random: Random) => Promise<void>;

/** Plays a story to its end. */
export async function play(port: number, story: Story): Promise<ChaosClient> {
  const random = Random.of(story.seed, "part", story.index);
  // Some say all that they have to say before they are answered.
  const early = story.client === "leavesEarly" && random.chance(0.3);
  const client = new ChaosClient(port, story, early ? messageOf(story.index, 0) : null);
  if (story.client === "leavesEarly") {
    await delayed(client, random.int(0, 100));
    client.vanish(random.pick(["fin", "reset"]));
  } else if (story.client === "vanishes" && random.chance(0.2)) {
    await delayed(client, random.int(0, 300));
    client.vanish("reset");
  }
  if (await client.opened) await ACTS[story.client](client, random);
  await client.ended;
  return client;
}

const ACTS: Readonly<Record<ClientPart, Act>> = {
  talks: async (client) => {
    await talk(client, client.story.messages);
    await lastEcho(client);
    client.close(client.story.clientCode);
  },

  floods: async (client) => {
    const { index } = client.story;
    for (let number = 0; number < FLOOD_MESSAGES && client.isOpen; number += 1) {
      client.sendMessage(messageOf(index, number));
      if (!client.takesMore) await client.until(() => client.takesMore, 20);
    }
    await lastEcho(client);
    client.close(client.story.clientCode);
  },

  fragments: async (client, random) => {
    const { index, messages, everyMs } = client.story;
    for (let number = 0; number < messages && client.isOpen; number += 1) {
      await sendInFragments(client, messageOf(index, number), random);
      if (!(await client.pause(random.int(0, everyMs)))) return;
    }
    await lastEcho(client);
    client.close(client.story.clientCode);
  },

  idles: async (client) => {
    if (await client.pause(IDLE_MS)) client.close(client.story.clientCode);
  },

  pauses: async (client) => {
    await talk(client, client.story.messages / 2);
    client.stopReading();
    await client.pause(PAUSE_MS);
    client.readOn();
    await lastEcho(client);
    client.close(client.story.clientCode);
  },

  stalls: async (client, random) => {
    await talk(client, random.int(0, 3));
    client.giveUp();
    client.stopReading();
    await client.pause(STALL_MS);
    client.readOn();
    await client.pause(PAUSE_MS);
    client.vanish("reset");
  },

  silent: async (client, random) => {
    client.answersPings = false;
    await talk(client, random.int(0, 3));
    if (await client.pause(SILENCE_MS)) client.close(client.story.clientCode);
  },

  vanishes: async (client, random) => {
    await talk(client, random.int(0, client.story.messages));
    if (random.chance(0.3)) {
      // Inside a frame.
      const frame = buildFrame({ opcode: TEXT, mask: MASK, payload: "never whole" });
      client.sendBytes(frame.subarray(0, random.int(1, frame.length - 1)));
    }
    client.vanish(random.pick(["fin", "reset"]));
  },

  halfCloses: async (client, random) => {
    await talk(client, random.int(0, client.story.messages));
    client.halfClose();
  },

  leavesEarly: () => Promise.resolve(),

  closesMidMessage: async (client, random) => {
    await talk(client, random.int(0, 3));
    client.sendFrame({ opcode: TEXT, fin: false, payload: "never whole" });
    await client.pause(random.int(0, 50));
    client.close(client.story.clientCode);
  },

  garbage: async (client, random) => {
    await talk(client, random.int(0, 3));
    client.sendBytes(garbage(random));
    client.giveUp();
  },

  tooBig: async (client, random) => {
    await talk(client, random.int(0, 3));
    client.sendFrame({ opcode: TEXT, payload: "", announcedLength: TOO_BIG_BYTES });
    client.giveUp();
  },
};

async function delayed(client: ChaosClient, ms: number): Promise<void> {
  await Promise.race([
    client.ended,
    new Promise((resolve) => {
      setTimeout(resolve, ms);
    }),
  ]);
}

async function talk(client: ChaosClient, messages: number): Promise<void> {
  const { index, everyMs } = client.story;
  for (let number = 0; number < messages; number += 1) {
    client.sendMessage(messageOf(index, number));
    if (!(await client.pause(everyMs))) return;
  }
}

/** The echo of the last message; of one that is lost it never comes. */
async function lastEcho(client: ChaosClient): Promise<void> {
  const { facts } = client;
  await client.until(
    () => facts.sent === 0 || facts.echoes.at(-1) === facts.sent - 1,
    ECHO_LIMIT_MS,
  );
}

async function sendInFragments(
  client: ChaosClient,
  payload: Buffer,
  random: Random,
): Promise<void> {
  let at = 0;
  let opcode = TEXT;
  while (at < payload.length && client.isOpen) {
    const end = Math.min(payload.length, at + random.int(0, Math.ceil(payload.length / 3)));
    const fin = end === payload.length;
    const frame = { opcode, fin, payload: payload.subarray(at, end) };
    if (random.chance(0.1) && frame.payload.length < 200) dribble(client, frame, fin);
    else client.sendFrame(frame, fin);
    if (random.chance(0.2)) client.sendFrame({ opcode: PING, payload: "between" });
    opcode = CONTINUATION;
    at = end;
    if (random.chance(0.2)) await client.pause(random.int(0, 30));
  }
}

/** Byte by byte, as far as TCP leaves it so. */
function dribble(client: ChaosClient, frame: FrameSpec, endsMessage: boolean): void {
  const bytes = buildFrame({ mask: MASK, ...frame });
  for (let at = 0; at < bytes.length; at += 1) {
    client.sendBytes(bytes.subarray(at, at + 1), endsMessage && at === bytes.length - 1);
  }
}

function garbage(random: Random): Buffer {
  return random.pick([
    // Reserved bits, a reserved opcode, no mask, a Close with a code that nobody may send.
    buildFrame({ opcode: TEXT, rsv2: true, mask: MASK, payload: "x" }),
    buildFrame({ opcode: 0x3, mask: MASK, payload: "x" }),
    buildFrame({ opcode: TEXT, payload: "x" }),
    buildFrame({ opcode: 8, mask: MASK, payload: closePayload(1006) }),
    buildFrame({ opcode: CONTINUATION, mask: MASK, payload: "x" }),
    Buffer.from("GET / HTTP/1.1\r\n\r\n"),
  ]);
}
