/** The demo with its real gateway: the two lines of its page, as the page's clients see them. */
import { EventEmitter, once } from "node:events";
import { afterEach, expect, it } from "vitest";
import { WebSocket } from "ws";
import { runDemoCommand } from "../../src/cli/demo-command.ts";
import { Gateway } from "../../src/gateway.ts";
import { createLogger } from "../../src/observe/log.ts";
import { eventually } from "../support/eventually.ts";

const ending: (() => Promise<void>)[] = [];

afterEach(async () => {
  for (const end of ending.splice(0)) await end();
});

/** Resolves to the page's URL. */
async function startDemo(): Promise<string> {
  const lines: string[] = [];
  const gateways: Gateway[] = [];
  const stop = new EventEmitter();
  const quiet = createLogger({ level: "silent", format: "json" });
  const demo = runDemoCommand({
    createGateway: (config) => {
      const gateway = new Gateway(config, { logger: quiet, version: "test" });
      gateways.push(gateway);
      return gateway;
    },
    port: "0",
    io: { out: (line) => lines.push(line), err: (line) => lines.push(line) },
    stopSignal: once(stop, "signal").then(() => "SIGTERM"),
  });
  ending.push(async () => {
    stop.emit("signal");
    expect(await demo).toBe(0);
    expect(gateways.map((gateway) => gateway.status().sessions)).toEqual([0]);
  });
  return await eventually(() => {
    const [, url] = /softclose demo +(\S+)/.exec(lines.join("\n")) ?? [];
    if (url === undefined) throw new Error("no banner yet");
    return url;
  });
}

async function portsOf(url: string): Promise<{ gatewayPort: number; plainPort: number }> {
  return JSON.parse(await (await fetch(`${url}/api/info`)).text());
}

/** A client that remembers what it was told, and how it ended. */
class LineClient {
  readonly heard: string[] = [];
  readonly closes: number[] = [];
  readonly socket: WebSocket;

  constructor(url: string) {
    this.socket = new WebSocket(url);
    this.socket.on("error", () => undefined);
    this.socket.addEventListener("message", ({ data }) => {
      if (typeof data === "string") this.heard.push(data);
    });
    this.socket.on("close", (code) => this.closes.push(code));
    ending.unshift(async () => {
      if (this.socket.readyState === WebSocket.CLOSED) return;
      this.socket.close(1000);
      await once(this.socket, "close");
    });
  }

  hears(wanted: RegExp): Promise<string> {
    return eventually(() => {
      const found = this.heard.find((text) => wanted.test(text));
      if (found === undefined) throw new Error(`not heard: ${wanted}`);
      return found;
    });
  }

  /** The numbers that came back, from either backend. */
  get answered(): Set<number> {
    return new Set(this.heard.map((text) => Number(/^backend \w: (\d+)$/.exec(text)?.[1] ?? 0)));
  }
}

it("keeps the client's connection over both backends, and answers every message", async () => {
  const url = await startDemo();
  const { gatewayPort } = await portsOf(url);
  const client = new LineClient(`ws://127.0.0.1:${gatewayPort}/line`);
  const greeting = await client.hears(/^backend [AB]: hello$/);
  const serving = greeting.includes("A:") ? 0 : 1;
  const other = serving === 0 ? "B" : "A";
  for (let number = 1; number <= 3; number += 1) client.socket.send(String(number));
  await fetch(`${url}/kill/${serving}`, { method: "POST" });
  client.socket.send("4");
  expect(await client.hears(/^resumed/)).toMatch(/^resumed after \d+ ms$/);
  await client.hears(new RegExp(`^backend ${other}: 4$`));
  expect([1, 2, 3, 4].filter((number) => !client.answered.has(number))).toEqual([]);
  // The second backend greets, too: to the client it is the same connection.
  expect(client.heard.filter((text) => text.endsWith("hello"))).toHaveLength(1);
  expect([client.socket.readyState, client.closes]).toEqual([WebSocket.OPEN, []]);
});

it("holds the client's messages while both backends are dead", async () => {
  const url = await startDemo();
  const { gatewayPort } = await portsOf(url);
  const client = new LineClient(`ws://127.0.0.1:${gatewayPort}/line`);
  await client.hears(/hello$/);
  for (const index of [0, 1]) await fetch(`${url}/kill/${index}`, { method: "POST" });
  client.socket.send("1");
  await fetch(`${url}/revive/0`, { method: "POST" });
  await client.hears(/^backend A: 1$/);
  expect(client.closes).toEqual([]);
});

it("breaks the plain proxy's client with 1006", async () => {
  const url = await startDemo();
  const { plainPort } = await portsOf(url);
  const client = new LineClient(`ws://127.0.0.1:${plainPort}/line`);
  const greeting = await client.hears(/hello$/);
  await fetch(`${url}/kill/${greeting.includes("A:") ? 0 : 1}`, { method: "POST" });
  await eventually(() => expect(client.closes).toEqual([1006]));
});
