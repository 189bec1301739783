/** The search: mutations of a corpus, one after the other, until something breaks or time is up. */
import { setImmediate } from "node:timers/promises";
import { Random } from "../support/random.ts";
import { mutate } from "./mutate.ts";
import type { Target } from "./target.ts";

/** After so much the event loop gets its turn, and the target is asked what has been left behind. */
const BATCH_MS = 200;
/** For making a finding smaller. */
const SHRINK_MS = 10_000;

export interface Finding {
  readonly input: Buffer;
  readonly message: string;
}

export interface FuzzerOptions {
  readonly seed: number;
  /** Called before each execution. */
  readonly onInput: (input: Buffer) => void;
}

export class Fuzzer {
  executions = 0;
  readonly corpus: readonly Buffer[];
  readonly #target: Target;
  readonly #options: FuzzerOptions;
  readonly #random: Random;

  /** `corpus`: inputs to begin with, beside the target's own. */
  constructor(target: Target, corpus: readonly Buffer[], options: FuzzerOptions) {
    this.#target = target;
    this.#options = options;
    this.#random = Random.of(options.seed);
    this.corpus = [...target.seeds, ...corpus];
  }

  /** The corpus as it is, then its mutations for so long, or until something is found. */
  async run(durationMs: number): Promise<Finding | null> {
    const end = performance.now() + durationMs;
    for (const input of this.corpus) {
      const finding = await this.#runOne(input);
      if (finding !== null) return finding;
    }
    const { tokens, maxInputBytes } = this.#target;
    let last = this.#pick();
    while (performance.now() < end) {
      const batchEnd = Math.min(performance.now() + BATCH_MS, end);
      while (performance.now() < batchEnd) {
        last = mutate(this.#pick(), this.#pick(), tokens, maxInputBytes, this.#random);
        const finding = await this.#runOne(last);
        if (finding !== null) return finding;
      }
      const left = await this.#settle(last);
      if (left !== null) return left;
    }
    return null;
  }

  /** Runs one input as it is; null: all that was promised holds. */
  async runOnly(input: Buffer): Promise<Finding | null> {
    const message = await this.#failureOf(input);
    return message === null ? await this.#settle(input) : { input, message };
  }

  async #runOne(input: Buffer): Promise<Finding | null> {
    const message = await this.#failureOf(input);
    return message === null ? null : await this.#shrink(input, message);
  }

  async #failureOf(input: Buffer): Promise<string | null> {
    this.executions += 1;
    this.#options.onInput(input);
    try {
      const pending = this.#target.check(input);
      if (pending !== undefined) await pending;
      return null;
    } catch (error) {
      return describe(error);
    }
  }

  /** What is left behind cannot be pinned on one input of many: the last one stands for all. */
  async #settle(last: Buffer): Promise<Finding | null> {
    await setImmediate();
    try {
      await this.#target.settle?.();
      return null;
    } catch (error) {
      return { input: last, message: describe(error) };
    }
  }

  /** Leaves out what is not needed for the same failure, in smaller and smaller pieces. */
  async #shrink(found: Buffer, failure: string): Promise<Finding> {
    const end = performance.now() + SHRINK_MS;
    let input = found;
    let message = failure;
    for (let size = input.length >> 1; size >= 1; size >>= 1) {
      for (let at = 0; at < input.length && performance.now() < end; ) {
        const smaller = Buffer.concat([input.subarray(0, at), input.subarray(at + size)]);
        const its = await this.#failureOf(smaller);
        if (its !== null && kindOf(its) === kindOf(failure)) {
          input = smaller;
          message = its;
        } else {
          at += size;
        }
      }
    }
    return { input, message };
  }

  #pick(): Buffer {
    return this.#random.pick(this.corpus);
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** The first line without what differs from input to input. */
function kindOf(message: string): string {
  return (message.split("\n", 1)[0] ?? "").replaceAll(/\d+|"[^"]*"/g, "_");
}
