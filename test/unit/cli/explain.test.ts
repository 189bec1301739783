// What `softclose explain` must say about each code and pair, and how it refuses what is no code.
import { describe, expect, it } from "vitest";
import { explain, explainShort } from "../../../src/cli/explain.ts";

function run(...codes: string[]) {
  const lines: string[] = [];
  const errors: string[] = [];
  const exitCode = explain(codes, {
    out: (line) => lines.push(line),
    err: (line) => errors.push(line),
  });
  // Facts are looked for across line ends.
  return { exitCode, lines, errors, text: lines.join(" ").replaceAll(/\s+/g, " ") };
}

/** What a reader has to find, code by code. */
const FACTS: Record<number, RegExp[]> = {
  1000: [/closed cleanly/, /both ends agree/, /expected/, /close\(\) too soon/, /no reconnect/],
  1001: [/shuts down/, /page/, /idle/, /To the client: clientUnresponsive, idle\./],
  1002: [/RFC 6455/, /opcode/, /clientProtocolError/, /gets 1014/],
  1003: [/binary/, /text/, /None sends it/],
  1004: [/Reserved/, /must not be sent/, /gets 1002/],
  1005: [/without a code/, /never on the wire/, /close\.translate/],
  1006: [
    /without a Close frame/,
    /reserved/,
    /must never send it/,
    /server crashed/,
    /cable/,
    /firewall/,
    /exponential back-off/,
    /ping/,
    /notice a dead peer early/,
    /network time-outs/,
    /idle limit/,
    /hides the HTTP status/,
    /Heroku router 55 s/,
    /AWS ALB 60 s/,
    /AWS NLB 350 s/,
    /AWS API Gateway 10 min/,
    /GCP external ALB 30 s/,
    /Azure App Gateway 4 min/,
    /Azure Front Door 5 min/,
    /Azure Load Balancer 4 min/,
    /Cloudflare 100 s/,
    /nginx, ingress-nginx 60 s/,
    /HAProxy as set timeout tunnel/,
    /Envoy 5 min stream_idle_timeout/,
    /Caddy, Traefik none/,
    /limits\.maxConnectionAge/,
    /becomes 1014/,
  ],
  1007: [/UTF-8/, /not fit its type/],
  1008: [/rule/, /401, 403/, /rateLimited, slowConsumer, unauthorized, forbidden, authExpired/],
  1009: [/larger/, /limits\.maxMessageSize/, /To the client: messageTooBig/],
  1010: [/extension/, /Only clients send it/, /permessage-deflate/],
  1011: [/500/, /graphql-ws/, /internalError/],
  1012: [/restarts/, /5 to 30 seconds/, /draining, backendDraining, maxAge, adminClosed/, /1001/],
  1013: [
    /temporary reason/,
    /overload/,
    /is not restarting, unlike with 1012/,
    /exponential back-off: 1 s, then double/,
    /scale out/,
    /capacity/,
    /fewer connections at the same time/,
    /retry-after=N/,
    /upstreamUnreachable, upstreamRejected, noBackend, capacity, retryExhausted/,
  ],
  1014: [/gateway/, /502/, /upstreamLost, upstreamUnresponsive/, /makes it 1011/],
  1015: [/TLS/, /never sent/, /certificate/, /upstreamUnreachable/],
  3000: [/credentials/, /401/, /1008/],
  3003: [/not allowed/, /403/],
  3008: [/408/, /deadline/],
  3500: [/3500 Registered codes \(3000 to 3999\)/, /IANA/, /first come, first served/],
  4001: [/4001 Private use \(4000 to 4999\)/, /application/, /Nobody registers them/],
};

describe("explain with one code", () => {
  it.each(Object.entries(FACTS))("says what has to be said about %s", (code, facts) => {
    const { exitCode, text, errors } = run(code);
    expect(exitCode).toBe(0);
    expect(errors).toEqual([]);
    for (const fact of facts) expect(text).toMatch(fact);
  });

  it("covers every code from 1000 to 1015", () => {
    for (let code = 1000; code <= 1015; code++) {
      expect(FACTS[code]).toBeDefined();
      const { text } = run(String(code));
      for (const label of [
        "Meaning",
        "Seen when",
        "Client",
        "Operator",
        "Reconnect",
        "softclose",
      ]) {
        expect(text).toContain(label);
      }
    }
  });

  it("marks the four that are never on the wire, and no other", () => {
    const marked = Object.keys(FACTS).filter((code) =>
      run(code).lines[0]?.endsWith("never on the wire"),
    );
    expect(marked).toEqual(["1004", "1005", "1006", "1015"]);
  });

  it("fits a terminal of 100 columns, without trailing blanks", () => {
    for (const args of [...Object.keys(FACTS).map((code) => [code]), ["1006", "1013"]]) {
      for (const line of run(...args).lines) {
        expect(line.length).toBeLessThanOrEqual(100);
        expect(line).toBe(line.trimEnd());
      }
    }
  });
});

