/** How two close codes differ and when to use which: by hand for the pairs that people confuse. */
import { isSendable } from "./causes.ts";
import { type CodeInfo, codeInfo } from "./codes.ts";

export interface Comparison {
  readonly differ: string;
  readonly use: string;
}

/** Compares two assigned codes, in either order. */
export function compareCodes(first: number, second: number): Comparison | null {
  const [low, high] = first < second ? [first, second] : [second, first];
  const written = COMPARISONS.get(`${low}/${high}`);
  if (written !== undefined) return written;
  const [a, b] = [codeInfo(low), codeInfo(high)];
  return a && b && derived(low, a, high, b);
}

/** What the registry's properties say about two codes. */
function derived(low: number, a: CodeInfo, high: number, b: CodeInfo): Comparison {
  const differ: string[] = [];
  const [lowSent, highSent] = [isSendable(low), isSendable(high)];
  if (lowSent !== highSent) {
    const [sent, kept] = lowSent ? [low, high] : [high, low];
    differ.push(
      `${sent} is said by the other end, in a Close frame; ${kept} never is on the wire, it is only reported locally.`,
    );
  } else if (!lowSent) {
    differ.push("Neither is ever on the wire.");
  }
  differ.push(
    a.retry === b.retry
      ? `Connecting again is the same for both: ${RETRY[a.retry]}.`
      : `Connecting again: after ${low} ${RETRY[a.retry]}; after ${high} ${RETRY[b.retry]}.`,
  );
  differ.push(
    a.actor === b.actor
      ? `For both, who can act is ${a.actor}.`
      : `Who can act: with ${low} ${a.actor}; with ${high} ${b.actor}.`,
  );
  return {
    differ: differ.join(" "),
    use: `${sending(low, a)} ${sending(high, b)}`,
  };
}

function sending(code: number, info: CodeInfo): string {
  return `Send ${code} ${info.use}.`;
}

const RETRY: Readonly<Record<CodeInfo["retry"], string>> = {
  done: "there is no need to",
  change: "it is of no use until something has changed",
  backoff: "it is right, with a random delay and back-off",
  application: "it is up to the application that sent it",
};

