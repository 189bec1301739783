/**
 * The run: every scenario goes round all proxies before the next one starts, and every round starts
 * with another proxy, so that a slow minute of the machine hits all of them alike.
 */
import type { Contender, StartedProxy } from "./contenders.ts";
import type { FailedResult, Job, JobResult } from "./jobs.ts";
import { Measurements, type Scenario } from "./measurements.ts";
import type { Processes, RunningProcess } from "./processes.ts";

export interface Run {
  processes: Processes;
  contenders: readonly Contender[];
  scenarios: readonly Scenario[];
  rounds: number;
  /** For generated configuration. */
  folder: string;
  onProgress(line: string): void;
}

export async function runRounds(run: Run): Promise<Measurements> {
  const { processes, contenders, folder } = run;
  const measurements = new Measurements();
  const backend = await processes.fork(
    "echo backend",
    new URL("./echo-backend.js", import.meta.url),
  );
  const generator = await processes.fork(
    "load generator",
    new URL("./load-generator.js", import.meta.url),
  );
  for (let round = 0; round < run.rounds; round++) {
    const order = rotated(contenders, round);
    const warmed = new Map<Contender, StartedProxy>();
    for (const contender of order) {
      warmed.set(contender, await contender.start(processes, backend.port, folder));
    }
    for (const scenario of run.scenarios) {
      run.onProgress(`round ${round + 1} of ${run.rounds}: ${scenario.title}`);
      for (const contender of order) {
        const proxy = scenario.freshProcess
          ? await contender.start(processes, backend.port, folder)
          : warmed.get(contender);
        if (proxy === undefined) continue;
        const job = scenario.job(proxy.port, proxy.pids);
        const result = await perform(generator.running, proxy.running, job);
        if (result.kind === "failed") {
          throw new Error(`${contender.name}, ${scenario.title}: ${result.reason}`);
        }
        record(measurements, contender.name, job, result);
        if (scenario.freshProcess) await processes.end(proxy.running);
      }
    }
    for (const proxy of warmed.values()) await processes.end(proxy.running);
  }
  return measurements;
}

function rotated<T>(items: readonly T[], by: number): T[] {
  const start = by % Math.max(1, items.length);
  return [...items.slice(start), ...items.slice(0, start)];
}

function perform(generator: RunningProcess, proxy: RunningProcess, job: Job): Promise<JobResult> {
  return new Promise((resolve, reject) => {
    const onResult = (result: JobResult): void => {
      generator.child.off("exit", onGeneratorExit);
      proxy.child.off("exit", onProxyExit);
      resolve(result);
    };
    const onGeneratorExit = (): void => {
      reject(new Error(`the load generator ended\n${generator.output}`));
    };
    const onProxyExit = (): void => {
      generator.child.off("message", onResult);
      reject(new Error(`${proxy.name} ended under load\n${proxy.output}`));
    };
    generator.child.once("message", onResult);
    generator.child.once("exit", onGeneratorExit);
    proxy.child.once("exit", onProxyExit);
    generator.child.send(job);
  });
}

function record(
  into: Measurements,
  proxy: string,
  job: Job,
  result: Exclude<JobResult, FailedResult>,
): void {
  switch (result.kind) {
    case "echo": {
      if (job.kind !== "echo") return;
      if (job.inFlight > 1) {
        into.add(proxy, "cpuUs64Pipelined", result.cpuUsPerMessage);
        into.add(proxy, "messagesPerSecond64Pipelined", result.messagesPerSecond);
        return;
      }
      if (job.payloadBytes === 1024) into.add(proxy, "cpuUs1k", result.cpuUsPerMessage);
      if (job.payloadBytes === 16_384) into.add(proxy, "cpuUs16k", result.cpuUsPerMessage);
      if (job.payloadBytes !== 64) return;
      into.add(proxy, "cpuUs64", result.cpuUsPerMessage);
      into.add(proxy, "userUs64", result.userUsPerMessage);
      into.add(proxy, "messagesPerSecond64", result.messagesPerSecond);
      into.add(proxy, "p50Us", result.p50Us);
      into.add(proxy, "p99Us", result.p99Us);
      return;
    }
    case "handshakes":
      into.add(proxy, "handshakesPerSecond", result.handshakesPerSecond);
      into.add(proxy, "cpuUsPerHandshake", result.cpuUsPerHandshake);
      return;
    case "idle":
      into.add(proxy, "kibPerIdleSession", result.kibPerSession);
  }
}
