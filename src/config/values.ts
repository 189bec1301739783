/**
 * The kinds of value that a configuration is made of (durations, sizes, addresses, names, codes):
 * each a zod schema that knows its own reading, its JSON Schema and what to say when it is wrong.
 */
import { isIP, isIPv4, isIPv6 } from "node:net";
import * as z from "zod";
import { isSendable } from "../close/causes.ts";
import type { Bind } from "./config.ts";
import { show, unquote } from "./wording.ts";

/** Timers of Node.js fire at once above this: 2^31-1 ms, a little under 25 days. */
const LONGEST_MS = 2 ** 31 - 1;
/** Buffers and frame lengths stay in 32-bit range. */
const LARGEST_BYTES = 2 ** 31 - 1;
/** RFC 6455 §5.5: 125 bytes of control payload less two for the code. */
const REASON_BYTES = 123;

const MS_PER_UNIT = new Map([
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
]);
const BYTES_PER_UNIT = new Map([
  ["", 1],
  ["B", 1],
  ["KiB", 2 ** 10],
  ["MiB", 2 ** 20],
  ["GiB", 2 ** 30],
]);

/** What a reader returns for a value that it refuses. */
export class Wrong {
  readonly message: string;
  constructor(message: string) {
    this.message = message;
  }
}

/** A value with its own reader, so that its message says exactly what is wrong. */
export function scalar<T>(json: Record<string, unknown>, read: (raw: unknown) => T | Wrong) {
  return z
    .unknown()
    .transform((raw, context): T => {
      const result = raw === undefined ? new Wrong("is missing") : read(raw);
      if (!(result instanceof Wrong)) return result;
      context.issues.push({ code: "custom", message: result.message, input: raw });
      return z.NEVER;
    })
    .meta(json);
}

const DURATION = { type: "string", pattern: String.raw`^\d+(\.\d+)?(ms|s|m|h)$` };

/** Milliseconds from `250ms 10s 5m 1h`; at least `min` of them. */
export function duration(min = 0) {
  return scalar(DURATION, (raw) => {
    const ms = readDuration(raw);
    if (ms instanceof Wrong || ms >= min) return ms;
    const right = min === 1 ? "write more than 0s" : `the least is ${formatMs(min)}`;
    return new Wrong(`${show(raw)} is too short; ${right}`);
  });
}

/** Like `duration`, or `0s` for what the key switches off. */
export function durationOrOff(min: number) {
  return scalar(DURATION, (raw) => {
    const ms = readDuration(raw);
    if (ms instanceof Wrong || ms === 0 || ms >= min) return ms;
    return new Wrong(`${show(raw)} is too short; the least is ${formatMs(min)}, or 0s for off`);
  });
}

function formatMs(ms: number): string {
  return ms % 1000 === 0 ? `${ms / 1000}s` : `${ms}ms`;
}

function readDuration(raw: unknown): number | Wrong {
  // A bare 0 is the same in every unit.
  const written = raw === 0 ? "0s" : raw;
  const parts = typeof written === "string" ? /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(written) : null;
  const unit = MS_PER_UNIT.get(parts?.[2] ?? "");
  if (parts?.[1] === undefined || unit === undefined) {
    return new Wrong(`${show(raw)} is not a duration; write a number with ms, s, m or h, like 5m`);
  }
  const exact = Number(parts[1]) * unit;
  const ms = Math.round(exact);
  if (Math.abs(exact - ms) > 1e-6) {
    return new Wrong(`${show(raw)} is finer than 1ms; write whole milliseconds`);
  }
  if (ms > LONGEST_MS) return new Wrong(`${show(raw)} is too long; the most is 596h (24 days)`);
  return ms;
}

/** Bytes from `512 64KiB 1MiB`; at least `min` of them. */
export function size(min = 0) {
  const pattern = String.raw`^\d+(B|KiB|MiB|GiB)?$`;
  return scalar(
    {
      anyOf: [
        { type: "integer", minimum: min },
        { type: "string", pattern },
      ],
    },
    (raw) => {
      const written = typeof raw === "number" ? String(raw) : raw;
      const parts = typeof written === "string" ? /^(\d+)(B|KiB|MiB|GiB)?$/.exec(written) : null;
      const unit = BYTES_PER_UNIT.get(parts?.[2] ?? "");
      if (parts?.[1] === undefined || unit === undefined) {
        return new Wrong(
          `${show(raw)} is not a size; write whole bytes, or a number with KiB, MiB or GiB, like 64KiB`,
        );
      }
      const bytes = Number(parts[1]) * unit;
      if (bytes > LARGEST_BYTES) {
        return new Wrong(
          `${show(raw)} is too large; the most is ${LARGEST_BYTES} (2GiB less one byte)`,
        );
      }
      if (bytes < min) return new Wrong(`${show(raw)} is too small; the least is ${min}`);
      return bytes;
    },
  );
}

/** `host:port`; port 0 takes any free port. */
export function bind() {
  return scalar({ type: "string", pattern: String.raw`^.+:\d{1,5}$` }, readBind);
}

