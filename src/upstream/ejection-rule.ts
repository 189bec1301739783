/**
 * How many of a pool's backends may be ejected at once, pure. At most half of them (rounded down), and
 * never the last that works: failures that hit every backend are the network's or the clients', and
 * a pool that ejects itself turns them into an outage.
 */

/** How a backend stands in its pool. */
export interface Standing {
  /** Passes its active probe, or has none, and is not being drained. */
  readonly isUp: boolean;
  /** null: in. Else since when a trial is due, or when one will be; one that is half open is still out. */
  readonly ejectedUntilMs: number | null;
}

/** Whether `candidate`, one of `pool`, may be ejected now. */
export function mayEject<T extends Standing>(candidate: T, pool: readonly T[]): boolean {
  // One that is down gets nothing anyway: its ejection would only use up the half.
  if (isOut(candidate) || !candidate.isUp) return false;
  if (pool.filter(isOut).length + 1 > most(pool)) return false;
  return pool.some((other) => other !== candidate && stays(other));
}

/**
 * Whose ejection is to be lifted, so that the rule holds again after the pool has changed under it: a
 * probe's verdict, a drain, a backend that is gone. The shortest remainders go first.
 */
export function toLift<T extends Standing>(pool: readonly T[]): readonly T[] {
  const out = pool
    .filter(isOut)
    .toSorted((a, b) => (a.ejectedUntilMs ?? 0) - (b.ejectedUntilMs ?? 0));
  const surplus = Math.max(0, out.length - most(pool));
  const needed = pool.some(stays) ? [] : out.filter(({ isUp }) => isUp).slice(0, 1);
  // Those that are down cost the fewest clients: they get nothing until their probe passes.
  const byHarm = [...out.filter(({ isUp }) => !isUp), ...out.filter(({ isUp }) => isUp)];
  const others = byHarm.filter((standing) => !needed.includes(standing));
  return [...needed, ...others.slice(0, Math.max(0, surplus - needed.length))];
}

function most(pool: readonly Standing[]): number {
  return Math.floor(pool.length / 2);
}

function isOut({ ejectedUntilMs }: Standing): boolean {
  return ejectedUntilMs !== null;
}

function stays(standing: Standing): boolean {
  return standing.isUp && !isOut(standing);
}
