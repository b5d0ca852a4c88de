/**
 * How far the leader of two nodes takes the referee's log: as far as its own, but no further than the other node's while that one keeps up.
 * Otherwise, were the leader to die at that moment, the referee would stand for entries that the other node lacks, and would not let it lead.
 */
import type { LogIndex } from '../../runtime/ids.ts';
import type { DurableEntry } from './referee.ts';

const NOTHING: DurableEntry = { term: 0, index: 0 as LogIndex };

export class ToldPosition {
  readonly #patience: number;
  #stored: DurableEntry = NOTHING;
  /** An entry of the same term; every one between the two is of it as well. */
  #firstOfTerm = 0 as LogIndex;
  #accepted: DurableEntry = NOTHING;
  #heard = -Infinity;
  #keptUp = -Infinity;

  /** `patience`: milliseconds that the other node may be silent, or behind. Times are of any clock that never goes back. */
  constructor(patience: number) {
    this.#patience = patience;
  }

  /** The leader's own disk has entries up to this one. */
  stored(entry: DurableEntry, now: number): void {
    if (entry.term !== this.#stored.term) this.#firstOfTerm = entry.index;
    if (this.#isLevel) this.#keptUp = now;
    this.#stored = entry;
  }

  /** The other node has answered its leader. */
  heard(now: number): void {
    this.#heard = now;
    if (this.#isLevel) this.#keptUp = now;
  }

  /** The other node's disk has entries up to `match`, as it told the leader of `term`. */
  accepted(term: number, match: LogIndex, now: number): void {
    if (match > this.#accepted.index || term > this.#accepted.term) {
      this.#accepted = { term, index: match };
      this.#keptUp = now;
    }
    this.heard(now);
  }

  peerKeepsUp(now: number): boolean {
    return now - this.#heard < this.#patience && now - this.#keptUp < this.#patience;
  }

  /** The last entry for the referee's log; it is only asked for as far as it is of the leader's present term, see `lead`. */
  at(now: number): DurableEntry {
    if (!this.peerKeepsUp(now)) return this.#stored;
    const { term, index } = this.#accepted;
    if (term !== this.#stored.term || index < this.#firstOfTerm) return NOTHING;
    return index < this.#stored.index ? { term, index } : this.#stored;
  }

  get #isLevel(): boolean {
    return this.#accepted.term === this.#stored.term && this.#accepted.index >= this.#stored.index;
  }
}
