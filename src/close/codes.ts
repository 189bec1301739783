/**
 * The registry of close codes: what each one means, when one sees it and what to do about it. Names are
 * IANA's (WebSocket Close Code Number Registry), but for 1014, whose entry there is a whole sentence.
 * The texts are what `softclose explain` prints.
 */
import { CAUSES, type Cause, type Side } from "./causes.ts";
import { type CloseDetail, defaultCloses } from "./default-closes.ts";

/** Whether a client should connect again. */
type RetryHint =
  /** What it connected for is done. */
  | "done"
  /** Not unchanged: the next connection would end the same way. */
  | "change"
  /** Yes: a random delay first, then exponential back-off. */
  | "backoff"
  /** The application that sent it knows. */
  | "application";

/** What is known about one close code, or about a range of them. */
export interface CodeInfo {
  readonly first: number;
  readonly last: number;
  /** As registered with IANA. */
  readonly name: string;
  readonly meaning: string;
  /** When one sees it. */
  readonly seen: string;
  /** What the author of a client does about it. */
  readonly client: string;
  /** What the operator of the service does about it. */
  readonly ops: string;
  /** What this gateway does with it; the causes that send it come from `causesSending`. */
  readonly gateway: string;
  readonly retry: RetryHint;
  /** When a server or client should send it, as the rest of "Send it ..."; or why it never may. */
  readonly use: string;
  /** Who can do something about it. */
  readonly actor: string;
  /** One or two sentences for a page. */
  readonly short: string;
}

/** What is known about a code; null where it is unassigned. A registered code wins over its range. */
export function codeInfo(code: number): CodeInfo | null {
  if (!Number.isInteger(code)) return null;
  return CODES.find((info) => info.first <= code && code <= info.last) ?? null;
}

/** The causes for which the gateway sends this code to that leg by default, in documentation order. */
export function causesSending(code: number, leg: Side = "client"): readonly Cause[] {
  return CAUSES.filter((cause) =>
    DETAILS.some((detail) => defaultCloses(cause, detail)[leg]?.code === code),
  );
}

/** A close code in one or two sentences, for a page that shows it next to the code. */
export function explainShort(code: number): string {
  const info = codeInfo(code);
  if (info === null) return `${code} is not an assigned close code; nothing may send it.`;
  return info.short;
}

/** Every detail that makes a difference to a default code. */
const DETAILS: readonly CloseDetail[] = [
  { offender: "client", status: null },
  { offender: "upstream", status: 401 },
  { status: 429 },
  { status: 500 },
];

