/**
 * Schema of the whole configuration file: one source for its types, its defaults, its checks and the
 * JSON Schema that editors use. What spans several keys is in rules.ts.
 */
import * as z from "zod";
import { key, notYet, overridesOf, policiesSchema, section } from "./policies-schema.ts";
import {
  backendUrl,
  bind,
  bindOrOff,
  cidr,
  count,
  duration,
  hostPattern,
  name,
  nameFault,
  pathPrefix,
  text,
} from "./values.ts";

const listener = z
  .strictObject({
    name: name().describe("Name in logs and metrics."),
    bind: bind().describe(
      "host:port to listen on; [::]:8080 for all of IPv6 and IPv4. Port 0: any free port.",
    ),
    tls: absentYet(
      "Serve wss:.",
      z.strictObject({
        cert: text().describe("File with the certificate chain, PEM."),
        key: text().describe("File with the private key, PEM."),
        clientCa: text()
          .describe("File with the CA that client certificates must come from, PEM.")
          .optional(),
      }),
    ),
    http2: key(
      notYet(z.boolean(), isFalse),
      false,
      "WebSockets over HTTP/2, RFC 8441. Not supported yet.",
    ),
    proxyProtocol: key(
      notYet(z.boolean(), isFalse),
      false,
      "Read PROXY protocol v1 and v2. Not supported yet.",
    ),
    trustedProxies: key(
      z.array(cidr()),
      [],
      "CIDRs or addresses whose X-Forwarded-* headers are believed.",
    ),
    maxConnections: key(
      count(),
      0,
      "Sessions and handshakes of this listener at once; beyond it: 1013. 0: no limit.",
    ),
  })
  .describe("An address that accepts clients.");

const route = z
  .strictObject({
    name: name().describe("Name in logs and metrics."),
    match: section("Which requests it takes; absent: all.", {
      host: hostPattern()
        .describe('Host header: exact, or "*.suffix" (in quotes). Absent: any.')
        .optional(),
      path: pathPrefix()
        .describe(
          "Path prefix on segment borders: /ws matches /ws and /ws/a, not /wsx. Absent: any.",
        )
        .optional(),
    }),
    pool: z.string().describe("Name of the pool that serves it."),
    ...overridesOf(policiesSchema.shape),
  })
  .describe("Picks a pool and policies for a request.");

const backend = z
  .strictObject({
    url: backendUrl().describe(
      "ws://host:port of one server; its name in logs, metrics and the admin API.",
    ),
    maxConnections: key(count(), 0, "Exact cap on sessions and dials at once. 0: no limit."),
    weight: key(count(1, 1000), 1, "Its share, relative to the others."),
  })
  .describe("One upstream server.");

const pool = z
  .strictObject({
    balance: key(
      notYet(z.enum(["roundRobin", "leastConnections", "hash"]), (value) => value !== "hash"),
      "leastConnections",
      "Which backend is next: leastConnections, roundRobin (hash is not supported yet).",
    ),
    of: absentYet(
      "What hash looks at: clientIp, header:NAME, cookie:NAME or query:NAME.",
      z.string(),
    ),
    backends: z.array(backend).min(1).describe("The servers of the pool."),
    connectTimeout: key(
      duration(1),
      "5s",
      "One dial, from the first SYN to the verified 101; then the next backend is tried.",
    ),
    queue: section("Clients that wait for a slot when all backends are full. Not supported yet.", {
      size: key(
        notYet(count(), (value) => value === 0),
        0,
        "How many may wait. 0: none. Not supported yet.",
      ),
      timeout: key(
        notYet(duration(1), (value) => value === 5000),
        "5s",
        "How long. Not supported yet.",
      ),
    }),
    health: absentYet(
      "Active probes; absent: none.",
      z.strictObject({
        type: z.enum(["http", "tcp", "websocket"]).describe("How to probe."),
        path: pathPrefix().describe("Path to ask for.").optional(),
        interval: duration(1).describe("Time between probes.").optional(),
        timeout: duration(1).describe("Time for an answer.").optional(),
        rise: count(1, 1000)
          .describe("Good probes in a row that make a backend healthy.")
          .optional(),
        fall: count(1, 1000).describe("Bad probes in a row that make it unhealthy.").optional(),
      }),
    ),
    ejection: absentYet(
      "Takes a backend out after failures seen in real traffic; absent: never.",
      z.strictObject({
        failures: count(1).describe("Failures that eject.").optional(),
        window: duration(1).describe("Within this time.").optional(),
        duration: duration(1).describe("For how long, the first time.").optional(),
        maxDuration: duration(1)
          .describe("For how long at most, when it happens again.")
          .optional(),
      }),
    ),
    slowStart: key(
      notYet(duration(), (value) => value === 0),
      "0s",
      "A backend that comes back gets its full share only after this. Not supported yet.",
    ),
    dns: absentYet("Backends found by DNS.", z.unknown()),
  })
  .describe("A set of backends.");

const poolName = z.string().superRefine((value, context) => {
  const message = nameFault(value);
  if (message !== undefined) context.addIssue({ code: "custom", message });
});

/** The file. */
export const fileSchema = z.strictObject({
  listeners: z.array(listener).min(1).describe("Where clients are accepted."),
  admin: section("Health checks, metrics and the admin API.", {
    bind: key(
      bindOrOff(),
      "127.0.0.1:9901",
      "host:port of the admin listener, or off. Keep it away from the public.",
    ),
    token: key(text(), "", "Bearer token that changes (POST, DELETE) need. Empty: none."),
  }),
  routes: z.array(route).min(1).describe("In order: the first match wins."),
  pools: z
    .record(poolName, pool)
    .refine((pools) => Object.keys(pools).length > 0, { error: "is empty; at least one is needed" })
    .describe("Sets of backends, by name."),
  ...policiesSchema.shape,
  drain: section("What SIGTERM does.", {
    delay: key(
      duration(),
      "0s",
      "Keeps accepting for this long after /readyz has turned 503, so that load balancers notice.",
    ),
    timeout: key(
      duration(),
      "25s",
      "Sessions are closed evenly over this time; what is left then is destroyed.",
    ),
  }),
  log: section("The log on standard output.", {
    level: key(
      z.enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"]),
      "info",
      "The least level that is written.",
    ),
    format: key(z.enum(["json", "pretty"]), "json", "json: one object a line. pretty: for people."),
  }),
});

/** The file as read: defaults filled in, values converted, policies of routes not yet merged. */
export type File = z.output<typeof fileSchema>;

/** A key that does nothing yet, and has no "off" value but to be absent. */
function absentYet<T extends z.ZodType>(description: string, schema: T) {
  return notYet(schema, () => false)
    .describe(`${description} Not supported yet.`)
    .optional();
}

function isFalse(value: boolean): boolean {
  return !value;
}
