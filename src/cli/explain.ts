/**
 * `softclose explain CODE [CODE]`: a close code, or two of them side by side, as plain text. What it
 * says stands in the close folder; here it is only laid out.
 */
import { isSendable } from "../close/causes.ts";
import { type CodeInfo, causesSending, codeInfo } from "../close/codes.ts";
import { compareCodes } from "../close/comparisons.ts";
import { IDLE_LIMITS, LIFETIME_ADVICE } from "../close/idle-limits.ts";

export { explainShort } from "../close/codes.ts";

/** Where the lines go; stdout and stderr, or a test. */
export interface ExplainIo {
  out(line: string): void;
  err(line: string): void;
}

/** Prints what one code means, or how two differ. Returns the exit code: 0, or 64 for bad usage. */
export function explain(codes: readonly string[], io: ExplainIo): number {
  const [first, second, ...more] = codes;
  if (first === undefined || more.length > 0) {
    io.err("explain: give one close code, or two to compare: softclose explain 1006 1013");
    return BAD_USAGE;
  }
  const wrong = [first, second].find((text) => text !== undefined && problemWith(text) !== null);
  if (wrong !== undefined) {
    io.err(`explain: ${problemWith(wrong)}`);
    return BAD_USAGE;
  }
  const lines =
    second === undefined || second === first
      ? inFull(Number(first))
      : sideBySide(Number(first), Number(second));
  for (const line of lines) io.out(line);
  return 0;
}

const BAD_USAGE = 64;
/** Reads well in a terminal of 90 columns; the table of idle limits fits it too. */
const WIDTH = 88;
const LABEL_WIDTH = 11;

const ASSIGNED = "assigned are 1000 to 1015, 3000 to 3999 and 4000 to 4999";

/** Why a text is no code that can be explained; null: it is one. */
function problemWith(text: string): string | null {
  if (!/^\d{1,5}$/.test(text)) {
    return `${JSON.stringify(text)} is not a close code: it has to be a number; ${ASSIGNED}`;
  }
  const code = Number(text);
  if (codeInfo(code) !== null) return null;
  if (code >= 1016 && code <= 2999) {
    return `${code} has no meaning yet: 1016 to 2999 are kept for the protocol's future; ${ASSIGNED}`;
  }
  return `${code} is not a close code; ${ASSIGNED}`;
}

function inFull(code: number): string[] {
  const info = codeInfo(code);
  if (info === null) return [];
  return [
    title(code, info),
    "",
    ...labelled("Meaning", info.meaning),
    ...labelled("Seen when", info.seen),
    ...labelled("Client", info.client),
    ...labelled("Operator", info.ops),
    ...(code === 1006 ? idleLimits() : []),
    ...labelled("Reconnect", RECONNECT[info.retry]),
    ...labelled("Send it", `${capitalized(info.use)}.`),
    ...labelled("softclose", info.gateway),
    ...senders(code),
  ];
}

function sideBySide(first: number, second: number): string[] {
  const comparison = compareCodes(first, second);
  if (comparison === null) return [];
  return [
    ...inBrief(first),
    "",
    ...inBrief(second),
    "",
    "How they differ",
    "",
    ...wrapped(comparison.differ, "  "),
    "",
    "When to use which",
    "",
    ...wrapped(comparison.use, "  "),
  ];
}

function inBrief(code: number): string[] {
  const info = codeInfo(code);
  if (info === null) return [];
  return [
    title(code, info),
    "",
    ...labelled("Meaning", info.meaning),
    ...labelled("Seen when", info.seen),
    ...labelled("Client", info.client),
    ...labelled("Operator", info.ops),
    ...senders(code),
  ];
}

const RECONNECT: Readonly<Record<CodeInfo["retry"], string>> = {
  done: "No; nothing is left to do.",
  change: "Not unchanged: the next connection would end the same way.",
  backoff: "Yes: after a random delay, then with exponential back-off.",
  application: "The application that sent it decides.",
};

function title(code: number, info: CodeInfo): string {
  const range = info.first === info.last ? "" : ` (${info.first} to ${info.last})`;
  const wire = isSendable(code) ? "" : ", never on the wire";
  return `${code}  ${info.name}${range}${wire}`;
}

/** Which of the gateway's causes send it, from the default close table. */
function senders(code: number): string[] {
  const client = causesSending(code, "client").join(", ");
  const upstream = causesSending(code, "upstream").join(", ");
  if (client === "" && upstream === "") return labelled("Causes", "None sends it by default.");
  return [
    ...(client === "" ? [] : labelled("Causes", `To the client: ${client}.`)),
    ...labelled(client === "" ? "Causes" : "", upstream && `To the upstream: ${upstream}.`),
  ];
}

function idleLimits(): string[] {
  const hopWidth = Math.max(...IDLE_LIMITS.map(({ hop }) => hop.length)) + 2;
  const rows = IDLE_LIMITS.map(
    ({ hop, limit, note }) => `${hop.padEnd(hopWidth)}${limit.padEnd(7)} ${note}`,
  );
  return [
    ...labelled("Idle limits", "How long a quiet connection lives by default:"),
    ...rows.map((row) => " ".repeat(LABEL_WIDTH + 4) + row),
    ...labelled("", LIFETIME_ADVICE),
  ];
}

function labelled(label: string, text: string): string[] {
  const indent = " ".repeat(LABEL_WIDTH + 4);
  return wrapped(text, indent).map((line, index) =>
    index === 0 ? `  ${label.padEnd(LABEL_WIDTH + 2)}${line.slice(indent.length)}` : line,
  );
}

function wrapped(text: string, indent: string): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && indent.length + line.length + 1 + word.length > WIDTH) {
      lines.push(indent + line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  if (line !== "") lines.push(indent + line);
  return lines;
}

function capitalized(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
