/**
 * Schema of the whole configuration file: one source for its types, its defaults, its checks and the
 * JSON Schema that editors use. What spans several keys is in rules.ts.
 */
import * as z from "zod";
import { key, notYet, overridesOf, policiesSchema, section } from "./policies-schema.ts";
import { poolSchema } from "./pool-schema.ts";
import {
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
    acceptRate: key(
      z.number().min(0).max(10_000_000),
      0,
      "WebSocket handshakes per second, of which one second's worth may come at once; beyond it: 1013. 0: no limit.",
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
    .record(poolName, poolSchema)
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
      "Sessions are closed evenly over this time; what is left then is destroyed. Sessions leave a backend that is drained or removed over this time, too.",
    ),
  }),
  log: section("The log on standard output.", {
    level: key(
      z.enum(["trace", "debug", "info", "warn", "error", "fatal", "silent"]),
      "info",
      "The least level that is written.",
    ),
    format: key(
      z.enum(["json", "pretty"]),
      "json",
      "json: one object a line. pretty: for people. A reload does not change it.",
    ),
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
