/**
 * YAML text to a tree of plain values that remembers where each of them stands in the file. Bounds
 * what a hostile or broken file can cost; knows nothing of the gateway's keys.
 */
import {
  type Document,
  isAlias,
  isMap,
  isNode,
  isScalar,
  isSeq,
  Lexer,
  type Node,
  parseAllDocuments,
  type YAMLMap,
} from "yaml";
import { type Environment, interpolate, resolvePlain } from "./interpolate.ts";
import type { LineIndex } from "./line-index.ts";
import type { Mapping } from "./merge.ts";
import type { Path } from "./wording.ts";

/** A fault of the text itself, before any key has a meaning. */
interface TreeFault {
  readonly path: Path;
  readonly offset: number;
  readonly message: string;
}

export interface Tree {
  readonly value: unknown;
  readonly faults: readonly TreeFault[];
  /** No tree: `value` says nothing, only the faults count. */
  readonly broken: boolean;
  /** Unquoted values that a variable turned into a number or boolean, as the text that they were. */
  readonly texts: ReadonlyMap<string, string>;
  /** Offset of the value at `path`, or of the nearest thing around it that exists. */
  offsetOf(path: Path): number;
  /** Offset of the key that `path` ends in. */
  keyOffsetOf(path: Path): number;
}

/** A configuration is a few levels deep; the parser recurses, so the stack is the limit. */
const DEEPEST = 50;
/** Values that aliases may add to the file: a bomb has billions, an operator a few hundred. */
const MOST_ALIASED_VALUES = 10_000;
/** After a few, syntax errors are consequences of the first ones. */
const MOST_SYNTAX_FAULTS = 20;

/** A key for maps by path; no step can contain the separator by accident and mean another path. */
export function pathId(path: Path): string {
  return JSON.stringify(path);
}

/** Reads one YAML document. Never throws for anything that `text` contains. */
export function readTree(text: string, env: Environment, lines: LineIndex): Tree {
  const tooDeep = findTooDeep(text);
  const faults = tooDeep === undefined ? [] : [tooDeep];
  const documents = tooDeep === undefined ? parse(text, faults) : [];
  const [document, second] = documents;
  for (const parsed of documents.slice(0, 2)) faults.push(...syntaxFaults(parsed, text, lines));
  if (second !== undefined) {
    const offset = second.contents?.range?.[0] ?? second.range[0];
    const message = "a second document begins here; a configuration file is one document";
    faults.push({ path: [], offset, message });
  }
  const contents = document?.contents ?? null;
  const isEmpty = contents === null || (isScalar(contents) && contents.value === null);
  if (faults.length === 0 && isEmpty) {
    const message = "the file is empty; it needs at least listeners, routes and pools";
    faults.push({ path: [], offset: 0, message });
  }
  const reader = new Reader(lines, env, faults);
  const value = faults.length === 0 ? reader.read(contents, []) : undefined;
  return {
    value,
    faults,
    broken: value === undefined || reader.overflowed,
    texts: reader.texts,
    offsetOf: (path) => nearestOffset(reader.values, path),
    keyOffsetOf: (path) => reader.keys.get(pathId(path)) ?? nearestOffset(reader.values, path),
  };
}

/**
 * The parser descends once per level and V8 may abort the process when it compiles a regular
 * expression near the end of the stack, so depth is bounded by the lexer, which does not descend.
 */
function findTooDeep(text: string): TreeFault | undefined {
  let flowDepth = 0;
  let blockDepth = 0;
  let offset = 0;
  let isScalarNext = false;
  let isLineStart = true;
  for (const token of new Lexer().lex(text)) {
    if (isScalarNext) isScalarNext = false;
    else if (token === SCALAR_FOLLOWS) isScalarNext = true;
    else if (token === "[" || token === "{") flowDepth++;
    else if (token === "]" || token === "}") flowDepth = Math.max(0, flowDepth - 1);
    else if (flowDepth === 0 && NESTING_INDICATORS.has(token)) blockDepth++;
    else if (isLineStart && /^ +$/.test(token)) blockDepth = token.length;
    else if (token === "\n" || token === "\r\n") blockDepth = 0;
    if (flowDepth > DEEPEST || blockDepth > DEEPEST * 4) {
      return { path: [], offset, message: `nested too deeply; the most is ${DEEPEST} levels` };
    }
    isLineStart = token.endsWith("\n");
    if (!NO_WIDTH.has(token)) offset += token.length;
  }
  return undefined;
}

