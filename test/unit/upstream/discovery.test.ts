import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import {
  Discovery,
  MAX_ADDRESSES,
  RESOLVE_TIMEOUT_MS,
  type Resolver,
  systemResolver,
} from "../../../src/upstream/discovery.ts";

const INTERVAL_MS = 30_000;

beforeEach(() => {
  vi.useFakeTimers();
});

afterEach(() => {
  vi.useRealTimers();
});

type Lookup = NonNullable<Parameters<typeof systemResolver>[0]>;

/** A resolver that answers when it is told to. */
class Questions {
  readonly asked: {
    readonly host: string;
    readonly signal: AbortSignal;
    readonly answer: (addresses: readonly string[]) => Promise<void>;
    readonly fail: (error: Error) => Promise<void>;
  }[] = [];

  readonly resolve: Resolver = (host, signal) =>
    new Promise((resolve, reject) => {
      this.asked.push({
        host,
        signal,
        answer: async (addresses) => {
          resolve(addresses);
          await settle();
        },
        fail: async (error) => {
          reject(error);
          await settle();
        },
      });
    });

  get last() {
    const last = this.asked.at(-1);
    if (last === undefined) throw new Error("nothing was asked");
    return last;
  }
}

/** Runs what waits for a promise, and no timer. */
async function settle(): Promise<void> {
  await vi.advanceTimersByTimeAsync(0);
}

function begin({ random = 0.5, intervalMs = INTERVAL_MS, resolve = null as Resolver | null } = {}) {
  const questions = new Questions();
  const told: string[] = [];
  const discovery = new Discovery(
    { host: "chat.svc", intervalMs },
    { resolve: resolve ?? questions.resolve, random: () => random },
    {
      onAddresses: (addresses) => told.push(addresses.join(" ")),
      onError: (detail) => told.push(`error ${detail}`),
      onRecovery: () => told.push("recovery"),
    },
  );
  discovery.start();
  return { questions, told, discovery };
}

const notFound = (): Error =>
  Object.assign(new Error("getaddrinfo ENOTFOUND chat.svc"), { code: "ENOTFOUND" });

