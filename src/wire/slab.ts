/**
 * Recycled memory for bytes that wait: chunks that a socket has not sent yet, large partial frames. V8
 * lets 32 MiB of dead buffers gather before it collects the first; a gateway that is busy would carry
 * them all the time.
 */

/** A read of 64 KiB, or a held frame with 64 KiB of payload and its header. */
export const SLAB_BYTES = 64 * 1024 + 64;
/** Slabs that wait for their next use; more are left to the garbage collector. */
const MAX_FREE_SLABS = 64;

/** A piece of memory and how many need something in it. At zero it goes back to its pool. */
export class Slab {
  readonly bytes = Buffer.allocUnsafeSlow(SLAB_BYTES);
  readonly #free: Slab[];
  #pins = 0;

  constructor(free: Slab[]) {
    this.#free = free;
  }

  /** Needed by one only: who asks. */
  get isOnlyMine(): boolean {
    return this.#pins === 1;
  }

  pin(): void {
    this.#pins += 1;
  }

  unpin(): void {
    this.#pins -= 1;
    if (this.#pins === 0 && this.#free.length < MAX_FREE_SLABS) this.#free.push(this);
  }
}

export class SlabPool {
  readonly #free: Slab[] = [];

  /** A slab that the caller has pinned. */
  take(): Slab {
    const slab = this.#free.pop() ?? new Slab(this.#free);
    slab.pin();
    return slab;
  }
}
