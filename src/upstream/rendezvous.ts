/**
 * Weighted rendezvous hashing: every key draws a lot for every backend, and the highest wins. The lot
 * depends on the key and on that backend's URL alone, so a backend that leaves moves only its own keys,
 * each to its second choice, and one that joins takes its share evenly from all.
 *
 * The hash has no secret seed: several gateways, and a gateway after its restart, must agree. A client
 * that knows the URLs can thus pick its backend; caps are what holds then.
 */

/** `candidates` in any order; undefined: there are none. */
export function rendezvous<T extends { readonly url: string; readonly weight: number }>(
  candidates: readonly T[],
  key: string,
): T | undefined {
  const keyDigest = digest(key);
  let best: T | undefined;
  let bestLot = Number.NEGATIVE_INFINITY;
  for (const candidate of candidates) {
    // Highest random weight: -w / ln(u) is highest for one of them with probability w / (sum of all w).
    const lot = -candidate.weight / Math.log(draw(keyDigest, digest(candidate.url)));
    // Equal lots are as good as impossible; with them the order of the candidates still says nothing.
    if (lot > bestLot || (lot === bestLot && best !== undefined && candidate.url < best.url)) {
      best = candidate;
      bestLot = lot;
    }
  }
  return best;
}

/** The number between 0 and 1, both excluded, that a key draws for a backend. */
export function drawOf(key: string, url: string): number {
  return draw(digest(key), digest(url));
}

/** 64 bits, in two signed halves. */
interface Digest {
  readonly a: number;
  readonly b: number;
}

/*
 * The hash is of the murmur3 family: two lanes of 32 bits, as that is what a JavaScript engine multiplies
 * fast. Nothing here needs a cryptographic one. Measured on Node 20 with a key of 36 characters, for
 * each backend: 0.15 us this way, 1.6 us with SHA-1 of node:crypto.
 */

/** One UTF-16 unit per round: keys are short, and bytes would have to be made first. */
function digest(text: string): Digest {
  let a = text.length;
  let b = ~text.length;
  for (let i = 0; i < text.length; i += 1) {
    const unit = text.charCodeAt(i);
    a = roundA(a, unit);
    b = roundB(b, unit);
  }
  return { a: scatter(a), b: scatter(b) };
}

/** As if the backend's digest stood behind the key; 53 bits, the last one set: never 0 and never 1. */
function draw(key: Digest, backend: Digest): number {
  let a = roundA(key.a, backend.a);
  let b = roundB(key.b, backend.b);
  a = scatter((a + b) | 0);
  b = scatter((b + a) | 0);
  a = (a + b) | 0;
  return ((a >>> 0) * 2 ** 21 + ((b >>> 11) | 1)) / 2 ** 53;
}

function roundA(lane: number, block: number): number {
  const mixed = Math.imul(rotate(Math.imul(block, 0x239b961b), 15), 0xab0e9789);
  return (Math.imul(rotate(lane ^ mixed, 19), 5) + 0x561ccd1b) | 0;
}

function roundB(lane: number, block: number): number {
  const mixed = Math.imul(rotate(Math.imul(block, 0x38b34ae5), 16), 0xa1e38b93);
  return (Math.imul(rotate(lane ^ mixed, 17), 5) + 0x0bcaa747) | 0;
}

function rotate(value: number, by: number): number {
  return (value << by) | (value >>> (32 - by));
}

/** Murmur3's finaliser: each bit in changes every bit out with a probability of about one half. */
function scatter(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
  return x ^ (x >>> 16);
}
