/**
 * Schema of a pool: its backends and what keeps it calm. Each key says what it means, its unit, its
 * default and what follows from it. What spans several of its keys is in pool-rules.ts.
 */
import * as z from "zod";
import { key, section } from "./policies-schema.ts";
import { hashKey, probePath } from "./pool-values.ts";
import { backendUrl, count, duration, durationOrOff } from "./values.ts";

/** More often is no probe but a load. */
const SHORTEST_PROBE_INTERVAL_MS = 10;

/** Name servers answer from a cache that is seldom younger. */
const SHORTEST_DNS_INTERVAL_MS = 1000;

/** Each failure within the window is remembered. */
const MOST_FAILURES = 10_000;

const backend = z
  .strictObject({
    url: backendUrl().describe(
      "ws://host:port of one server; its name in logs, metrics and the admin API. A host name stands for all its addresses, see dns.",
    ),
    maxConnections: key(count(), 0, "Exact cap on sessions and dials at once. 0: no limit."),
    weight: key(count(1, 1000), 1, "Its share, relative to the others."),
  })
  .describe("One upstream server.");

const health = z
  .strictObject({
    type: z
      .enum(["http", "tcp", "websocket"])
      .describe("How to probe. http: a GET. tcp: a connection. websocket: a handshake and a ping."),
    path: key(probePath(), "/", "What http and websocket ask for, path and query."),
    interval: key(duration(SHORTEST_PROBE_INTERVAL_MS), "5s", "Time between probes, jittered."),
    timeout: key(
      duration(1),
      "2s",
      "Time for a whole probe; at most interval, so that probes do not overlap.",
    ),
    rise: key(count(1, 1000), 2, "Good probes in a row that make a backend healthy."),
    fall: key(count(1, 1000), 3, "Bad probes in a row that make it unhealthy: no new sessions."),
    closeSessions: key(
      z.boolean(),
      false,
      "Whether the sessions of a backend that became unhealthy end, too (backendDraining); with session retry they move. false: they stay.",
    ),
  })
  .describe("Active probes of each backend. Absent: none.");

const ejection = section(
  "Takes a backend out for a while after failures in real traffic: failed dials, losses, 1011 and 1014, never clean closes. At most half of a pool is out at once, so a lone backend never is.",
  {
    failures: key(count(0, MOST_FAILURES), 5, "Failures within window that eject. 0: off."),
    window: key(duration(1), "30s", "How long a failure counts."),
    duration: key(duration(1), "10s", "How long it is out the first time; doubles each time."),
    maxDuration: key(duration(1), "5m", "How long at most."),
  },
);

export const poolSchema = z
  .strictObject({
    balance: key(
      z.enum(["roundRobin", "leastConnections", "hash"]),
      "leastConnections",
      "Which backend is next. leastConnections: the one with the fewest for its weight. roundRobin: in turn. hash: for the same `of` the same one.",
    ),
    of: hashKey()
      .describe("What hash looks at: clientIp, header:NAME, cookie:NAME or query:NAME.")
      .optional(),
    backends: z.array(backend).min(1).describe("The servers of the pool."),
    connectTimeout: key(
      duration(1),
      "5s",
      "One dial, from the first SYN to the verified 101; then the next backend is tried.",
    ),
    queue: section("Clients that wait for a slot when all backends are full, in their order.", {
      size: key(count(), 0, "How many may wait; beyond it: 1013. 0: none."),
      timeout: key(duration(1), "5s", "How long one waits, before any dial; beyond it: 1013."),
    }),
    health: health.optional(),
    ejection,
    slowStart: key(
      duration(),
      "0s",
      "A backend that comes back, or joins, reaches its full share and cap only after this. 0s: at once.",
    ),
    dns: section(
      "Backends whose url has a host name: each of its addresses is a backend, with the maxConnections and weight given. Not for localhost.",
      {
        interval: key(
          durationOrOff(SHORTEST_DNS_INTERVAL_MS),
          "30s",
          "Time between look-ups; backends whose address is gone are drained. 0s: no look-ups, the name is dialled as it is.",
        ),
      },
    ),
  })
  .describe("A set of backends.");
