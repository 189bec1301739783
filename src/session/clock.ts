/** Time as the session sees it: monotonic milliseconds, injectable for tests. */
export interface Clock {
  now(): number;
}

export const monotonicClock: Clock = { now: () => performance.now() };