/** Like `bind`, or `off`: null. */
export function bindOrOff() {
  return scalar({ type: "string", pattern: String.raw`^(off|.+:\d{1,5})$` }, (raw) =>
    raw === "off" ? null : readBind(raw, ", or off"),
  );
}

function readBind(raw: unknown, orElse = ""): Bind | Wrong {
  const example = `write host:port, like 0.0.0.0:8080 or [::]:8080${orElse}`;
  if (typeof raw !== "string") return new Wrong(`${show(raw)} is not an address; ${example}`);
  const parts = /^(?:\[(.*)\]|(.*)):(\d+)$/.exec(raw);
  const [, bracketed, plain = "", digits = ""] = parts ?? [];
  if (parts === null) return new Wrong(`${show(raw)} is not an address; ${example}`);
  if (bracketed === undefined && plain.includes(":")) {
    return new Wrong(
      `${show(raw)} is not an address; put the IPv6 address in brackets, like [::1]:8080`,
    );
  }
  if (bracketed === undefined ? !isHost(plain) : !isIPv6(bracketed)) {
    return new Wrong(`${show(raw)} has no usable host; ${example}`);
  }
  const port = Number(digits);
  if (port > 65_535) return new Wrong(`${show(raw)} has a port above 65535`);
  return { host: bracketed ?? plain, port };
}

/** Where a backend listens; `url` is as written. */
interface BackendAddress {
  readonly url: string;
  readonly host: string;
  readonly port: number;
  /** The host is to be looked up in DNS. */
  readonly isName: boolean;
}

/** `ws://host[:port]`: the request path comes from the client, so the URL has none. */
export function backendUrl() {
  return scalar(
    { type: "string", pattern: "^wss?://[^/?#@]+/?$" },
    (raw): BackendAddress | Wrong => {
      const example = "write ws://host:port";
      if (typeof raw !== "string") return new Wrong(`${show(raw)} is not a URL; ${example}`);
      const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)(.*)$/is.exec(raw);
      const [, scheme = "", authority = "", rest = ""] = parts ?? [];
      if (parts === null) return new Wrong(`${show(raw)} is not a URL; ${example}`);
      if (scheme.toLowerCase() === "wss") {
        return new Wrong("wss: is not supported yet; write ws://host:port");
      }
      if (scheme.toLowerCase() !== "ws") {
        return new Wrong(`${show(raw)} is not a WebSocket URL; ${example}`);
      }
      // Not shown: it holds a password.
      if (authority.includes("@"))
        return new Wrong("has a user name or password; a backend takes none");
      if (rest !== "" && rest !== "/") {
        return new Wrong(
          `${show(raw)} has a path, query or fragment; these come from the client: ${example}`,
        );
      }
      const hostAndPort = /^(?:\[(.*)\]|([^:]*))(?::(\d+))?$/.exec(authority);
      const [, bracketed, plain = "", digits = "80"] = hostAndPort ?? [];
      if (hostAndPort === null || (bracketed === undefined ? !isHost(plain) : !isIPv6(bracketed))) {
        return new Wrong(`${show(raw)} has no usable host and port; ${example}`);
      }
      const port = Number(digits);
      if (port < 1 || port > 65_535) {
        return new Wrong(`${show(raw)} has no usable port; write one from 1 to 65535`);
      }
      // RFC 6761 §6.3: localhost is this machine, whatever a name server says.
      const isName =
        bracketed === undefined && !isIPv4(plain) && plain.toLowerCase() !== "localhost";
      return { url: raw, host: bracketed ?? plain, port, isName };
    },
  );
}

/** A range of addresses (`10.0.0.0/8`, `fd00::/8`), or a single address. */
export function cidr() {
  return scalar({ type: "string", pattern: String.raw`^[0-9A-Fa-f:.]+(/\d{1,3})?$` }, (raw) => {
    const example = "write one like 10.0.0.0/8, fd00::/8 or 192.0.2.1";
    if (typeof raw !== "string") return new Wrong(`${show(raw)} is not a CIDR; ${example}`);
    const [, address = "", digits] = /^([^/%]*)(?:\/(\d{1,3}))?$/.exec(raw) ?? [];
    const family = isIP(address);
    if (family === 0) return new Wrong(`${show(raw)} is not a CIDR; ${example}`);
    const most = family === 4 ? 32 : 128;
    if (Number(digits ?? 0) > most) {
      return new Wrong(`${show(raw)} is not a CIDR; an IPv${family} prefix is at most /${most}`);
    }
    return raw;
  });
}

const NAME = /^[A-Za-z0-9_.-]{1,64}$/;

/** What is wrong with a name, if anything: names become metric labels and log fields. */
export function nameFault(value: string): string | undefined {
  if (value === "-") return '"-" is reserved; it stands for "none" in logs and metrics';
  if (NAME.test(value)) return undefined;
  return `${show(value)} is not a name; use 1 to 64 of the characters A-Z a-z 0-9 _ . -`;
}

