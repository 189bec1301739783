/**
 * An accepted socket behind an upgrade, as a source of bytes: first for the bytes that come before the
 * session stands, then for the session's leg.
 */
import type { Socket } from "node:net";
import type { ChunkHolder, LegSocket } from "../session/leg.ts";

const kClientSocket = Symbol("clientSocket");

interface AttachedSocket extends Socket {
  [kClientSocket]?: ClientSocket;
}

export class ClientSocket implements LegSocket {
  readonly socket: Socket;
  receiver: { received(chunk: Buffer): ChunkHolder | null } | null = null;

  constructor(socket: Socket) {
    this.socket = socket;
    const attached: AttachedSocket = socket;
    attached[kClientSocket] = this;
    socket.on("data", socketOnData);
    socket.on("error", socketOnError);
  }

  /** Hands the socket over to somebody who reads it himself. */
  detach(): void {
    this.receiver = null;
    this.socket.removeListener("data", socketOnData);
  }
}

function socketOnData(this: AttachedSocket, chunk: Buffer): void {
  this[kClientSocket]?.receiver?.received(chunk);
}

/** What breaks is told by `close`, which follows; without a listener the process would end instead. */
function socketOnError(): void {}