/** In order of number, except that a range comes after the registered codes inside it. */
export const CODES: readonly CodeInfo[] = [
  {
    first: 1000,
    last: 1000,
    name: "Normal Closure",
    meaning:
      "The connection has done what it was for, and both ends agree to end it. It was closed cleanly.",
    seen: "After a log-out, a finished transfer, close(1000). It is the expected end.",
    client:
      "Nothing to repair and no reconnect. If it comes too early, look for the line that called close() too soon: an effect's clean-up, a second tab, a time-out of your own.",
    ops: "Nothing. Many 1000s right after the handshake mean that client or server closes before it has done its work.",
    gateway:
      "Passes it on, both ways. It never makes one out of a lost connection, whatever is configured.",
    retry: "done",
    use: "when both sides are done: a log-out, the end of a transfer",
    actor: "nobody",
    short:
      "Closed cleanly: the connection has served its purpose. Nothing to repair, no reconnect.",
  },
  {
    first: 1001,
    last: 1001,
    name: "Going Away",
    meaning: "The sender leaves: a server that shuts down, or a page that is being left.",
    seen: "The user navigates away or closes the tab; a server process stops; a proxy ends a connection that was idle.",
    client:
      "If the page is still there, connect again after a random delay. An idle end is cured by a ping or a message every 25 s or so.",
    ops: "Expected with deploys and page changes. If it comes after a constant quiet time, compare that time with the idle limits on the way.",
    gateway:
      "Sends it to clients that were idle or stopped answering, and to the upstream whenever its session ends for another reason than the upstream itself, or moves to another one.",
    retry: "backoff",
    use: "when this end leaves for good: the process stops, the page is left, the connection is no longer wanted",
    actor: "nobody, as a rule",
    short:
      "The other end goes away: a server stops or a page is left. Connect again after a random delay.",
  },
  {
    first: 1002,
    last: 1002,
    name: "Protocol error",
    meaning:
      "The sender received frames that break RFC 6455: a reserved bit or opcode, a wrong mask, a torn message.",
    seen: "A faulty WebSocket library, something on the way that changes bytes, or two parts of a program that write into one socket.",
    client:
      "Do not reconnect in a loop: the same bytes fail again. Update the library, and check what else writes to the socket.",
    ops: "Find the client or library version behind it; capture one connection. Compression that one side did not agree to is a frequent reason.",
    gateway:
      "Checks every frame, both ways. Who breaks the protocol gets 1002; a client that is not to blame gets 1014.",
    retry: "change",
    use: "when the frames themselves are illegal; a WebSocket library does it for you",
    actor: "whoever maintains the WebSocket library",
    short:
      "The frames it received broke the WebSocket protocol: a fault in a library or on the way. Trying again does not help.",
  },
  {
    first: 1003,
    last: 1003,
    name: "Unsupported Data",
    meaning: "The sender cannot take this type of data, for instance binary where it expects text.",
    seen: "A text-only endpoint gets a binary message, or the other way round.",
    client:
      "Send the type that the endpoint expects (string or ArrayBuffer). Reconnecting without that change fails again.",
    ops: "Client and server disagree about the message format: compare their versions.",
    gateway: "Passes it on unchanged. It relays both types and never objects to either.",
    retry: "change",
    use: "when the type of a message (text or binary) is one that this endpoint never takes",
    actor: "the author of what was sent",
    short:
      "The other end cannot take this type of message, such as binary instead of text. Change what is sent.",
  },
  {
    first: 1004,
    last: 1004,
    name: "Reserved",
    meaning: "Reserved: it has no meaning yet and must not be sent.",
    seen: "Only from a faulty or hand-made WebSocket implementation.",
    client: "Report it to whoever runs the server; a correct client library rejects it.",
    ops: "Replace the code in the server by one from 4000 to 4999.",
    gateway: "Never sends it. A peer that sends it broke the protocol and gets 1002.",
    retry: "change",
    use: "never: it is reserved and has no meaning",
    actor: "whoever maintains the program that sent it",
    short: "Reserved, without a meaning; nothing may send it.",
  },
  {
    first: 1005,
    last: 1005,
    name: "No Status Rcvd",
    meaning:
      "A Close frame came, but without a code. Libraries report 1005 for it; it is never on the wire.",
    seen: "The other end closed without giving a code, as close() without arguments does in a browser. The end was clean, but says nothing.",
    client:
      "Treat it as a clean end of unknown purpose: if the connection is still needed, connect again with back-off.",
    ops: "Let the server give a code: 1000 when it is done, 1012 or 1013 when clients should come back.",
    gateway:
      "Passes an empty Close on as an empty Close. `close.translate: { 1005: 1000 }` gives it a code.",
    retry: "backoff",
    use: "never: it stands for a missing code. Close without a code to cause it, or better, give one",
    actor: "the author of the code that closes",
    short: "Closed cleanly, but without saying why: the Close frame held no code.",
  },
  {
    first: 1006,
    last: 1006,
    name: "Abnormal Closure",
    meaning:
      "The connection ended without a Close frame. The code is reserved: an end finds it out for itself and must never send it.",
    seen: "TCP was cut: a server crashed or was killed, a cable or radio link failed, a firewall or load balancer dropped an idle connection, a proxy reloaded. In a browser also every failed handshake: it hides the HTTP status, so a 401 and a 503 look the same.",
    client:
      "Reconnect: the first time after a random delay of up to 5 s (RFC 6455, 7.2.3), then with exponential back-off. Send a ping (or a small message, since browsers cannot ping) often enough to notice a dead peer early.",
    ops: "Look for crashes and restarts at that time; for network time-outs; and for an idle limit on the way: if the connections die after a constant quiet time, it is one of those below.",
    gateway:
      "Never sends it and spares clients of it: a lost upstream becomes 1014, a refused or failed dial 1013, a shutdown 1012, and `refuse: close` turns a refusal into a readable Close. Its pings every 25 s stay below all idle limits named here.",
    retry: "backoff",
    use: "never: it stands for a missing Close frame, so there is nothing to put it into",
    actor: "the operator of the service and of the network on the way",
    short:
      "Nobody said goodbye: the connection was cut without a Close frame (crash, network, idle limit). Reconnect with back-off.",
  },
  {
    first: 1007,
    last: 1007,
    name: "Invalid frame payload data",
    meaning: "A message's content does not fit its type, as a rule text that is not valid UTF-8.",
    seen: "Binary data sent as text, a character cut in half at a buffer's edge, a faulty decompression.",
    client:
      "Send binary data as binary, and never cut encoded text by bytes. Trying again with the same data fails again.",
    ops: "Find the sender of the broken text; a gateway or library between that re-encodes it is a candidate.",
    gateway:
      "Passes it on. Text is checked by the two ends, not here; a Close reason that is not UTF-8 is a 1002.",
    retry: "change",
    use: "when the content of a message does not fit its type; a WebSocket library does it for you",
    actor: "the author of what was sent",
    short:
      "A message's content did not fit its type, such as text that is not UTF-8. Repair what is sent.",
  },
  {
    first: 1008,
    last: 1008,
    name: "Policy Violation",
    meaning:
      'The sender ends the connection because a rule of its own was broken; the general "no".',
    seen: "Missing or expired credentials, an origin that is not allowed, too many messages, a client that takes no data.",
    client:
      "Read the reason. Log in again, send less, or read faster; reconnecting unchanged is answered the same way.",
    ops: "If good clients get it, the limit or the access rule is too tight, or their tokens live too short.",
    gateway:
      "Sends it for everything the client itself has to change, also where the upstream answered the handshake with 401, 403 or another 4xx.",
    retry: "change",
    use: "when a rule of yours was broken, and no code of its own says it better (1003, 1009, 3000, 3003)",
    actor: "the client",
    short:
      "A rule was broken: not authenticated, not allowed, too many messages. Change that before trying again.",
  },
  {
    first: 1009,
    last: 1009,
    name: "Message Too Big",
    meaning: "A message is larger than the sender of this code is willing to take.",
    seen: "An upload or snapshot in one message; AWS API Gateway ends at 128 KB, many libraries at 1 to 100 MiB.",
    client:
      "Split the data, or send it over HTTP and only a pointer to it here. The same message fails again.",
    ops: "Raise the limit if the size is legitimate; every hop and both ends have one of their own.",
    gateway: "Enforces `limits.maxMessageSize` both ways, on the sum of a message's fragments.",
    retry: "change",
    use: "when a message is larger than this end takes",
    actor: "the author of what was sent",
    short: "A message was larger than the limit. Send it in smaller parts.",
  },
  {
    first: 1010,
    last: 1010,
    name: "Mandatory Ext.",
    meaning:
      "A client needs an extension that the server did not agree to in the handshake. Only clients send it.",
    seen: "Rarely: no browser does; a client program that insists on compression, for instance.",
    client: "Offer the extension and cope without it, or use a server that has it.",
    ops: "Enable the extension in the server, and see that no proxy strips the Sec-WebSocket-Extensions header.",
    gateway:
      "Passes it on. It lets permessage-deflate through and strips all other extensions from the offer.",
    retry: "change",
    use: "as a client only, when the server did not agree to an extension that you cannot do without",
    actor: "the operators of both ends",
    short: "The client needs an extension that the server did not agree to.",
  },
  {
    first: 1011,
    last: 1011,
    name: "Internal Error",
    meaning:
      "The server met a condition that it did not expect and cannot go on: the 500 of WebSockets.",
    seen: "An exception in a message handler, a database that is gone, a bug.",
    client:
      "At most a few tries with long back-off: what the client sent may be what fails. Some libraries (graphql-ws) take it as final.",
    ops: "The answer is in the server's log at that moment. For an end that should be tried again, let it send 1012 or 1013.",
    gateway: "Passes it on. It sends one of its own only for a bug in the gateway.",
    retry: "backoff",
    use: "as a server, when something failed that should not have",
    actor: "the operator of the server",
    short: "The server failed inside, like an HTTP 500. Its log knows why; try again only slowly.",
  },
  {
    first: 1012,
    last: 1012,
    name: "Service Restart",
    meaning: "The service restarts, and will be back.",
    seen: "A deploy, a scale-down, a drained node.",
    client:
      "Connect again after a random 5 to 30 seconds, as its registration asks, so that not all come at once.",
    ops: "Expected with every deploy. Pace the closes over the drain time; if many come outside deploys, look for restart loops.",
    gateway:
      "Sends it where another connection is welcome at once or soon, and paces those of a shutdown or a drained backend evenly over `drain.timeout`. `close.legacyCodes` makes it 1001.",
    retry: "backoff",
    use: "as a server, when it restarts or its sessions move, and the next connection will be served",
    actor: "nobody",
    short: "The service restarts. Connect again after a random delay of 5 to 30 seconds.",
  },
  {
    first: 1013,
    last: 1013,
    name: "Try Again Later",
    meaning:
      "The server ends the connection for a temporary reason, such as overload. It is up and is not restarting, unlike with 1012.",
    seen: "All backends are at their caps or unhealthy, a queue is full, a limit was reached.",
    client:
      "Reconnect with exponential back-off: 1 s, then double it each time, with a random share. If the reason ends in `retry-after=N`, wait N seconds first.",
    ops: "If it lasts, look at the capacity: scale out, raise the caps, or have fewer connections at the same time.",
    gateway:
      "Sends it for what will pass; its own refusals end in `; retry-after=N`, which gives each of those who were turned away its turn. `close.legacyCodes` makes it 1001.",
    retry: "backoff",
    use: "as a server that is up, when it cannot serve this connection now but can later",
    actor: "the operator of the service, if it lasts",
    short: "The server is up but has no room now. Try again later: back-off from 1 s, doubling.",
  },
  {
    first: 1014,
    last: 1014,
    name: "Bad Gateway",
    meaning:
      "A gateway or proxy got no valid answer from the server behind it: the 502 of WebSockets.",
    seen: "A backend crashed or was killed, its connection was reset, or it answered something that is not WebSocket.",
    client:
      "Reconnect with back-off; the gateway is fine, and the next try may reach another backend.",
    ops: "Look at the backend: crash, out-of-memory kill, a deploy without drain, a wrong port or path.",
    gateway:
      "Sends it where the client would have seen 1006 because of the upstream. `close.legacyCodes` makes it 1011.",
    retry: "backoff",
    use: "as a gateway or proxy, when the server behind it was lost or gave no valid answer",
    actor: "the operator of the server behind the gateway",
    short: "The server behind the gateway was lost or answered nonsense. Reconnect with back-off.",
  },
  {
    first: 1015,
    last: 1015,
    name: "TLS handshake",
    meaning:
      "The TLS handshake failed, so there never was a connection. Reserved: it is never sent.",
    seen: "A certificate that has expired, is for another name or is not trusted; no TLS version in common. Browsers mostly report 1006 instead.",
    client:
      "Check the address (wss:, host name) and the clock; waiting does not repair a certificate.",
    ops: "Check the certificate, its chain and its names, and the TLS versions on both sides.",
    gateway:
      "Never sends it; a peer that sends it gets 1002. An upstream whose TLS fails is `upstreamUnreachable`, and its client gets 1013.",
    retry: "change",
    use: "never: without TLS there is no connection to send it on",
    actor: "the operator of the certificate",
    short:
      "TLS failed: certificate, name or version do not fit. It is only reported locally, never sent.",
  },
  {
    first: 3000,
    last: 3000,
    name: "Unauthorized",
    meaning:
      "The endpoint needs credentials that were not given or are not valid: the 401 of WebSockets.",
    seen: "A missing or expired token.",
    client: "Log in or renew the token, then connect again; not before.",
    ops: "Check the tokens' lifetime and the clocks.",
    gateway:
      "Passes it on. For its own refusals it sends 1008, unless `close.causes` sets this code.",
    retry: "change",
    use: "when the client has to log in before it may connect",
    actor: "the client",
    short: "Credentials are missing or no longer valid. Log in, then connect again.",
  },
  {
    first: 3003,
    last: 3003,
    name: "Forbidden",
    meaning: "The client is known, but is not allowed to do this: the 403 of WebSockets.",
    seen: "A role or tenant without access to the endpoint.",
    client: "Do not try again: the same user gets the same answer.",
    ops: "Check the access rules if the user should be let in.",
    gateway:
      "Passes it on. For its own refusals it sends 1008, unless `close.causes` sets this code.",
    retry: "change",
    use: "when the client is known and this is not for it",
    actor: "whoever grants access",
    short: "Not allowed for this user. Trying again does not help.",
  },
  {
    first: 3008,
    last: 3008,
    name: "Timeout",
    meaning: "The endpoint waited too long for the client: the 408 of WebSockets.",
    seen: "No login message, heartbeat or answer within the application's deadline.",
    client: "Connect again with back-off, and answer in time.",
    ops: "Compare the deadline with the latency that clients really have.",
    gateway: "Passes it on unchanged.",
    retry: "backoff",
    use: "when the client let a deadline of the endpoint pass",
    actor: "the client",
    short: "The client took too long to answer. Connect again with back-off.",
  },
  {
    first: 3000,
    last: 3999,
    name: "Registered codes",
    meaning:
      "For libraries, frameworks and public applications, which register them with IANA: first come, first served.",
    seen: "When the framework in use closes by a rule of its own.",
    client: "Look the code up in the framework's documentation; it says whether to try again.",
    ops: "As there. A code of your own service belongs into 4000 to 4999.",
    gateway: "Passes them on unchanged; `close.translate` and `close.causes` may use them.",
    retry: "application",
    use: "from a library or framework, after registering it with IANA",
    actor: "whoever wrote or uses that library",
    short: "A code of a library or framework; its documentation says what it means.",
  },
  {
    first: 4000,
    last: 4999,
    name: "Private use",
    meaning: "For agreements between one application's client and server. Nobody registers them.",
    seen: "When the application's own server (or client) closes by its own rules: logged in elsewhere, room closed.",
    client: "Do what the application defined for it.",
    ops: "Look it up in the application's code or documentation.",
    gateway: "Passes them on unchanged; `close.translate` and `close.causes` may use them.",
    retry: "application",
    use: "for whatever your own client and server agree on",
    actor: "the authors of the application",
    short: "A code of this application; only its own documentation says what it means.",
  },
];
