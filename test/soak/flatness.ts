/** Whether the samples of a soak are flat. Pure: samples in, findings out. */
import { median } from "../bench/measurements.ts";
import { CYCLE_KINDS } from "./cycles.ts";
import type { Sample } from "./gateway-process.ts";

/** The first quarter is left out: JIT code and pools still grow there. */
const HEAP_GROWTH = 0.1;

/** Inline caches and histogram buckets appear late. 50,000 cycles lie between the two medians. */
const HEAP_SLACK_BYTES = 2 * 1024 * 1024;

/** The admin connection of the sample itself may still be closing. */
const DESCRIPTOR_SLACK = 2;

export interface Finding {
  title: string;
  passed: boolean;
  detail: string;
}

const mib = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(1)} MiB`;

/** `samples[0]` was taken after the warm-up and is the baseline; `warmUpCycles` preceded it. */
export function judge(
  samples: readonly Sample[],
  cyclesPerKind: ReadonlyMap<string, number>,
): Finding[] {
  const baseline = samples[0];
  const last = samples.at(-1);
  if (baseline === undefined || last === undefined) throw new Error("no samples");
  const heaps = samples.map((sample) => sample.heapBytes);
  const quarter = Math.max(1, Math.floor(heaps.length / 4));
  const early = median(heaps.slice(quarter, 2 * quarter));
  const late = median(heaps.slice(-quarter));
  const wrongCauses = compareCauses(last.ends, cyclesPerKind);
  return [
    {
      title: "heap",
      passed: late <= early * (1 + HEAP_GROWTH) + HEAP_SLACK_BYTES,
      detail: `second quarter ${mib(early)}, last quarter ${mib(late)}`,
    },
    {
      title: "descriptors",
      passed: last.descriptors <= baseline.descriptors + DESCRIPTOR_SLACK,
      detail: `${baseline.descriptors} before, ${last.descriptors} after`,
    },
    {
      title: "sessions active",
      passed: samples.every((sample) => sample.sessionsActive === 0),
      detail: `${last.sessionsActive} at the end`,
    },
    {
      title: "sessions total",
      passed: last.sessionsTotal === last.cycles,
      detail: `${last.sessionsTotal} of ${last.cycles}`,
    },
    {
      title: "causes",
      passed: wrongCauses.length === 0,
      detail: wrongCauses.length === 0 ? "each session ended by its cause" : wrongCauses.join(", "),
    },
  ];
}

function compareCauses(
  ends: ReadonlyMap<string, number>,
  cyclesPerKind: ReadonlyMap<string, number>,
): string[] {
  const expected = new Map<string, number>();
  for (const { title, cause } of CYCLE_KINDS) {
    expected.set(cause, (expected.get(cause) ?? 0) + (cyclesPerKind.get(title) ?? 0));
  }
  return [...new Set([...expected.keys(), ...ends.keys()])]
    .filter((cause) => (ends.get(cause) ?? 0) !== (expected.get(cause) ?? 0))
    .map((cause) => `${cause}: ${ends.get(cause) ?? 0}, not ${expected.get(cause) ?? 0}`);
}