/** Each begins another level on the same line, outside of brackets. */
const NESTING_INDICATORS: ReadonlySet<string> = new Set(["-", "?", ":"]);
/** Marks that the lexer puts before a scalar, a document, and for the end of flow and of errors. */
const SCALAR_FOLLOWS = "\u001f";
const NO_WIDTH: ReadonlySet<string> = new Set([SCALAR_FOLLOWS, "\u0002", "\u0018"]);

function parse(text: string, faults: TreeFault[]): readonly Document.Parsed[] {
  try {
    // Duplicate keys are found below, with the line of the first.
    const documents = parseAllDocuments(text, { uniqueKeys: false, prettyErrors: false });
    return Array.isArray(documents) ? documents : [];
  } catch (error) {
    // The parser reports what it finds instead of throwing; this is for a bug in it.
    const reason = error instanceof Error ? error.message : String(error);
    faults.push({ path: [], offset: 0, message: `cannot be read as YAML: ${reason}` });
    return [];
  }
}

function syntaxFaults(document: Document.Parsed, text: string, lines: LineIndex): TreeFault[] {
  const faults: TreeFault[] = [];
  let lastLine = 0;
  for (const { code, message, pos } of [...document.errors, ...document.warnings]) {
    // What else is wrong on a line, or is merely unexpected later, follows from the first fault.
    const { line } = lines.positionOf(pos[0]);
    if (line === lastLine || (code === "UNEXPECTED_TOKEN" && faults.length > 0)) continue;
    lastLine = line;
    const before = text.slice(Math.max(0, pos[0] - 2), pos[0] + 1);
    const wording = before.includes("${") ? VARIABLE_IN_FLOW : wordSyntax(code, message);
    faults.push({ path: [], offset: pos[0], message: `not valid YAML: ${wording}` });
    if (faults.length === MOST_SYNTAX_FAULTS) break;
  }
  return faults;
}

// oxlint-disable-next-line no-template-curly-in-string -- what the operator is to write
const VARIABLE_IN_FLOW = "inside { } and [ ] put a ${NAME} in quotes";

/** Other words where the parser's say little to someone who does not know YAML's grammar. */
function wordSyntax(code: string, message: string): string {
  if (code === "BLOCK_AS_IMPLICIT_KEY")
    return 'a second ": " on this line; put the value in quotes';
  if (code === "TAB_AS_INDENT") return "a tab in the indentation; use spaces";
  if (message.startsWith("All ")) return "the indentation does not match the lines above";
  return message.trimEnd().replaceAll(/\s+/g, " ");
}

/** Turns nodes into plain values, fills in variables and follows aliases. */
class Reader {
  readonly values = new Map<string, number>();
  readonly keys = new Map<string, number>();
  readonly texts = new Map<string, string>();
  private readonly env: Environment;
  private readonly faults: TreeFault[];
  private readonly anchors = new Map<string, Node>();
  /** Nodes being read: an alias to one of them would have no end. */
  private readonly open = new Set<Node>();
  private readonly lines: LineIndex;
  private aliasDepth = 0;
  private aliasedValues = 0;

  constructor(lines: LineIndex, env: Environment, faults: TreeFault[]) {
    this.lines = lines;
    this.env = env;
    this.faults = faults;
  }

  /** Reading stopped early, so the value is only a part. */
  get overflowed(): boolean {
    return this.aliasedValues > MOST_ALIASED_VALUES;
  }

  read(node: Node | null, path: Path, at = node === null ? 0 : offsetOf(node)): unknown {
    if (this.overflowed) return null;
    if (this.aliasDepth > 0 && ++this.aliasedValues > MOST_ALIASED_VALUES) {
      this.fault(path, at, "the aliases of this file repeat too much; write some of it out");
      return null;
    }
    if (path.length > DEEPEST) {
      this.fault(path.slice(0, 1), at, `nested too deeply; the most is ${DEEPEST} levels`);
      return null;
    }
    this.values.set(pathId(path), at);
    if (node === null) return null;
    if (isAlias(node)) return this.readAlias(node.source, path, at);
    if (this.aliasDepth === 0 && "anchor" in node && node.anchor !== undefined) {
      this.anchors.set(node.anchor, node);
    }
    if (isScalar(node)) return this.readScalar(node.value, node.type === "PLAIN", path, at);
    this.open.add(node);
    let value: unknown = null;
    if (isMap(node)) value = this.readMap(node, path);
    else if (isSeq(node)) {
      value = node.items.map((item, index) =>
        this.read(isNode(item) ? item : null, [...path, index]),
      );
    }
    this.open.delete(node);
    return value;
  }

