/** `softclose schema`: the JSON Schema of the configuration file, for editors. */
import * as z from "zod";
import { fileSchema } from "../config/schema.ts";

/** Any value may come from the environment, so an editor must not flag `${NAME}`. */
const VARIABLE = { type: "string", pattern: String.raw`\$\{.*\}` };

/** JSON Schema, draft 2020-12, with descriptions and defaults. */
export function jsonSchema(): Record<string, unknown> {
  const { $schema, ...schema } = z.toJSONSchema(fileSchema, {
    io: "input",
    target: "draft-2020-12",
  });
  return {
    $schema,
    title: "softclose configuration",
    description:
      "Durations: 250ms 10s 5m 1h. Sizes: 512 64KiB 1MiB. ${NAME} and ${NAME:-default}: environment.",
    ...allowVariables(schema),
  };
}

/** The same schema, in which each scalar is what it was or a variable. */
function allowVariables(node: Record<string, unknown>): Record<string, unknown> {
  if (isScalar(node)) {
    const { title, description, default: byDefault, ...own } = node;
    const alternatives = own.type === undefined && Array.isArray(own.anyOf) ? own.anyOf : [own];
    const kept = { title, description, default: byDefault };
    return { ...withoutUndefined(kept), anyOf: [...alternatives, VARIABLE] };
  }
  const result = { ...node };
  for (const name of ["items", "additionalProperties"]) {
    const inner = result[name];
    if (isNode(inner)) result[name] = allowVariables(inner);
  }
  if (isNode(result.properties)) {
    const entries = Object.entries(result.properties);
    result.properties = Object.fromEntries(
      entries.map(([name, inner]) => [name, isNode(inner) ? allowVariables(inner) : inner]),
    );
  }
  return result;
}

/** Text of any form needs no alternative: a variable is such a text. */
function isScalar(node: Record<string, unknown>): boolean {
  if (node.enum !== undefined || node.anyOf !== undefined) return true;
  if (node.type === "string") return node.pattern !== undefined;
  return node.type === "integer" || node.type === "number" || node.type === "boolean";
}

function isNode(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function withoutUndefined(node: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(node).filter(([, value]) => value !== undefined));
}
