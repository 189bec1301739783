/**
 * Plain HTTP answers on a socket that Node's server has handed over with its upgrade. Each closes the
 * connection, and waits for the peer to close too, since a reset could overtake the answer.
 */
import { STATUS_CODES } from "node:http";
import type { Socket } from "node:net";

export interface HttpAnswer {
  readonly status: number;
  readonly headerLines: string;
  readonly body: Buffer;
}

/** How long a peer may take to read the answer and close. */
const LINGER_MS = 5_000;

export function textAnswer(
  status: number,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): HttpAnswer {
  let headerLines = "Content-Type: text/plain; charset=utf-8\r\n";
  for (const [name, value] of Object.entries(headers)) headerLines += `${name}: ${value}\r\n`;
  return { status, headerLines, body: Buffer.from(`${message}\n`) };
}

/** Writes the answer and closes. The socket has its error listener already. */
export function writeAnswer(socket: Socket, { status, headerLines, body }: HttpAnswer): void {
  const reason = STATUS_CODES[status] ?? "Unknown";
  const head = `HTTP/1.1 ${status} ${reason}\r\n${headerLines}Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  socket.end(Buffer.concat([Buffer.from(head, "latin1"), body]));
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
}
