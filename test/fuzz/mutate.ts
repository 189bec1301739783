/** Changes an input a little: the moves of a mutation fuzzer, a few at a time. */
import type { Random } from "../support/random.ts";

/** Borders of lengths, signs and character classes. */
const BYTES = [0x00, 0x01, 0x09, 0x0a, 0x0d, 0x20, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0xfe, 0xff];
/** Borders of the lengths that the wire knows. */
const WORDS = [0, 1, 125, 126, 127, 1000, 1005, 1006, 16_384, 0x7fff, 0x8000, 0xffff];
const MOST_MOVES = 5;
/** One input in so many is moved four times as far. */
const FAR_ONE_IN = 8;
const LONGEST_RANGE = 64;

export function mutate(
  input: Buffer,
  other: Buffer,
  tokens: readonly Buffer[],
  maxBytes: number,
  random: Random,
): Buffer {
  let result: Buffer = Buffer.from(input);
  const most = random.below(FAR_ONE_IN) === 0 ? 4 * MOST_MOVES : MOST_MOVES;
  const moves = 1 + random.below(most);
  for (let i = 0; i < moves; i += 1) result = move(result, other, tokens, random);
  return result.length > maxBytes ? result.subarray(0, maxBytes) : result;
}

/** `input` may be changed in place. */
function move(input: Buffer, other: Buffer, tokens: readonly Buffer[], random: Random): Buffer {
  const at = random.below(input.length + 1);
  const count = 1 + random.below(Math.min(LONGEST_RANGE, 1 + input.length));
  const range = input.subarray(at, at + count);
  switch (random.below(12)) {
    case 0:
      return overwritten(input, at, [(input[at] ?? 0) ^ (1 << random.below(8))]);
    case 1:
      return overwritten(input, at, [random.pick(BYTES)]);
    case 2:
      return overwritten(input, at, [(input[at] ?? 0) + 1 + random.below(255)]);
    case 3: {
      const word = random.pick(WORDS);
      return overwritten(input, at, [word >> 8, word]);
    }
    case 4:
      return replaced(input, at, 0, Buffer.from([random.pick(BYTES)]));
    case 5:
      return replaced(input, at, count, EMPTY);
    case 6:
      return replaced(input, random.below(input.length + 1), 0, Buffer.from(range));
    case 7:
    case 8:
    case 9: {
      const token = tokens.length === 0 ? EMPTY : random.pick(tokens);
      // Over what is there, or between.
      return replaced(input, at, random.below(2) * token.length, token);
    }
    case 10: {
      const from = random.below(other.length);
      return replaced(input, at, 0, other.subarray(from, from + count));
    }
    default:
      return Buffer.concat([input.subarray(0, at), other.subarray(random.below(other.length))]);
  }
}

function overwritten(input: Buffer, at: number, bytes: readonly number[]): Buffer {
  for (const [offset, byte] of bytes.entries()) {
    if (at + offset < input.length) input[at + offset] = byte;
  }
  return input;
}

function replaced(input: Buffer, at: number, count: number, bytes: Buffer): Buffer {
  return Buffer.concat([input.subarray(0, at), bytes, input.subarray(at + count)]);
}

const EMPTY = Buffer.alloc(0);
