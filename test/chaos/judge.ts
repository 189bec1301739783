/**
 * Whether a session ended as the tables allow for what had happened: what the client saw, what the
 * gateway recorded, and what the upstream got, held against the story and the history. Pure.
 */
import type { Cause } from "../../src/close/causes.ts";
import type { UpstreamReport } from "./backend.ts";
import type { ClientFacts } from "./client.ts";
import { CLOSE_TABLE, codeOfRejection } from "./close-table.ts";
import type { LoggedRecord } from "./gateway-life.ts";
import type { Disruption, History } from "./history.ts";
import { BACKENDS, CAPPED_BACKENDS } from "./settings.ts";
import type { Story } from "./story.ts";

/** Everything that is known of one session. */
export interface Case {
  readonly story: Story;
  readonly facts: ClientFacts;
  /** One, if all is well. */
  readonly records: readonly LoggedRecord[];
  readonly reports: readonly UpstreamReport[];
  readonly history: History;
  /** When the gateway began to shut down; Infinity: never. */
  readonly drainsFrom: number;
  readonly closedByAdmin: ReadonlySet<string>;
  /** The backend that the record names; -1: none. */
  readonly backend: number;
}

const SWITCHING_PROTOCOLS = 101;
const GOING_AWAY = 1001;
/** Why a session that is retried ends with `upstreamLost` all the same; the README has the table. */
const OBSTACLES = ["mid-message", "buffer"];
const VANISHING: ReadonlySet<Story["client"]> = new Set([
  "vanishes",
  "halfCloses",
  "leavesEarly",
  "stalls",
]);

/** What is wrong; empty: nothing. */
export function judge(one: Case): string[] {
  const { facts, records, story } = one;
  const problems = [...facts.faults];
  for (const { fault } of one.reports)
    if (fault !== "") problems.push(`towards the upstream: ${fault}`);
  const [record] = records;
  if (record === undefined) {
    // One that left while its request was on its way may never have been there.
    if (!facts.vanished) problems.push("no record");
    return problems;
  }
  if (records.length > 1) problems.push(`${records.length} records`);
  if (record.route !== story.route) problems.push(`the route ${record.route}`);
  problems.push(
    ...judgeEnd(one, record),
    ...judgeFarewells(one, record),
    ...judgeFrozen(one, record),
    ...judgeTraffic(one, record),
    ...judgeEchoes(one, record),
  );
  return problems;
}

function judgeEnd(one: Case, record: LoggedRecord): string[] {
  const { facts } = one;
  const problems: string[] = [];
  if (!EXPLAINED[record.cause](new Explanation(one, record))) {
    problems.push(`the cause ${record.cause}, which nothing explains`);
  }
  if (facts.vanished || facts.unreachable) return problems;
  if (facts.status !== SWITCHING_PROTOCOLS) {
    if (one.story.route !== "http" || record.refused !== true)
      problems.push(`HTTP ${facts.status}`);
    return problems;
  }
  if (facts.close === null) return [...problems, "1006: TCP ended without a Close"];
  const { code, reason } = facts.close;
  if (code !== record.client.sent)
    problems.push(`Close ${code}, recorded as ${record.client.sent}`);
  const right = rightCodes(one, record);
  if (!right.includes(code)) problems.push(`Close ${code} "${reason}", not ${right.join(" or ")}`);
  const tellsWhen = /; retry-after=\d+$/.test(reason);
  if (tellsWhen !== (CLOSE_TABLE[record.cause].tellsWhen ?? false))
    problems.push(`the reason "${reason}"`);
  return problems;
}

/** The codes that the tables have for the recorded cause. */
function rightCodes({ story, facts }: Case, { cause }: LoggedRecord): readonly (number | null)[] {
  if (cause === "clientClosed") return [facts.closed];
  if (cause === "upstreamClosed") return [story.upstreamCode, GOING_AWAY];
  if (cause === "upstreamRejected") {
    return [codeOfRejection(story.upstream === "rejects" ? story.upstreamCode : null)];
  }
  return [CLOSE_TABLE[cause].client];
}

function isRetried({ route }: Story): boolean {
  return route === "retry" || route === "sure";
}

