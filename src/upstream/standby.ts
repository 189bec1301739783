/**
 * A connection that stands by until its session can take it: dialled before the old upstream is left.
 * It may die meanwhile; then it is not there to be taken.
 */
import { type Connected, discardConnection } from "./connect.ts";

export class Standby {
  readonly #connected: Connected;
  readonly #onDead: () => void;
  #state: "waiting" | "taken" | "dead" = "waiting";

  /** `onDead` is called at most once, while it waits. */
  constructor(connected: Connected, onDead: () => void) {
    this.#connected = connected;
    this.#onDead = onDead;
    const { socket } = connected.connection.upstream;
    socket.on("error", this.#die);
    socket.on("close", this.#die);
  }

  /** The connection, which is the caller's from here on; null: it has died or was taken. */
  take(): Connected | null {
    if (this.#state !== "waiting") return null;
    this.#state = "taken";
    const { socket } = this.#connected.connection.upstream;
    socket.removeListener("error", this.#die);
    socket.removeListener("close", this.#die);
    return this.#connected;
  }

  /** Nobody will take it: closes it and gives its slot back. */
  discard(): void {
    const connected = this.take();
    if (connected !== null) discardConnection(connected.connection, connected.slot);
  }

  readonly #die = (): void => {
    if (this.#state !== "waiting") return;
    this.#connected.slot.judge("bad");
    this.discard();
    this.#state = "dead";
    this.#onDead();
  };
}
