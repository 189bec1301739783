/** What the herd's processes tell each other over IPC. */

export interface HerdJob {
  readonly port: number;
  readonly clients: number;
  readonly durationMs: number;
}

export interface HerdResult {
  readonly handshakes: number;
  /** Got a session, and kept it to the end. */
  readonly admitted: number;
  /** Got the 101, one Close with 1013, and a FIN. */
  readonly turnedAway: number;
  /** Anything else: resets, ends without a Close, other codes; by what it was. */
  readonly unclean: Readonly<Record<string, number>>;
  /** From `connect` to the end of TCP, of those who were turned away. */
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** Of the gateway's event loop, since the last report. */
export interface LoopReport {
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Without the time for which its thread stood in line for a CPU. */
  readonly ownP50Ms: number;
  readonly ownP99Ms: number;
  readonly ownMaxMs: number;
  /** The share of time in which the loop did not wait. */
  readonly busy: number;
}
