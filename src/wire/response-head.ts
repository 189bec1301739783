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

// HTTP/1.0 can say no (many small servers and old proxies do) but cannot switch protocols.
const STATUS_LINE = /^HTTP\/1\.(?:1(?= )|0(?= [2-5])) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/;
// The value begins with a visible character: were white space allowed in both places, a line of blanks
// with a bad end would take quadratic time.
const HEADER_LINE =
  /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*((?:[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*)?)$/;

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
    headers.push([header[1] ?? "", trimBlanks(header[2] ?? "")]);
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
  return value.split(",").some((part) => trimBlanks(part).toLowerCase() === token);
}

/** Optional white space of RFC 9110 §5.6.3. Not `trim`: 0xA0 is a blank to it, and here part of a value. */
function trimBlanks(text: string): string {
  let from = 0;
  let to = text.length;
  while (from < to && isBlank(text.charCodeAt(from))) from += 1;
  while (from < to && isBlank(text.charCodeAt(to - 1))) to -= 1;
  return text.slice(from, to);
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09;
}