describe("explain with two codes", () => {
  it("tells a purpose fulfilled from a come-back-later", () => {
    const { text, exitCode } = run("1000", "1013");
    expect(exitCode).toBe(0);
    expect(text).toMatch(/1000 Normal Closure .* 1013 Try Again Later .* How they differ/);
    expect(text).toMatch(/purpose is fulfilled; 1013 says come back later/);
    expect(text).toMatch(/When to use which Send 1000 when/);
  });

  it("tells silence from an answer", () => {
    const { text } = run("1006", "1013");
    expect(text).toMatch(/1006: nobody said anything/);
    expect(text).toMatch(/1013: the server said "later"/);
    expect(text).toMatch(/never 1006/);
  });

  it("keeps the order of the arguments, and compares the same in either", () => {
    const forth = run("1012", "1013");
    const back = run("1013", "1012");
    expect(forth.lines[0]).toMatch(/^1012 /);
    expect(back.lines[0]).toMatch(/^1013 /);
    expect(forth.lines.slice(forth.lines.indexOf("How they differ"))).toEqual(
      back.lines.slice(back.lines.indexOf("How they differ")),
    );
  });

  it.each([
    ["1001", "1012", /promises nothing; 1012 says that the service restarts/],
    ["1011", "1014", /500 and 502/],
    ["1012", "1013", /up and not restarting/],
    ["1006", "1014", /dead backend/],
    ["1000", "1006", /nobody said anything/],
    ["1000", "1001", /one end goes away/],
    ["1008", "1013", /Waiting cures 1013, but never 1008/],
    ["1002", "1003", /1002 is about frames/],
    ["1003", "1007", /the type is fine, but the content does not fit/],
    ["1008", "4000", /after 4000 it is up to the application/],
    ["4000", "4001", /Connecting again is the same for both/],
  ])("says how %s and %s differ", (first, second, fact) => {
    expect(run(first, second).text).toMatch(fact);
  });

  it("explains a code that is given twice once", () => {
    expect(run("1006", "1006").lines).toEqual(run("1006").lines);
  });
});

describe("explain with something else", () => {
  it.each([
    [[], "explain: give one close code, or two to compare: softclose explain 1006 1013"],
    [
      ["1000", "1001", "1002"],
      "explain: give one close code, or two to compare: softclose explain 1006 1013",
    ],
    [
      ["999"],
      "explain: 999 is not a close code; assigned are 1000 to 1015, 3000 to 3999 and 4000 to 4999",
    ],
    [
      ["1006", "5000"],
      "explain: 5000 is not a close code; assigned are 1000 to 1015, 3000 to 3999 and 4000 to 4999",
    ],
    [
      ["1016"],
      "explain: 1016 has no meaning yet: 1016 to 2999 are kept for the protocol's future; assigned are 1000 to 1015, 3000 to 3999 and 4000 to 4999",
    ],
    [
      ["abc"],
      'explain: "abc" is not a close code: it has to be a number; assigned are 1000 to 1015, 3000 to 3999 and 4000 to 4999',
    ],
  ])("refuses %j with 64 and one line", (args, line) => {
    expect(run(...args)).toMatchObject({ exitCode: 64, lines: [], errors: [line] });
  });

  it.each(["", " ", "-1006", "1e3", "0x3e8", "1000.0", "1006 ", "100\n6", "99999999999999999999"])(
    "takes %j for no code",
    (text) => {
      const { exitCode, errors } = run(text);
      expect(exitCode).toBe(64);
      expect(errors).toHaveLength(1);
      expect(errors[0]).not.toContain("\n");
    },
  );
});

describe("explainShort", () => {
  it("is there for pages that show a code", () => {
    expect(explainShort(1013)).toMatch(/Try again later/);
  });
});
