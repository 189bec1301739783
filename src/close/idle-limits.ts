/**
 * How long the usual load balancers and proxies let a quiet WebSocket live: the first suspects of a
 * 1006 after a constant time, and the reason for the heartbeat's default of 25 s.
 */

export interface IdleLimit {
  readonly hop: string;
  readonly limit: string;
  readonly note: string;
  /** Ends the connection at this age, whatever is sent: pings do not help. */
  readonly lifetime?: true;
}

/** Shortest first; those without a limit of their own at the end. */
export const IDLE_LIMITS: readonly IdleLimit[] = [
  { hop: "Heroku router", limit: "55 s", note: "fixed; any byte starts it anew" },
  { hop: "AWS ALB", limit: "60 s", note: "1 to 4000 s" },
  { hop: "nginx, ingress-nginx", limit: "60 s", note: "proxy_read_timeout, proxy_send_timeout" },
  { hop: "Cloudflare", limit: "100 s", note: "or 120 s, by a newer page of theirs" },
  {
    hop: "Azure Load Balancer",
    limit: "4 min",
    note: "4 to 30 min; silent unless TCP reset is on",
  },
  { hop: "Azure App Gateway", limit: "4 min", note: "4 to 30 min" },
  { hop: "Azure Front Door", limit: "5 min", note: "and 4 h for the whole connection" },
  { hop: "Envoy", limit: "5 min", note: "stream_idle_timeout; 15 s route timeout is a trap" },
  { hop: "AWS NLB", limit: "350 s", note: "60 to 6000 s; silent, then RST on the next data" },
  { hop: "AWS API Gateway", limit: "10 min", note: "fixed; and 2 h for the whole connection" },
  {
    hop: "GCP external ALB",
    limit: "30 s",
    note: "for the whole connection; up to 86,400 s",
    lifetime: true,
  },
  { hop: "HAProxy", limit: "as set", note: "timeout tunnel, else timeout client and server" },
  { hop: "Caddy, Traefik", limit: "none", note: "once the connection is upgraded" },
];

/** What pings cannot do, and what can. */
export const LIFETIME_ADVICE =
  "Pings hold off an idle limit, but not a lifetime (GCP, Front Door, API Gateway): a " +
  "`limits.maxConnectionAge` a little below it ends the session cleanly instead.";
