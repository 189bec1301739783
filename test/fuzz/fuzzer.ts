/**
 * The search: mutated inputs in batches, each batch followed by one look at the coverage. A batch that
 * reached new code is halved until the inputs that did are found; they join the corpus.
 */
import { setImmediate } from "node:timers/promises";
import type { Coverage } from "./coverage.ts";
import { mutate } from "./mutate.ts";
import { Random } from "./random.ts";
import type { Target } from "./target.ts";

/** Looking at the coverage takes milliseconds: a batch is to take much longer. */
const BATCH_MS = 150;
const LARGEST_BATCH = 4_000;
/** For making a finding smaller. */
const SHRINK_MS = 10_000;

export interface Finding {
  readonly input: Buffer;
  readonly message: string;
}

export interface FuzzerOptions {
  readonly seed: number;
  readonly coverage: Pick<Coverage, "take" | "keep">;
  /** False: a blind search over the seeds; the coverage is measured all the same. */
  readonly guided: boolean;
  /** Called before each execution. */
  readonly onInput: (input: Buffer) => void;
}

export class Fuzzer {
  readonly corpus: Buffer[];
  executions = 0;
  readonly #target: Target;
  readonly #options: FuzzerOptions;
  readonly #random: Random;

  /** `corpus`: inputs to begin with, beside the target's own. */
  constructor(target: Target, corpus: readonly Buffer[], options: FuzzerOptions) {
    this.#target = target;
    this.#options = options;
    this.#random = new Random(options.seed);
    this.corpus = [...target.seeds, ...corpus];
  }

  /** Runs for so long, or until something is found. */
  async run(durationMs: number): Promise<Finding | null> {
    const end = performance.now() + durationMs;
    const { coverage, guided } = this.#options;
    const finding = await this.#runAll(this.corpus);
    if (finding !== null) return finding;
    coverage.take();
    coverage.keep();
    while (performance.now() < end) {
      const batch: Buffer[] = [];
      const batchEnd = Math.min(performance.now() + BATCH_MS, end);
      while (batch.length < LARGEST_BATCH && performance.now() < batchEnd) {
        const input = this.#nextInput();
        batch.push(input);
        const found = await this.#runOne(input);
        if (found !== null) return found;
      }
      const left = await this.#settle(batch);
      if (left !== null) return left;
      if (coverage.take() === 0) continue;
      const sifted = guided ? await this.#sift(batch) : null;
      if (sifted !== null) return sifted;
      // Also what was reached by chance and was not reached again.
      coverage.keep();
    }
    return null;
  }

  /** Runs one input; null: all that was promised holds. */
  async runOnly(input: Buffer): Promise<Finding | null> {
    return (await this.#runOne(input, false)) ?? (await this.#settle([input]));
  }

  /** Halves on both sides: several inputs of a batch may have reached something of their own. */
  async #sift(batch: readonly Buffer[]): Promise<Finding | null> {
    const { coverage } = this.#options;
    const [only] = batch;
    if (batch.length === 1 && only !== undefined) {
      coverage.keep();
      this.corpus.push(only);
      return null;
    }
    const middle = batch.length >> 1;
    for (const half of [batch.slice(0, middle), batch.slice(middle)]) {
      const finding = await this.#runAll(half);
      if (finding !== null) return finding;
      if (coverage.take() === 0) continue;
      const sifted = await this.#sift(half);
      if (sifted !== null) return sifted;
    }
    return null;
  }

  async #runAll(inputs: readonly Buffer[]): Promise<Finding | null> {
    for (const input of inputs) {
      const finding = await this.#runOne(input);
      if (finding !== null) return finding;
    }
    return await this.#settle(inputs);
  }

  async #runOne(input: Buffer, mayShrink = true): Promise<Finding | null> {
    const message = await this.#failureOf(input);
    if (message === null) return null;
    return mayShrink ? await this.#shrink({ input, message }) : { input, message };
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

  /** What a batch leaves behind cannot be pinned on one of its inputs: the last one stands for all. */
  async #settle(batch: readonly Buffer[]): Promise<Finding | null> {
    // Timers and sockets get their turn, too.
    await setImmediate();
    try {
      await this.#target.settle?.();
      return null;
    } catch (error) {
      return { input: batch.at(-1) ?? Buffer.alloc(0), message: describe(error) };
    }
  }

  /** Leaves out what is not needed for the same failure, in smaller and smaller pieces. */
  async #shrink(found: Finding): Promise<Finding> {
    const kind = kindOf(found.message);
    const end = performance.now() + SHRINK_MS;
    let { input, message } = found;
    for (let size = input.length >> 1; size >= 1; size >>= 1) {
      for (let at = 0; at < input.length && performance.now() < end; ) {
        const smaller = Buffer.concat([input.subarray(0, at), input.subarray(at + size)]);
        const failure = await this.#failureOf(smaller);
        if (failure !== null && kindOf(failure) === kind) {
          input = smaller;
          message = failure;
        } else {
          at += size;
        }
      }
    }
    return { input, message };
  }

  #nextInput(): Buffer {
    const { tokens, maxInputBytes } = this.#target;
    return mutate(this.#pick(), this.#pick(), tokens, maxInputBytes, this.#random);
  }

  /** One in two from the youngest quarter: what has been found lately is worth more attention. */
  #pick(): Buffer {
    const young = this.#random.below(2) === 0 ? (this.corpus.length * 3) >> 2 : 0;
    const index = young + this.#random.below(this.corpus.length - young);
    return this.corpus[index] ?? Buffer.alloc(0);
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

/** The first line without what differs from input to input. */
function kindOf(message: string): string {
  return (message.split("\n", 1)[0] ?? "").replaceAll(/\d+|"[^"]*"/g, "_");
}
