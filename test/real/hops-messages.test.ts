/** Messages through hops on both sides of the gateway at once: whole, compressed, large, and in order. */
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Message } from "../support/deflate-client.ts";
import { eventually } from "../support/eventually.ts";
import { titled } from "../support/outcome.ts";
import { lacks } from "../support/programs.ts";
import { HopSetting } from "./support/hop-setting.ts";
import { ALL_HOPS, HOP_PROGRAMS } from "./support/hops.ts";

const MIB = 2 ** 20;
/** Around the length forms of the header and of what the gateway holds; and more than any hop's buffer. */
const SIZES = [1, 125, 126, 16_384, 65_535, 65_536, 200_001, MIB];

/** Text-like and noise-like messages of all sizes, always the same ones. */
const messages: readonly Message[] = SIZES.flatMap((size) => {
  const noise = Buffer.alloc(size);
  for (let at = 0; at < size; at += 32) {
    createHash("sha256").update(`${size} ${at}`).digest().copy(noise, at);
  }
  return [
    { data: Buffer.alloc(size, "soft close, hard facts; "), binary: false },
    { data: noise, binary: true },
  ];
});

/** Every hop in front, and with it every hop behind once. */
const chains = ALL_HOPS.map((front, index) => {
  const behind = ALL_HOPS[(index + 1) % ALL_HOPS.length] ?? front;
  return { front, behind, title: `${front.title} in front and ${behind.title} behind` };
});

describe.skipIf(lacks(...HOP_PROGRAMS)).concurrent.each(titled(chains))(
  "%s",
  (_title, { front, behind }) => {
    it("relay compressed messages of up to 1 MiB byte for byte", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const inner = await setting.hop(behind, { to: backend.port });
      const gateway = await setting.startGateway([inner.url]);
      const outer = await setting.hop(front, { to: gateway.port });
      const client = setting.deflating(outer.port);
      await client.opened();
      for (const message of messages) client.send(message, 1);
      await client.echoed(messages);
      for (const message of messages) client.send(message, 3);
      await client.echoed(messages);
      client.socket.close(1000);
      await eventually(() => expect(client.endings).toEqual([1000]));
      const [record] = await gateway.recorded();
      expect(record?.messages).toEqual({
        clientToUpstream: 2 * messages.length,
        upstreamToClient: 2 * messages.length,
      });
      // It went through deflated.
      const said = 2 * messages.reduce((sum, { data }) => sum + data.length, 0);
      expect(record?.bytes.upstreamToClient).toBeLessThan(0.6 * said);
    });

    it("relay plain messages of up to 1 MiB byte for byte", async (context) => {
      const setting = new HopSetting(context);
      const backend = await setting.echo();
      const inner = await setting.hop(behind, { to: backend.port });
      const gateway = await setting.startGateway([inner.url]);
      const outer = await setting.hop(front, { to: gateway.port });
      // A relayed long frame comes in many fragments.
      const client = await setting.open(outer.port, { maxFragments: 0, maxBufferedChunks: 0 });
      for (const { data, binary } of messages) client.socket.send(data, { binary });
      const echoes = (await client.log.received(1 + messages.length)).slice(1);
      const wrong = echoes.filter((echo, index) => messages[index]?.data.equals(echo) !== true);
      expect(wrong.map(({ length }) => length)).toEqual([]);
      client.sendClose(1000);
      await gateway.recorded();
    });
  },
);
