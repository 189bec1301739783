/** The kinds of value that only a pool has: what hashing looks at, what probes ask for. */
import type { HashKey } from "./config.ts";
import { scalar, Wrong } from "./values.ts";
import { nearest, show } from "./wording.ts";

const NAMED_KINDS = ["header", "cookie", "query"] as const;
type NamedKind = (typeof NAMED_KINDS)[number];

/** How `of` may be written. */
export const HASH_KEY_FORMS = "clientIp, header:NAME, cookie:NAME or query:NAME";

/** RFC 9110 §5.6.2 and RFC 6265 §4.1.1: the names of headers and cookies are tokens. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;

/** A parameter's name as it stands in a URL, with nothing that would need an escape there. */
const PARAMETER = /^[^\s&=#+%\p{C}]+$/u;

/** What `balance: hash` looks at; a header's name in lower case, as Node.js has it. */
export function hashKey() {
  return scalar(
    { type: "string", pattern: "^(clientIp|(header|cookie|query):.+)$" },
    (raw): HashKey | Wrong => {
      if (raw === "clientIp") return { kind: "clientIp" };
      if (typeof raw !== "string") {
        return new Wrong(`${show(raw)} is not text; write ${HASH_KEY_FORMS}`);
      }
      const [word = "", ...rest] = raw.split(":");
      const name = rest.join(":");
      const kind = NAMED_KINDS.find((known) => known === word);
      if (kind === undefined) return new Wrong(unknownKind(raw, word, name));
      if (name === "") {
        return new Wrong(`${show(raw)} lacks a name; write ${kind}:NAME, like ${EXAMPLES[kind]}`);
      }
      const fault = nameFault(kind, name);
      if (fault !== undefined) return new Wrong(fault);
      return { kind, name: kind === "header" ? name.toLowerCase() : name };
    },
  );
}

const EXAMPLES: Readonly<Record<NamedKind, string>> = {
  header: "header:x-user-id",
  cookie: "cookie:sid",
  query: "query:room",
};

function unknownKind(raw: string, word: string, name: string): string {
  const meant = nearest(word, ["clientIp", ...NAMED_KINDS]);
  if (meant === undefined) return `${show(raw)} is not known; write ${HASH_KEY_FORMS}`;
  const form = meant === "clientIp" ? meant : show(`${meant}:${name === "" ? "NAME" : name}`);
  return `${show(raw)} is not known; did you mean ${form}?`;
}

function nameFault(kind: NamedKind, name: string): string | undefined {
  if (kind === "query") {
    if (PARAMETER.test(name)) return undefined;
    return `${show(name)} is not the name of a query parameter; it has no spaces and none of & = # + %`;
  }
  if (TOKEN.test(name)) return undefined;
  const what = kind === "header" ? "a header" : "a cookie";
  return `${show(name)} is not the name of ${what}; use letters, digits and any of - _ . ! # $ % & ' * + ^ \` | ~`;
}

/** What a probe asks for: path and query, in origin form. */
export function probePath() {
  return scalar({ type: "string", pattern: "^/[^#]*$" }, (raw) => {
    if (typeof raw !== "string" || !raw.startsWith("/")) {
      return new Wrong(`${show(raw)} is not a path; begin it with /, like /healthz`);
    }
    if (raw.includes("#")) return new Wrong(`${show(raw)} has a fragment; write path and query`);
    if (/[^\x21-\x7e]/.test(raw)) {
      return new Wrong(`${show(raw)} is not a path; write other characters as %XX`);
    }
    return raw;
  });
}