/** What each upstream of the session was told, if it was told anything. */
function judgeFarewells(one: Case, record: LoggedRecord): string[] {
  const problems: string[] = [];
  for (const { told, closed, resume } of one.reports) {
    if (told === null) continue;
    // One that closes by itself gets its own code back, unless ours was on its way already.
    const right: (number | null)[] = [closed];
    if (resume === record.resumes) right.push(farewell(one, record));
    // One that its session leaves, if only for as long as the next one is not there yet.
    if (isRetried(one.story)) right.push(GOING_AWAY);
    if (!right.includes(told)) {
      problems.push(`upstream ${resume} was told ${told}, not ${right.join(" or ")}`);
    }
  }
  return problems;
}

function farewell({ story, facts }: Case, { cause }: LoggedRecord): number | null {
  if (cause === "clientClosed") return facts.closed;
  if (cause === "messageTooBig" && story.upstream === "tooBig") return 1009;
  return CLOSE_TABLE[cause].upstream;
}

/** The heartbeat must have found out a backend that was frozen for long. */
function judgeFrozen({ facts, story, history, backend }: Case, record: LoggedRecord): string[] {
  // While a client takes nothing its upstream is not read, and cannot be heard.
  if (story.client === "pauses" || story.client === "stalls") return [];
  if (record.refused === true || record.resumes > 0) return [];
  const end = facts.startedAt + record.durationMs;
  const hasOutlived = history.spansLongFreeze(backend, facts.startedAt, end);
  return hasOutlived ? ["it has outlived its upstream's freeze"] : [];
}

/** What may explain a cause. */
class Explanation {
  readonly story: Story;
  readonly facts: ClientFacts;
  readonly #case: Case;
  readonly #record: LoggedRecord;

  constructor(one: Case, record: LoggedRecord) {
    this.#case = one;
    this.#record = record;
    this.story = one.story;
    this.facts = one.facts;
  }

  get isRetried(): boolean {
    return isRetried(this.story);
  }

  get drains(): boolean {
    return this.#endedAt >= this.#case.drainsFrom;
  }

  get closedByAdmin(): boolean {
    return this.#case.closedByAdmin.has(this.#record.session);
  }

  get hasObstacle(): boolean {
    return OBSTACLES.includes(this.facts.close?.reason ?? "");
  }

  happened(...kinds: readonly Disruption[]): boolean {
    return this.#case.history.has(kinds, this.#backends, this.facts.startedAt, this.#endedAt);
  }

  /** Something was wrong with every backend that the session could have had; others may be full. */
  get nobodyWasThere(): boolean {
    const disrupted = this.#case.history.disrupted(this.facts.startedAt, this.#endedAt);
    const isOut = (backend: number): boolean => disrupted.has(backend);
    return this.route("capped") ? this.#backends.some(isOut) : this.#backends.every(isOut);
  }

  client(...parts: readonly Story["client"][]): boolean {
    return parts.includes(this.story.client);
  }

  upstream(...parts: readonly Story["upstream"][]): boolean {
    return parts.includes(this.story.upstream);
  }

  route(...names: readonly Story["route"][]): boolean {
    return names.includes(this.story.route);
  }

  /** A session may outlive its client, where that is not read at the moment. */
  get #endedAt(): number {
    const { startedAt, endedAt } = this.facts;
    return Math.max(endedAt, startedAt + this.#record.durationMs);
  }

  get #backends(): number[] {
    const count = this.story.route === "capped" ? CAPPED_BACKENDS : BACKENDS;
    return Array.from({ length: count }, (_, index) => index);
  }
}

const never = (): boolean => false;

