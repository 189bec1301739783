/**
 * How the configuration speaks to an operator: values and paths as they are shown in messages, and
 * the nearest known word for a mistyped one.
 */

/** Where a value stands: keys of mappings and indices of lists, from the root. */
export type Path = readonly (string | number)[];

// Long enough for any URL worth reading, short enough that a message stays one line.
const SHOWN_CHARACTERS = 60;

/** Beyond this many known words the comparison would take longer than it helps. */
const MOST_CANDIDATES = 500;

/** Words from this length on may be the beginning of a known one. */
const SHORTEST_ABBREVIATION = 4;

/** `listeners[0].bind`, `pools["a.b"].balance`; empty for the root. */
export function formatPath(path: Path): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else if (/^[\w-]+$/.test(step)) text += text === "" ? step : `.${step}`;
    else text += `[${quote(step)}]`;
  }
  return text;
}

/** A value as a message names it. */
export function show(value: unknown): string {
  if (typeof value === "string") return quote(value);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" && value !== null ? "a mapping" : "nothing";
}

/** What to do about a number that is text only because of its quotes. */
export function unquote(value: unknown): string {
  return typeof value === "string" && /^\d+$/.test(value) ? "; write it without quotes" : "";
}

/** The word that was probably meant, if one is near enough. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  if (known.length > MOST_CANDIDATES) return undefined;
  // One slip in a short word, two in a long one; more would be guessing.
  const tolerance = word.length < 5 ? 1 : 2;
  let best: string | undefined;
  let bestDistance = tolerance + 1;
  const lower = word.slice(0, SHOWN_CHARACTERS).toLowerCase();
  for (const candidate of known) {
    const distance = editDistance(lower, candidate.toLowerCase());
    if (distance < bestDistance) {
      best = candidate;
      bestDistance = distance;
    }
  }
  if (best !== undefined || word.length < SHORTEST_ABBREVIATION) return best;
  return known.find((candidate) => candidate.toLowerCase().startsWith(lower));
}

function quote(text: string): string {
  const cut = text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
  return JSON.stringify(cut);
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one word into the other. */
function editDistance(from: string, to: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const same = from[row - 1] === to[column - 1];
      let cost = Math.min(
        (last[column] ?? 0) + 1,
        (current[column - 1] ?? 0) + 1,
        (last[column - 1] ?? 0) + (same ? 0 : 1),
      );
      const swapped = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      if (row > 1 && column > 1 && swapped) {
        cost = Math.min(cost, (beforeLast[column - 2] ?? 0) + 1);
      }
      current.push(cost);
    }
    beforeLast = last;
    last = current;
  }
  return last[to.length] ?? 0;
}