/** By "low/high". */
const COMPARISONS: ReadonlyMap<string, Comparison> = new Map([
  [
    "1000/1001",
    {
      differ:
        "Both are clean. 1000 says that the purpose is fulfilled, by mutual agreement; 1001 says that one end goes away, whether or not the other was done.",
      use: "Send 1000 when the conversation is over, 1001 when it is cut short because a server stops or a page is left. A client that still needs the connection comes back after 1001 and stays away after 1000.",
    },
  ],
  [
    "1000/1005",
    {
      differ:
        "Both are clean ends. 1000 is a statement: done. 1005 means that the Close frame held no code, so nothing is known about why.",
      use: "Send 1000 when done; never rely on 1005 to mean it. `close.translate: { 1005: 1000 }` helps with a server that cannot be changed.",
    },
  ],
  [
    "1000/1006",
    {
      differ:
        "Opposites: with 1000 both ends said goodbye and agree that all is done; with 1006 nobody said anything, the connection just broke. 1000 is sent in a Close frame, 1006 is only found out by the end that is left.",
      use: "Send 1000 when done. 1006 cannot be sent: treat it as a failure, reconnect with back-off and look for what cut the connection. A 1000 where a 1006 would be the truth hides faults, so the gateway never makes one.",
    },
  ],
  [
    "1000/1013",
    {
      differ:
        "1000 says that the purpose is fulfilled; 1013 says come back later. After 1000 nothing is left to do, after 1013 everything is: the server was too busy to do it.",
      use: "Send 1000 when the client got what it came for, 1013 when it has to try again because of overload or another passing state. A server that sheds load with 1000 loses its clients: most do not reconnect after it.",
    },
  ],
  [
    "1001/1006",
    {
      differ:
        "With 1001 the other end said that it leaves; with 1006 it was gone without a word. To a user both look alike, but only 1001 shows that the shutdown was orderly.",
      use: "Send 1001 (or 1012, if you come back) before a process exits. If clients see 1006 at every deploy, something exits without closing, or a proxy in front cuts its tunnels.",
    },
  ],
  [
    "1001/1012",
    {
      differ:
        "1001 says that this end goes away and promises nothing; 1012 says that the service restarts and will be back. A browser sends 1001 when its page is left; only servers send 1012.",
      use: "Send 1012 when the client should come back to the same service, with a random delay of 5 to 30 s; 1001 for an end that asks for nothing, such as an idle connection, or for clients that do not know 1012 (`close.legacyCodes`).",
    },
  ],
  [
    "1002/1003",
    {
      differ:
        "1002 is about frames: they break the WebSocket protocol itself. 1003 is about a message that is legal, but of a type (text or binary) that the endpoint does not take.",
      use: "1002 comes from the WebSocket library and means a fault in one. Send 1003 from the application when it gets binary and only takes text, or the other way round.",
    },
  ],
  [
    "1003/1007",
    {
      differ:
        "1003: the type of the message is not accepted, whatever it contains. 1007: the type is fine, but the content does not fit it, as a text message that is not UTF-8.",
      use: 'Send 1003 for "no binary here", 1007 for "this text is broken". Text that is UTF-8 but not what the application expects (bad JSON, say) is neither: use 1008 or a code from 4000 on.',
    },
  ],
  [
    "1006/1013",
    {
      differ:
        '1006: nobody said anything, the connection broke. 1013: the server said "later". 1006 is never sent and may have any cause; 1013 is a deliberate answer of a server that is alive and short of capacity.',
      use: "Send 1013 (never 1006) to turn a client away for now. A client reconnects with back-off after both, but after 1013 it can wait as long as it was told, and there is nothing to search for in the network. Note that a browser reports even a 503 answer to the handshake as 1006: accept, then close with 1013, to be understood.",
    },
  ],
  [
    "1006/1014",
    {
      differ:
        "Often the same event, a dead backend, seen without and with a gateway that can speak: the plain proxy cuts the tunnel (1006, no reason), softclose says 1014 with a reason.",
      use: "1006 cannot be sent. A gateway sends 1014 when its upstream is lost. After 1014 a client knows that its own network is fine and reconnects with back-off; after 1006 the cause may be anywhere on the way.",
    },
  ],
  [
    "1006/1015",
    {
      differ:
        "Neither is ever on the wire. 1015 says that it failed at TLS, before any WebSocket; 1006 says only that there was no Close frame. Browsers report most TLS failures as 1006.",
      use: "Send neither. If every connection fails at once with 1006, check the certificate: it may be a 1015 that the browser does not name.",
    },
  ],
  [
    "1008/1013",
    {
      differ:
        "1008 says no because of what the client is or did; 1013 says not now because of the state of the server. Waiting cures 1013, but never 1008.",
      use: "Send 1008 when the client has to change something first (log in, send less), 1013 when the same request will succeed later. For a rate limit: 1008 if this client is too fast, 1013 if all together are too many.",
    },
  ],
  [
    "1011/1012",
    {
      differ:
        "1011: something failed inside the server. 1012: it restarts on purpose. Clients such as graphql-ws give up after 1011 and reconnect after 1012.",
      use: "Send 1011 for a failure that the next connection may well hit again, 1012 for a planned end. `close.translate: { 1011: 1012 }` brings clients back to a server that closes with 1011 when it stops.",
    },
  ],
  [
    "1011/1013",
    {
      differ:
        '1011 is a failure that nobody planned for, 1013 a deliberate "later" from a server that is in order but too busy.',
      use: "Send 1013 when you know that a later try succeeds, 1011 when you do not know what went wrong. Clients should wait longer, and give up sooner, after 1011.",
    },
  ],
  [
    "1011/1014",
    {
      differ:
        "Like HTTP's 500 and 502: with 1011 the server itself failed, with 1014 a gateway is in order, but the server behind it was lost or answered nonsense.",
      use: "A server sends 1011, a gateway 1014. With 1011 look into the log of the one that sent it, with 1014 at the backend behind it. `close.legacyCodes` turns 1014 into 1011 for clients that do not know it.",
    },
  ],
  [
    "1012/1013",
    {
      differ:
        "Both say come back. 1012: the service is restarting, so it is away for a moment. 1013: it is up and not restarting, but has no room now.",
      use: "Send 1012 for a deploy or a drained node: clients return after a random 5 to 30 s. Send 1013 for overload: clients back off exponentially (1 s, then doubling), since a quick return would make it worse.",
    },
  ],
  [
    "1013/1014",
    {
      differ:
        "1013: no room now, nothing is broken. 1014: the gateway lost the server behind it, or got no valid answer from it.",
      use: "A gateway sends 1013 when it cannot place a client for now (caps, no healthy backend), 1014 when a backend broke a session or the handshake. Lasting 1013s ask for capacity, 1014s for a look at why backends die.",
    },
  ],
]);