  private readAlias(name: string, path: Path, at: number): unknown {
    const target = this.anchors.get(name);
    if (target === undefined) {
      this.fault(
        path,
        at,
        `*${name} is an alias without an anchor; a text that begins with * needs quotes`,
      );
      return null;
    }
    if (this.open.has(target)) {
      this.fault(path, at, `*${name} contains itself`);
      return null;
    }
    this.aliasDepth++;
    const value = this.read(target, path, at);
    this.aliasDepth--;
    return value;
  }

  private readScalar(value: unknown, plain: boolean, path: Path, at: number): unknown {
    if (typeof value === "string") {
      const result = interpolate(value, this.env);
      if ("faults" in result) {
        for (const message of new Set(result.faults)) this.fault(path, at, message);
        return value;
      }
      if (!result.replaced || !plain) return result.text;
      const resolved = resolvePlain(result.text);
      if (typeof resolved !== "string") this.texts.set(pathId(path), result.text);
      return resolved;
    }
    if (value === null || typeof value === "number" || typeof value === "boolean") return value;
    this.fault(path, at, "is a kind of value that a configuration does not have; put it in quotes");
    return null;
  }

  private readMap(map: YAMLMap, path: Path, taken: ReadonlySet<string> = new Set()): Mapping {
    // Without a prototype, "constructor" and its like are ordinary unknown keys.
    const result: Mapping = Object.create(null);
    const merged: Node[] = [];
    for (const pair of map.items) {
      const keyNode = isNode(pair.key) ? pair.key : null;
      const node = isNode(pair.value) ? pair.value : null;
      const at = offsetOf(keyNode ?? map);
      const key = this.readKey(keyNode, path, at);
      if (key === undefined || taken.has(key)) continue;
      const inner = [...path, key];
      if (key === MERGE_KEY && node !== null) {
        merged.push(node);
      } else if (key in result) {
        const { line } = this.lines.positionOf(this.keys.get(pathId(inner)) ?? 0);
        this.fault(inner, at, `is set twice; first on line ${line}`);
      } else {
        this.keys.set(pathId(inner), at);
        // An empty value stands wherever the next thing begins; its key is what one sees.
        const isEmpty = isScalar(node) && node.value === null && node.source === "";
        result[key] = this.read(node, inner, isEmpty ? at : undefined);
      }
    }
    for (const source of merged) this.merge(source, result, path);
    return result;
  }

  private readKey(key: Node | null, path: Path, at: number): string | undefined {
    const target = isAlias(key) ? this.anchors.get(key.source) : key;
    const value: unknown = isScalar(target) ? target.value : undefined;
    if (isScalar(key) && key.anchor !== undefined) this.anchors.set(key.anchor, key);
    // YAML 1.1 files read << as a symbol.
    if (typeof value === "symbol") return MERGE_KEY;
    if (value === "__proto__") this.fault(path, at, "__proto__ cannot be a key");
    else if (typeof value === "string") return value;
    else if (typeof value === "number" || typeof value === "boolean") return String(value);
    else this.fault(path, at, "a key must be a word or a number");
    return undefined;
  }

  /** `<<: *name`: the keys of another mapping, or of several, where they are not set here. */
  private merge(source: Node, into: Mapping, path: Path): void {
    const target = isAlias(source) ? this.anchors.get(source.source) : source;
    if (isSeq(target)) {
      for (const item of target.items) if (isNode(item)) this.merge(item, into, path);
      return;
    }
    if (!isMap(target) || this.open.has(target)) {
      this.fault(path, offsetOf(source), MERGE_HELP);
      return;
    }
    this.aliasDepth++;
    this.open.add(target);
    Object.assign(into, this.readMap(target, path, new Set(Object.keys(into))));
    this.open.delete(target);
    this.aliasDepth--;
  }

  private fault(path: Path, offset: number, message: string): void {
    this.faults.push({ path, offset, message });
  }
}

function nearestOffset(values: ReadonlyMap<string, number>, path: Path): number {
  for (let length = path.length; length > 0; length--) {
    const offset = values.get(pathId(path.slice(0, length)));
    if (offset !== undefined) return offset;
  }
  return values.get(pathId([])) ?? 0;
}

const MERGE_KEY = "<<";
const MERGE_HELP = "<< takes an alias of a mapping, or a list of such";

function offsetOf(node: Node): number {
  return node.range?.[0] ?? 0;
}
