/**
 * Schema of the policies: the keys that can be set at the top for all routes and again inside a
 * route. Each key says what it means, its unit, its default and what follows from it.
 */
import * as z from "zod";
import { CAUSES, isSendable } from "../close/causes.ts";
import {
  closeCode,
  closeCodeFault,
  count,
  duration,
  reason,
  size,
  text,
  upstreamEnd,
} from "./values.ts";

/** What `check` says about a key that the schema knows and the gateway does not do yet. */
export const NOT_YET = "is not supported yet";

/** Causes whose Close is a peer's own, or which have nobody left to tell. */
const UNSETTABLE: ReadonlyMap<string, string> = new Map([
  ["clientClosed", "cannot be set: the client closes with its own code"],
  ["upstreamClosed", "cannot be set: the upstream closes with its own code; see close.translate"],
  ["clientLost", "cannot be set: there is no client left to send a Close to"],
]);

/** Why a key of `close.causes` cannot be set, where it is a cause at all. */
export function unsettableCause(cause: string): string | undefined {
  return UNSETTABLE.get(cause);
}

/** A key with a default, as an operator would write it. */
export function key<T extends z.ZodType>(schema: T, byDefault: z.input<T>, description: string) {
  return z.prefault(schema.describe(description), byDefault);
}

/** A mapping that may be left out because each of its keys has a default. */
export function section<S extends z.core.$ZodShape>(description: string, shape: S) {
  const schema = z.strictObject(shape).describe(description);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a shape whose keys all have defaults takes {}
  return z.prefault(schema, {} as z.input<typeof schema>);
}

/** A key that does nothing yet: anything but its "off" value is refused. */
export function notYet<T extends z.ZodType>(schema: T, off: (value: z.output<T>) => boolean): T {
  // `when`: also where the value is malformed, or "malformed" would come first and this later.
  return schema.refine(off, { error: NOT_YET, when: () => true });
}

const heartbeatClient = section("The leg to the client.", {
  interval: key(
    duration(),
    "25s",
    "Time between pings; below the idle limits of load balancers. 0s: no heartbeat.",
  ),
  timeout: key(
    duration(),
    "20s",
    "A client that sends no byte for this long after a ping is closed (clientUnresponsive).",
  ),
  payload: key(
    z.enum(["ping", "text"]),
    "ping",
    "ping: a Ping frame. text: the message in `text`, for hops that ignore control frames.",
  ),
  text: key(
    text({ maxLength: 1024 }, (value) =>
      value.length > 1024 ? "is too long; the most is 1024 characters" : undefined,
    ),
    "",
    "The message that is sent when payload is text; the client's application sees it.",
  ),
});

const heartbeatUpstream = section("The leg to the backend.", {
  interval: key(duration(), "25s", "Time between pings. 0s: no heartbeat."),
  timeout: key(
    duration(),
    "20s",
    "A backend that sends no byte for this long after a ping has lost the session (upstreamUnresponsive).",
  ),
});

const retryConnect = section("Dialling a backend, before the client gets its 101.", {
  attempts: key(
    count(1, 100),
    3,
    "Dials at most, each to another backend where there is one; in session retry, of one round.",
  ),
  timeout: key(duration(1), "10s", "All dials and waits of one handshake together."),
});

/** With less, hardly a message could be kept, and with none a client would never be read. */
const LEAST_BUFFER_BYTES = 1024;

const retrySession = section(
  "Session retry: the client stays while its lost upstream is dialled again.",
  {
    enabled: key(
      z.boolean(),
      false,
      "Whether to. Off by default: only the operator knows whether a backend can take a session over.",
    ),
    on: key(
      z.array(upstreamEnd()).max(64),
      ["lost", "unresponsive", "drained", 1012],
      "Which ends of the upstream are retried: lost (TCP without a Close), unresponsive (no pong), drained (its backend is), and close codes of its own.",
    ),
    attempts: key(
      count(1, 1000),
      6,
      "Rounds of dials at most; then the client gets retryExhausted. A round tries up to connect.attempts backends.",
    ),
    timeout: key(
      duration(1),
      "30s",
      "How long the client is kept waiting, dials and waits together.",
    ),
    buffer: key(
      size(LEAST_BUFFER_BYTES),
      "64KiB",
      "Bytes of client messages kept for the next upstream; beyond it the client's socket is paused.",
    ),
    resend: key(
      z.enum(["none", "unconfirmed"]),
      "none",
      "none: a message is sent at most once. unconfirmed: at least once; what the lost upstream may not have read is sent again.",
    ),
    replay: section("The start of the conversation, repeated to a new upstream.", {
      first: key(
        count(0, 1000),
        0,
        "So many of the client's first messages are sent again, before anything else.",
      ),
      swallow: key(
        count(0, 1000),
        0,
        "So many of the new upstream's first messages do not reach the client.",
      ),
    }),
    notify: key(
      text({ maxLength: 1024 }, (value) =>
        value.length > 1024 ? "is too long; the most is 1024 characters" : undefined,
      ),
      "",
      "Text message to the client after a resume; {attempts} and {downMs} are filled in. Empty: none.",
    ),
  },
);

const retryBackoff = section("Waits between rounds of dials.", {
  initial: key(duration(), "1s", "The first wait."),
  factor: key(z.number().min(1).max(100), 2, "Each wait is this many times the one before."),
  max: key(duration(), "30s", "No wait is longer."),
  jitter: key(
    z.number().min(0).max(1),
    0.5,
    "Share of a wait that is drawn at random, 0 to 1; spreads the herd.",
  ),
});