/** Backends of the `nasty` pool are ejected for what the stories do on its routes. */
const EXPLAINED: Readonly<Record<Cause, (seen: Explanation) => boolean>> = {
  // One that answers no pings is found out long before it closes.
  clientClosed: ({ facts, story }) =>
    facts.closed !== null && !facts.answered && story.client !== "silent",
  upstreamClosed: (seen) => seen.upstream("closes") || seen.happened("restarted"),
  // Nor does one that takes nothing live until it goes.
  clientLost: ({ facts, story }) =>
    (facts.vanished || facts.unreachable) && story.client !== "stalls",
  clientUnresponsive: (seen) => seen.client("silent", "stalls"),
  upstreamLost: (seen) =>
    seen.isRetried
      ? seen.hasObstacle &&
        (seen.happened("killed", "restarted", "drained", "removed") || seen.upstream("resetsOnce"))
      : seen.happened("killed", "restarted") || seen.upstream("resets", "halfCloses", "torn"),
  upstreamUnresponsive: (seen) => seen.happened("frozen") && (!seen.isRetried || seen.hasObstacle),
  upstreamUnreachable: (seen) => seen.nobodyWasThere || seen.route("nasty", "http"),
  upstreamRejected: (seen) => seen.upstream("rejects", "nonsense"),
  noBackend: (seen) => seen.nobodyWasThere || seen.route("nasty", "http"),
  capacity: (seen) => seen.route("capped"),
  retryExhausted: (seen) => seen.isRetried && seen.nobodyWasThere,
  draining: (seen) => seen.drains,
  backendDraining: (seen) => seen.happened("drained", "removed"),
  clientProtocolError: (seen) => seen.client("garbage"),
  upstreamProtocolError: (seen) => seen.upstream("garbage"),
  messageTooBig: (seen) => seen.client("tooBig") || seen.upstream("tooBig") || seen.route("limits"),
  rateLimited: (seen) => seen.route("limits"),
  slowConsumer: (seen) => seen.client("stalls"),
  idle: (seen) => seen.route("limits"),
  maxAge: (seen) => seen.route("aged"),
  unauthorized: never,
  forbidden: never,
  authExpired: never,
  adminClosed: (seen) => seen.closedByAdmin,
  internalError: never,
};

/** Frames in are frames out, or dropped by name. */
function judgeTraffic({ facts, story, reports }: Case, record: LoggedRecord): string[] {
  if (record.refused === true || facts.vanished || facts.unreachable) return [];
  const problems: string[] = [];
  const dropped = record.dropped ?? { clientToUpstream: 0, upstreamToClient: 0 };
  const { clientToUpstream, upstreamToClient } = record.messages;
  if (facts.received !== upstreamToClient) {
    problems.push(`the client got ${facts.received} messages, recorded are ${upstreamToClient}`);
  }
  // Where the client's Close was read, everything before it was.
  const accounted = clientToUpstream + dropped.clientToUpstream;
  const unfinished = story.client === "fragments" || story.client === "closesMidMessage" ? 1 : 0;
  const isRight = accounted === facts.sent || accounted === facts.sent + unfinished;
  if (record.client.received !== null && !isRight) {
    problems.push(
      `the client sent ${facts.sent} messages, recorded are ${clientToUpstream} ` +
        `and ${dropped.clientToUpstream} dropped`,
    );
  }
  const [report] = reports;
  // A second upstream gets some messages again, and a report may have died with its process.
  if (record.dials > 1 || report === undefined || record.resumes > 0) return problems;
  // One that has answered the Close has read everything before it.
  const hasRead = record.cause === "clientClosed" && record.upstream.received !== null;
  if (hasRead && report.received !== clientToUpstream) {
    problems.push(`the upstream got ${report.received} messages, recorded are ${clientToUpstream}`);
  }
  const sent = upstreamToClient + dropped.upstreamToClient;
  if (record.upstream.received !== null && story.upstream !== "tooBig" && report.sent !== sent) {
    problems.push(
      `the upstream sent ${report.sent} messages, recorded are ${upstreamToClient} ` +
        `and ${dropped.upstreamToClient} dropped`,
    );
  }
  return problems;
}

/** In order; without session retry and gaps; with it at most once, or with `resend` at least once. */
function judgeEchoes({ facts, story }: Case, record: LoggedRecord): string[] {
  const { echoes } = facts;
  if (story.route === "sure") {
    if (!isWaitingForEchoes(story) || record.cause !== "clientClosed") return [];
    const seen = new Set(echoes);
    const missing = Array.from({ length: facts.sent }, (_, number) => number).filter(
      (number) => !seen.has(number),
    );
    return missing.length === 0 ? [] : [`no echo of ${missing.join(", ")} of ${facts.sent}`];
  }
  const mayMiss = story.route === "retry";
  for (const [position, number] of echoes.entries()) {
    const before = echoes[position - 1] ?? -1;
    if (mayMiss ? number <= before : number !== before + 1) {
      return [`the echo of ${number} behind that of ${before}`];
    }
  }
  return [];
}

/** Its upstream sends an echo before it answers the ping that confirms the message. */
function isWaitingForEchoes({ upstream, client }: Story): boolean {
  return upstream !== "slow" && !VANISHING.has(client) && client !== "idles";
}