describe("Discovery", () => {
  it("tells the addresses sorted and each once, and again only when they have changed", async () => {
    const { questions, told, discovery } = begin();
    expect(discovery.addresses).toEqual([]);
    await questions.last.answer(["10.0.0.2", "10.0.0.1", "10.0.0.2"]);
    expect(questions.last.host).toBe("chat.svc");
    expect(told).toEqual(["10.0.0.1 10.0.0.2"]);
    const answers = [
      ["10.0.0.1", "10.0.0.2"],
      ["10.0.0.2", "10.0.0.1"],
      ["10.0.0.3", "10.0.0.1", "10.0.0.2"],
      ["10.0.0.3"],
      ["10.0.0.4"],
    ];
    for (const answer of answers) {
      vi.advanceTimersByTime(INTERVAL_MS);
      await questions.last.answer(answer);
    }
    expect(told).toEqual([
      "10.0.0.1 10.0.0.2",
      "10.0.0.1 10.0.0.2 10.0.0.3",
      "10.0.0.3",
      "10.0.0.4",
    ]);
    expect(questions.asked).toHaveLength(6);
    expect(discovery.addresses).toEqual(["10.0.0.4"]);
    discovery.stop();
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each([
    [0, 27_000],
    [0.5, 30_000],
    [0.75, 31_500],
  ])("spreads the interval by a tenth (random %d)", async (random, delayMs) => {
    const { questions } = begin({ random });
    await questions.last.answer(["10.0.0.1"]);
    vi.advanceTimersByTime(delayMs - 1);
    expect(questions.asked).toHaveLength(1);
    vi.advanceTimersByTime(1);
    expect(questions.asked).toHaveLength(2);
  });

  it("does not ask at once again where the longest interval is spread", async () => {
    const { questions } = begin({ random: 0.999, intervalMs: 596 * 3_600_000 });
    await questions.last.answer(["10.0.0.1"]);
    vi.advanceTimersByTime(3_600_000);
    expect(questions.asked).toHaveLength(1);
  });

  it("keeps the last answer through an outage, says so once, and when it is over", async () => {
    const { questions, told, discovery } = begin();
    await questions.last.answer(["10.0.0.1"]);
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.fail(notFound());
    for (let i = 0; i < 5; i += 1) {
      vi.advanceTimersByTime(INTERVAL_MS);
      await questions.last.fail(notFound());
    }
    expect(told).toEqual(["10.0.0.1", "error chat.svc: ENOTFOUND"]);
    expect(discovery.addresses).toEqual(["10.0.0.1"]);
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.answer(["10.0.0.1"]);
    expect(told).toEqual(["10.0.0.1", "error chat.svc: ENOTFOUND", "recovery"]);
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.fail(notFound());
    expect(told.at(-1)).toBe("error chat.svc: ENOTFOUND");
  });

  it("takes an empty answer for a failure", async () => {
    const { questions, told, discovery } = begin();
    await questions.last.answer(["10.0.0.1"]);
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.answer([]);
    expect(told).toEqual(["10.0.0.1", "error chat.svc: no address in the answer"]);
    expect(discovery.addresses).toEqual(["10.0.0.1"]);
  });

  it("takes a resolver that throws for one that fails", async () => {
    const { told } = begin({
      resolve: () => {
        throw new Error("no resolver");
      },
    });
    await settle();
    expect(told).toEqual(["error chat.svc: no resolver"]);
  });

  it("asks sooner after a failure, backs off to the interval, and starts anew after an answer", async () => {
    const { questions } = begin({ random: 0 });
    const gaps: number[] = [];
    for (let i = 0; i < 8; i += 1) {
      const before = Date.now();
      await questions.last.fail(notFound());
      vi.advanceTimersToNextTimer();
      gaps.push((Date.now() - before) / 1_000);
    }
    expect(gaps).toEqual([1, 2, 4, 8, 16, 30, 30, 30]);
    await questions.last.answer(["10.0.0.1"]);
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.fail(notFound());
    const asked = questions.asked.length;
    vi.advanceTimersByTime(1_000);
    expect(questions.asked).toHaveLength(asked + 1);
  });

  it("never waits longer after a failure than after an answer", async () => {
    const { questions } = begin({ intervalMs: 500 });
    for (let i = 1; i < 5; i += 1) {
      expect(questions.asked).toHaveLength(i);
      await questions.last.fail(notFound());
      vi.advanceTimersByTime(500);
    }
  });

  it("tells every change of an answer that flaps, and no more", async () => {
    const { questions, told } = begin();
    for (let i = 0; i < 6; i += 1) {
      await questions.last.answer(i % 2 === 0 ? ["10.0.0.1", "10.0.0.2"] : ["10.0.0.1"]);
      vi.advanceTimersByTime(INTERVAL_MS);
    }
    expect(told).toEqual(Array.from({ length: 3 }, () => ["10.0.0.1 10.0.0.2", "10.0.0.1"]).flat());
  });

  it("never asks while an answer is awaited, and gives up a resolver that hangs", async () => {
    const { questions, told } = begin({ intervalMs: 1_000 });
    vi.advanceTimersByTime(RESOLVE_TIMEOUT_MS - 1);
    expect(questions.asked).toHaveLength(1);
    expect(questions.last.signal.aborted).toBe(false);
    vi.advanceTimersByTime(1);
    const [hung] = questions.asked;
    expect(hung?.signal.aborted).toBe(true);
    expect(told).toEqual([`error chat.svc: no answer within ${RESOLVE_TIMEOUT_MS} ms`]);
    vi.advanceTimersByTime(1_000);
    expect(questions.asked).toHaveLength(2);
    await questions.last.answer(["10.0.0.2"]);
    // It comes after all, with what was true then.
    await hung?.answer(["10.0.0.1"]);
    expect(told.slice(1)).toEqual(["recovery", "10.0.0.2"]);
  });

  it("ignores the error of a resolver that was given up", async () => {
    const { questions, told } = begin();
    vi.advanceTimersByTime(RESOLVE_TIMEOUT_MS);
    await questions.last.fail(new Error("aborted"));
    expect(told).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(1);
  });

  it("ignores an answer, and an error, that comes after stop", async () => {
    for (const end of ["answer", "fail"] as const) {
      const { questions, told, discovery } = begin();
      discovery.stop();
      expect(questions.last.signal.aborted).toBe(true);
      if (end === "answer") await questions.last.answer(["10.0.0.1"]);
      else await questions.last.fail(notFound());
      vi.advanceTimersByTime(10 * INTERVAL_MS);
      expect(told).toEqual([]);
      expect(questions.asked).toHaveLength(1);
      expect(vi.getTimerCount()).toBe(0);
      discovery.start();
      expect(questions.asked).toHaveLength(1);
    }
  });

  it.each(["onAddresses", "onError"] as const)("can be stopped from within %s", async (event) => {
    const questions = new Questions();
    const onAddresses = vi.fn<() => void>(() => {
      if (event === "onAddresses") discovery.stop();
    });
    const discovery = new Discovery(
      { host: "chat.svc", intervalMs: INTERVAL_MS },
      { resolve: questions.resolve, random: () => 0 },
      { onAddresses, onError: () => discovery.stop() },
    );
    discovery.start();
    const many = Array.from({ length: MAX_ADDRESSES + 1 }, (_, i) => `fd00::${i.toString(16)}`);
    await questions.last.answer(event === "onError" ? many : ["10.0.0.1"]);
    expect(onAddresses).toHaveBeenCalledTimes(event === "onError" ? 0 : 1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("takes the first 1,024 addresses in order, whatever order they come in, and says so once", async () => {
    const { questions, told, discovery } = begin();
    const many = Array.from({ length: 2_000 }, (_, i) => `fd00::${(0x1000 + i).toString(16)}`);
    await questions.last.answer(many.toReversed());
    expect(discovery.addresses).toEqual(many.slice(0, MAX_ADDRESSES));
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.answer(many);
    expect(told).toEqual([
      "error chat.svc: 2000 addresses, of which the first 1024 are used",
      many.slice(0, MAX_ADDRESSES).join(" "),
    ]);
    vi.advanceTimersByTime(INTERVAL_MS);
    await questions.last.answer(many.slice(0, MAX_ADDRESSES));
    expect(told.slice(2)).toEqual(["recovery"]);
  });
});

describe("systemResolver", () => {
  it("asks the system for every address of the host", async () => {
    const lookup = vi.fn<Lookup>(async () => [{ address: "10.0.0.1" }, { address: "10.0.0.2" }]);
    const resolve = systemResolver(lookup);
    expect(await resolve("a", AbortSignal.abort())).toEqual(["10.0.0.1", "10.0.0.2"]);
    expect(lookup).toHaveBeenCalledWith("a", { all: true });
  });

  it("takes one family: a server with an address of each is one server", async () => {
    const answers = [["fd00::1", "10.0.0.1"], ["fd00::1"]].map((addresses) =>
      addresses.map((address) => ({ address })),
    );
    const resolve = systemResolver(async () => answers.shift() ?? []);
    const { signal } = new AbortController();
    expect(await resolve("a", signal)).toEqual(["10.0.0.1"]);
    expect(await resolve("a", signal)).toEqual(["fd00::1"]);
  });

  it("has one lookup under way per host, as one that hangs holds a thread", async () => {
    const slow = new Promise<never>((_resolve, reject) => {
      setTimeout(() => reject(notFound()), 1_000);
    });
    const lookup = vi.fn<Lookup>(async () => [{ address: "10.0.0.2" }]);
    lookup.mockReturnValueOnce(slow);
    const resolve = systemResolver(lookup);
    const { signal } = new AbortController();
    const first = resolve("a", signal);
    const second = resolve("a", signal);
    expect(await resolve("b", signal)).toEqual(["10.0.0.2"]);
    expect(lookup).toHaveBeenCalledTimes(2);
    vi.advanceTimersByTime(1_000);
    await expect(first).rejects.toThrow("ENOTFOUND");
    await expect(second).rejects.toThrow("ENOTFOUND");
    expect(await resolve("a", signal)).toEqual(["10.0.0.2"]);
  });

  it("knows what is in /etc/hosts", async () => {
    const addresses = await systemResolver()("localhost", new AbortController().signal);
    expect(["127.0.0.1", "::1"]).toEqual(expect.arrayContaining([addresses[0]]));
  });
});
