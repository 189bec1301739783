/**
 * What Linux says about a process: CPU time, resident memory, descriptors, descendants. Reads are
 * synchronous on purpose: a sample is taken at one moment, between two messages.
 */
import { readdirSync, readFileSync } from "node:fs";

/** USER_HZ: the unit of times in /proc is 10 ms on every Linux architecture that Node supports. */
const MICROSECONDS_PER_TICK = 10_000;

export interface CpuTime {
  /** User and system time. */
  totalUs: number;
  /** The share outside the kernel: what a proxy can do something about. */
  userUs: number;
}

/** CPU time of all `pids` so far. */
export function cpuTime(pids: readonly number[]): CpuTime {
  let userTicks = 0;
  let systemTicks = 0;
  for (const pid of pids) {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The command name may hold spaces and parentheses: fields are counted behind its last ")".
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    userTicks += Number(fields[11]);
    systemTicks += Number(fields[12]);
  }
  return {
    totalUs: (userTicks + systemTicks) * MICROSECONDS_PER_TICK,
    userUs: userTicks * MICROSECONDS_PER_TICK,
  };
}

/** VmRSS of all `pids` together, in KiB. */
export function residentKib(pids: readonly number[]): number {
  let total = 0;
  for (const pid of pids) {
    const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
    if (match === null) throw new Error(`no VmRSS for process ${pid}`);
    total += Number(match[1]);
  }
  return total;
}

export function openDescriptors(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** `pid` and all its descendants, such as nginx's worker. */
export function processTree(pid: number): number[] {
  const tree = [pid];
  for (const parent of tree) {
    try {
      const children = readFileSync(`/proc/${parent}/task/${parent}/children`, "latin1");
      for (const child of children.split(" ")) if (child !== "") tree.push(Number(child));
    } catch {
      // The process has just ended: it has no descendants to speak of.
    }
  }
  return tree;
}
