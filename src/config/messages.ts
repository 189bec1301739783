/**
 * What zod found, in words for an operator: what is wrong and what would be right. None of zod's own
 * phrases gets through.
 */
import * as z from "zod";
import { isMapping } from "./merge.ts";
import { NOT_YET, unsettableCause } from "./policies-schema.ts";
import { nearest, type Path, show, unquote } from "./wording.ts";

/** One thing that is wrong, and which part of its place to point at. */
export interface Finding {
  readonly path: Path;
  readonly at: "key" | "value";
  readonly message: string;
}

/** Every issue of a parse of `value`, worded. */
export function describeIssues(
  issues: readonly z.core.$ZodIssue[],
  schema: z.core.$ZodType,
  value: unknown,
): Finding[] {
  const findings = issues.flatMap((issue) => describe(issue, schema, value));
  const late = findings.filter((finding) => finding.message.endsWith(NOT_YET));
  // Inside a key that cannot be used at all, nothing else is worth saying.
  return findings.filter(
    (finding) =>
      late.includes(finding) || !late.some((other) => isWithin(finding.path, other.path)),
  );
}

/** The value at `path`, or undefined. */
export function valueAt(value: unknown, path: Path): unknown {
  let current = value;
  for (const step of path) {
    if (Array.isArray(current)) current = current[Number(step)];
    else current = isMapping(current) ? current[step] : undefined;
  }
  return current;
}

/** Zod allows symbols in paths; YAML has none. */
export function toPath(path: readonly PropertyKey[]): Path {
  return path.map((step) => (typeof step === "symbol" ? step.toString() : step));
}

function describe(issue: z.core.$ZodIssue, schema: z.core.$ZodType, root: unknown): Finding[] {
  const path = toPath(issue.path);
  const value = valueAt(root, path);
  const found = (message: string): Finding[] => [{ path, at: "value", message }];
  switch (issue.code) {
    case "unrecognized_keys": {
      const known = keysOf(schemaAt(schema, path));
      return issue.keys.map((key) => ({
        path: [...path, key],
        at: "key" as const,
        message: describeUnknownKey(key, path, known, schema),
      }));
    }
    case "invalid_key": {
      const message = issue.issues[0]?.message ?? "is not a key";
      return [{ path, at: "key", message }];
    }
    case "invalid_type":
      return found(describeType(issue.expected, value));
    case "invalid_value":
      return found(describeChoice(value, issue.values));
    case "too_small":
    case "too_big":
      return describeBound(issue, value).map((message) => ({
        path,
        at: "value" as const,
        message,
      }));
    case "custom":
      // The only refinement of a choice: say which of them it was.
      if (issue.message === NOT_YET && typeof value === "string" && value !== "") {
        return found(`${show(value)} ${NOT_YET}`);
      }
      return found(issue.message);
    case "invalid_union":
    case "invalid_element":
    case "invalid_format":
    case "not_multiple_of":
      return found(`${show(value)} is not possible here`);
  }
}

function describeUnknownKey(
  key: string,
  path: Path,
  known: readonly string[],
  schema: z.core.$ZodType,
): string {
  if (path.at(-1) === "causes") {
    const unsettable = unsettableCause(key);
    if (unsettable !== undefined) return unsettable;
  }
  const meant = nearest(key, known);
  if (meant !== undefined) return `unknown key; did you mean ${meant}?`;
  // Policies are the keys most often put one level too high.
  const homes = path.length === 0 || path[0] === "routes" ? sectionsWith(key, schema) : [];
  if (homes.length > 0) return `unknown key; it belongs under ${homes.join(" or ")}`;
  return `unknown key; possible here: ${known.join(", ")}`;
}

function describeType(expected: string, value: unknown): string {
  if (value === undefined) return "is missing";
  if (value === null) return "has no value; give it one, or leave the key out";
  switch (expected) {
    case "string":
      // Not shown: it may be a token.
      return typeof value === "object"
        ? `is ${show(value)}, not text`
        : "is not text; put it in quotes";
    case "number":
      return `${show(value)} is not a number${unquote(value)}`;
    case "int":
      return `${show(value)} is not a whole number`;
    case "boolean":
      return `${show(value)} is neither true nor false`;
    case "array":
      return `${show(value)} is not a list; write [a, b], or a line with "- " for each`;
    case "object":
    case "record":
      return `${show(value)} is not a mapping; write its keys on indented lines below`;
    default:
      return `${show(value)} is not possible here`;
  }
}

function describeChoice(value: unknown, choices: readonly unknown[]): string {
  if (value === undefined) return "is missing";
  if (value === null) return describeType("", value);
  const words = choices.map(String);
  const meant = typeof value === "string" ? nearest(value, words) : undefined;
  if (meant !== undefined) return `${show(value)} is not known; did you mean ${meant}?`;
  return `${show(value)} is not known; write ${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}

type BoundIssue = Extract<z.core.$ZodIssue, { code: "too_small" | "too_big" }>;

function describeBound(issue: BoundIssue, value: unknown): string[] {
  if (issue.origin === "array") return ["is empty; at least one is needed"];
  if (issue.code === "too_big") {
    // Zod's own bound of whole numbers; ours is below and says so too.
    if (issue.maximum === Number.MAX_SAFE_INTEGER) return [];
    return [`${show(value)} is too large; the most is ${issue.maximum}`];
  }
  if (issue.minimum === Number.MIN_SAFE_INTEGER) return [];
  if (issue.inclusive === false)
    return [`${show(value)} is too small; write more than ${issue.minimum}`];
  return [`${show(value)} is too small; the least is ${issue.minimum}`];
}

/** The schema of what stands at `path`. */
function schemaAt(schema: z.core.$ZodType, path: Path): z.core.$ZodType | undefined {
  let current: z.core.$ZodType | undefined = bare(schema);
  for (const step of path) {
    if (current instanceof z.ZodObject) current = (current.shape as z.core.$ZodShape)[step];
    else if (current instanceof z.ZodArray) current = current.element;
    else if (current instanceof z.ZodRecord) current = current.valueType;
    else return undefined;
    current = current === undefined ? undefined : bare(current);
  }
  return current;
}

function bare(schema: z.core.$ZodType): z.core.$ZodType {
  if (schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional)
    return bare(schema.unwrap());
  return schema;
}

function keysOf(schema: z.core.$ZodType | undefined): string[] {
  if (schema instanceof z.ZodObject) return Object.keys(schema.shape);
  if (schema instanceof z.ZodRecord && schema.keyType instanceof z.ZodEnum) {
    return schema.keyType.options.map(String);
  }
  return [];
}

/** Top-level sections, or sections of those, that have this key. */
function sectionsWith(key: string, schema: z.core.$ZodType, prefix = ""): string[] {
  const object = bare(schema);
  if (!(object instanceof z.ZodObject)) return [];
  return Object.entries(object.shape as z.core.$ZodShape).flatMap(([name, inner]) => {
    const section = bare(inner);
    if (!(section instanceof z.ZodObject)) return [];
    const here = Object.hasOwn(section.shape, key) ? [`${prefix}${name}`] : [];
    return [...here, ...sectionsWith(key, section, `${prefix}${name}.`)];
  });
}

function isWithin(path: Path, outer: Path): boolean {
  return outer.every((step, index) => path[index] === step);
}
