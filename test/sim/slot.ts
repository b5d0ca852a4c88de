import type { Tx } from './locks.ts';

/**
 * The slot through which a proxy reads its server's WAL at once. Durable; it can be lost. A new one hands over what is prepared when it is there, by
 * transactions that began after it was asked for; of others it has a part of the changes only.
 */
export class LiveSlot {
  #asked = 1;
  #made = 1;

  get isThere(): boolean {
    return this.#made === this.#asked;
  }

  /** Dropped, or given up by the server. One that is being made is nobody's yet. */
  lose(): void {
    this.#made = 0;
  }

  /** Returns what `make` wants to know later. */
  ask(): number {
    this.#made = 0;
    return ++this.#asked;
  }

  /** Too late for one that was lost, or asked for again, in between. */
  make(asked: number): void {
    if (asked === this.#asked) this.#made = asked;
  }

  begun(tx: Tx): void {
    tx.slot = this.#asked;
  }

  /** Before it was there nobody read that. */
  prepared(tx: Tx): void {
    if (!this.isThere) tx.slot = 0;
  }

  handsOver(tx: Tx): boolean {
    return this.isThere && tx.slot === this.#asked;
  }
}
