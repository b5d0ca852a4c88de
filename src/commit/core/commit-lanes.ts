import type { LogIndex } from '../../runtime/ids.ts';
import { COMMIT_WINDOW } from './commit-progress.ts';
import type { DecidedCommit } from './commit-queue.ts';

/** An entry, and which of the committers has to commit it, after all that it was given before. */
export interface Assigned {
  readonly lane: number;
  readonly entry: DecidedCommit;
}

/**
 * Deals the commits out to one or several lanes, entry i to lane i mod their number, none too far ahead of the oldest that is
 * under way; and tells in log order how far all of them have come.
 */
export class CommitLanes {
  readonly #lanes: number;
  #waiting: DecidedCommit[] = [];
  /** Dealt out and not reported, in log order; and which of them are committed. */
  #underWay: LogIndex[] = [];
  readonly #done = new Set<LogIndex>();
  #held = false;

  constructor(lanes: number) {
    this.#lanes = lanes;
  }

  /** In log order. */
  add(entry: DecidedCommit): Assigned[] {
    this.#waiting.push(entry);
    return this.#deal();
  }

  /** A lane has committed this. What is now committed up to where all is, oldest first, and what may begin. */
  done(index: LogIndex): { readonly reported: readonly LogIndex[]; readonly assigned: readonly Assigned[] } {
    this.#done.add(index);
    let count = 0;
    while (count < this.#underWay.length && this.#done.delete(this.#underWay[count])) count += 1;
    const reported = this.#underWay.splice(0, count);
    return { reported, assigned: this.#deal() };
  }

  /** Nothing more is dealt out until `resume`. */
  hold(): void {
    this.#held = true;
  }

  /** What may begin now. */
  resume(): Assigned[] {
    this.#held = false;
    return this.#deal();
  }

  /** What has not been dealt out is given up. */
  stop(): void {
    this.#waiting = [];
  }

  #deal(): Assigned[] {
    const assigned: Assigned[] = [];
    if (this.#held) return assigned;
    for (const entry of this.#waiting) {
      if (this.#isFarAhead(entry.index)) break;
      this.#underWay.push(entry.index);
      assigned.push({ lane: entry.index % this.#lanes, entry });
    }
    this.#waiting.splice(0, assigned.length);
    return assigned;
  }

  /** Who reads the WAL must know when nothing older comes any more. */
  #isFarAhead(index: LogIndex): boolean {
    return this.#lanes > 1 && this.#underWay.length > 0 && index - this.#underWay[0] >= COMMIT_WINDOW;
  }
}
