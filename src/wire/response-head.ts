/**
 * A strict parser for the head of an upstream's answer to the upgrade request (RFC 9112 §4, §5).
 * Strict, because what it lets through is shown to a client: no folded lines, no bare LF, no control
 * characters, bounded in size and in number of headers.
 */

/** As much as Node's own parser takes by default. */
export const MAX_HEAD_BYTES = 16 * 1024;
const MAX_HEADERS = 128;

export interface ResponseHead {
  readonly status: number;
  readonly statusText: string;
  /** In order, names as they came. */
  readonly headers: readonly (readonly [name: string, value: string])[];
}

const STATUS_LINE = /^HTTP\/1\.1 ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/;
const HEADER_LINE = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)$/;

/** Index behind the empty line that ends the head; -1: not there yet. */
export function endOfHead(bytes: Buffer): number {
  const at = bytes.indexOf("\r\n\r\n", 0, "latin1");
  return at === -1 ? -1 : at + 4;
}

/** The head in `bytes` (up to and with the empty line), or why it is not one. */
export function parseResponseHead(bytes: Buffer): ResponseHead | string {
  const lines = bytes.toString("latin1", 0, bytes.length - 4).split("\r\n");
  const statusLine = STATUS_LINE.exec(lines[0] ?? "");
  if (statusLine === null) return "malformed status line";
  if (lines.length - 1 > MAX_HEADERS) return `more than ${MAX_HEADERS} headers`;
  const headers: [string, string][] = [];
  for (let i = 1; i < lines.length; i += 1) {
    const header = HEADER_LINE.exec(lines[i] ?? "");
    if (header === null) return "malformed header line";
    headers.push([header[1] ?? "", (header[2] ?? "").trimEnd()]);
  }
  return { status: Number(statusLine[1]), statusText: statusLine[2] ?? "", headers };
}

/** All values of a header, joined as RFC 9110 §5.3 allows; undefined: not there. `name` in lower case. */
export function headerValue(head: ResponseHead, name: string): string | undefined {
  let joined: string | undefined;
  for (const [key, value] of head.headers) {
    if (key.length !== name.length || key.toLowerCase() !== name) continue;
    joined = joined === undefined ? value : `${joined}, ${value}`;
  }
  return joined;
}

/** Whether a comma-separated header contains a token, case-insensitively. `token` in lower case. */
export function hasToken(value: string | undefined, token: string): boolean {
  if (value === undefined) return false;
  return value.split(",").some((part) => part.trim().toLowerCase() === token);
}