export function name() {
  return text({ maxLength: 64, pattern: NAME.source }, nameFault);
}

/** Host of a route: exact or `*.suffix`, in lower case, without a port. */
export function hostPattern() {
  return text({ pattern: String.raw`^(\*\.)?[^*/:]+$` }, (host) => {
    const exact = host.startsWith("*.") ? host.slice(2) : host;
    if (isHost(exact)) return undefined;
    const example = "write an exact host or *.suffix, without a port, like *.example.com";
    if (host === "*") return `"*" is not a host; leave host out to match any`;
    return `${show(host)} is not a host; ${example}`;
  }).transform((host) => host.toLowerCase());
}

/** Path of a route, a prefix on segment borders; null stands for any path. */
export function pathPrefix() {
  return text({ pattern: "^/[^?#]*$" }, (path) => {
    if (!path.startsWith("/")) return `${show(path)} is not a path; begin it with /, like /ws`;
    if (/[?#]/.test(path)) return `${show(path)} has a query or fragment; only the path is matched`;
    if (/[^\x21-\x7e]/.test(path))
      return `${show(path)} is not a path; write other characters as %XX`;
    // %2E is a dot, %2F a slash, %5C a backslash: no router and no backend agree on these.
    if (/\\|%2f|%5c|\/(?:\.|%2e){1,2}(?:[/;]|$)/i.test(path))
      return `${show(path)} is not one path to all readers; leave out \\, %2F, %5C, . and .. in it`;
    return undefined;
    // Prefixes match on segment borders, so a last slash would say nothing, and "/" means any.
  }).transform((path) => path.replace(/\/+$/, "") || null);
}

/** A close code that may be sent; of an abnormal end, which never becomes 1000, any but that. */
export function closeCode(of: "any end" | "abnormal end" = "any end") {
  const lowest = of === "any end" ? 1000 : 1001;
  const json = {
    type: "integer",
    anyOf: [
      { minimum: lowest, maximum: 1003 },
      { minimum: 1007, maximum: 1014 },
      { minimum: 3000, maximum: 4999 },
    ],
  };
  return scalar(json, (raw) => {
    if (typeof raw !== "number" || !isSendable(raw)) {
      return new Wrong(closeCodeFault(raw, lowest) + unquote(raw));
    }
    if (raw < lowest)
      return new Wrong("1000 says that all went well; an abnormal end never becomes 1000");
    return raw;
  });
}

const UPSTREAM_ENDS = ["lost", "unresponsive", "drained"] as const;

/** How an upstream may end where another can take over: a word, or a close code of its own. */
export function upstreamEnd() {
  const words = UPSTREAM_ENDS.join(", ");
  const codes = closeCode();
  const json = { anyOf: [{ type: "string", enum: UPSTREAM_ENDS }, codes.meta() ?? {}] };
  return scalar<(typeof UPSTREAM_ENDS)[number] | number>(json, (raw) => {
    const word = UPSTREAM_ENDS.find((known) => known === raw);
    if (word !== undefined) return word;
    if (typeof raw !== "number") {
      return new Wrong(`${show(raw)} is not known; write ${words} or a close code`);
    }
    const hint = raw === 1006 ? "; for an end without a Close write lost" : "";
    return isSendable(raw) ? raw : new Wrong(closeCodeFault(raw) + hint);
  });
}

/** Why something is no code to send, and what would be. */
export function closeCodeFault(raw: unknown, lowest = 1000): string {
  const allowed = `write ${lowest}-1003, 1007-1014 or 3000-4999`;
  if (typeof raw === "number" && Number.isInteger(raw) && raw >= 1000 && raw <= 4999) {
    return `${raw} is never sent in a Close frame; ${allowed}`;
  }
  return `${show(raw)} is not a close code; ${allowed}`;
}

/** Close reason: it must fit into a control frame. */
export function reason() {
  return text({ maxLength: REASON_BYTES }, (value) => {
    const bytes = Buffer.byteLength(value);
    if (bytes <= REASON_BYTES) return undefined;
    return `has ${bytes} bytes of UTF-8; a close reason holds at most ${REASON_BYTES}`;
  });
}

/** A text; `fault` says what is wrong with it. */
export function text(
  json: Record<string, unknown> = {},
  fault: (value: string) => string | undefined = () => undefined,
) {
  return z
    .string()
    .superRefine((value, context) => {
      const message = fault(value);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    })
    .meta(json);
}

// More connections or messages than one process could ever hold: a typing mistake.
const LARGEST_COUNT = 10_000_000;

/** A whole number of things. */
export function count(min = 0, max = LARGEST_COUNT) {
  return z.int().min(min).max(max);
}

/** An IPv4 address or a host name; underscores are common in container networks. */
function isHost(host: string): boolean {
  if (host.length > 253) return false;
  const labels = host.split(".");
  // A last label of digits only means an IPv4 address (WHATWG URL), so it must be a whole one.
  if (/^\d+$/.test(labels.at(-1) ?? "")) return isIPv4(host);
  return labels.every((label) => /^[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?$/.test(label));
}