const causeOverride = z
  .strictObject({
    code: closeCode("abnormal end")
      .describe("Close code: 1001-1003, 1007-1014 or 3000-4999.")
      .optional(),
    reason: reason().describe("Close reason, at most 123 bytes of UTF-8.").optional(),
  })
  .refine((value) => Object.keys(value).length > 0, {
    error: "sets nothing; give it a code, a reason or both",
  })
  .describe("What the client gets for this cause; what is not given keeps its default.");

/** Causes whose Close is ours to choose. */
export const settableCauses = z
  .enum(CAUSES)
  .exclude(["clientClosed", "upstreamClosed", "clientLost"]);

// Integer keys of YAML arrive as text.
const translateKey = z.string().superRefine((value, context) => {
  const code = /^\d+$/.test(value) ? Number(value) : Number.NaN;
  if (code === 1005 || isSendable(code)) return;
  context.addIssue({
    code: "custom",
    message:
      code === 1006
        ? "1006 is not something an upstream sends; set close.causes.upstreamLost"
        : `${closeCodeFault(Number.isNaN(code) ? value : code)}, or 1005 for an empty Close`,
  });
});

const translate = z
  .record(translateKey.meta({ pattern: String.raw`^\d{4}$` }), closeCode())
  .superRefine((value, context) => {
    for (const [from, to] of Object.entries(value)) {
      const code = Number(from);
      const clean = code === 1000 || code === 1001 || code === 1005 || code >= 3000;
      if (to !== 1000 || clean) continue;
      context.addIssue({
        code: "custom",
        path: [from],
        message: `${from} is an abnormal end, which never becomes 1000; only 1000, 1001, 1005 and 3000-4999 can`,
      });
    }
  });

/** The policies with their defaults. */
export const policiesSchema = z.strictObject({
  heartbeat: section("Pings that find dead peers and keep idle hops open.", {
    client: heartbeatClient,
    upstream: heartbeatUpstream,
  }),
  retry: section("What happens when a backend does not answer or goes away.", {
    connect: retryConnect,
    session: retrySession,
    backoff: retryBackoff,
  }),
  close: section("How sessions end.", {
    timeout: key(
      duration(1),
      "5s",
      "How long a closing handshake may take before the socket is destroyed.",
    ),
    legacyCodes: key(
      z.boolean(),
      false,
      "For clients that reject 1012-1014 as a protocol error: 1012 and 1013 become 1001, 1014 becomes 1011.",
    ),
    causes: key(
      z.partialRecord(settableCauses, causeOverride),
      {},
      "Code and reason for a cause, in place of the built-in ones.",
    ),
    translate: key(
      translate,
      {},
      "Upstream close code (1005: empty Close) to the code that the client gets, e.g. { 1011: 1012 }.",
    ),
  }),
  refuse: key(
    z.enum(["close", "http"]),
    "close",
    "How a refusal looks. close: 101, then a Close frame, which a browser can read. http: an HTTP status.",
  ),
  retryAfter: section(
    "When clients that were turned away are told to come back: one after the other at acceptRate, and at random within the time allowed where that is too short for all.",
    {
      min: key(duration(), "1s", "The earliest."),
      max: key(
        duration(1),
        "60s",
        "The latest. A herd larger than max x acceptRate comes back faster than acceptRate.",
      ),
      acceptRate: key(
        z.number().positive().max(10_000_000),
        100,
        "Clients per second that the service can take back; of one gateway, and at most its listeners' acceptRate.",
      ),
    },
  ),
  limits: section("What one client may do.", {
    handshakeTimeout: key(
      duration(1),
      "10s",
      "From the accepted socket to the complete request head. Another value than the default bounds the answer, too, whatever retry.connect allows.",
    ),
    maxMessageSize: key(
      size(),
      "16MiB",
      "Largest message either way, all its fragments together; beyond it: 1009. 0: no limit.",
    ),
    messageRate: key(
      z.number().min(0).max(10_000_000),
      0,
      "Client messages per second; beyond it: 1008. 0: no limit.",
    ),
    messageBurst: key(
      count(),
      0,
      "Messages that may come at once. 0: as many as messageRate, at least 1.",
    ),
    maxConnections: key(count(), 0, "Sessions and handshakes of a route at once. 0: no limit."),
    maxConnectionsPerClient: key(
      count(),
      0,
      "Sessions and handshakes of one client address at once. 0: no limit.",
    ),
    idleTimeout: key(
      duration(),
      "0s",
      "A session over which nothing was relayed for this long is closed. 0s: never.",
    ),
    maxConnectionAge: key(duration(), "0s", "A session older than this is closed. 0s: never."),
    slowConsumerTimeout: key(
      duration(1),
      "30s",
      "A client that takes none of its data for this long is closed (slowConsumer); an upstream that does not counts as unresponsive.",
    ),
  }),
  origins: notYet(z.unknown(), (value) => value === undefined)
    .describe("Allowed origins. Not supported yet.")
    .optional(),
  auth: notYet(z.unknown(), (value) => value === undefined)
    .describe("Who may connect. Not supported yet.")
    .optional(),
});

/**
 * The same keys as a route may set them: all optional, none with a default, since what a route leaves
 * out comes from the top.
 */
export function overridesOf<S extends z.core.$ZodShape>(shape: S) {
  const entries: [string, z.core.$ZodType][] = Object.entries(shape).map(([name, schema]) => [
    name,
    override(schema),
  ]);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- fromEntries forgets the keys
  return Object.fromEntries(entries) as { [K in keyof S]: z.ZodOptional };
}

function override(schema: z.core.$ZodType): z.ZodOptional {
  if (schema instanceof z.ZodPrefault) return override(schema.unwrap());
  if (schema instanceof z.ZodOptional) return override(schema.unwrap());
  if (schema instanceof z.ZodObject) {
    return z
      .strictObject(overridesOf(schema.shape))
      .describe(schema.description ?? "")
      .optional();
  }
  return z.optional(schema);
}
