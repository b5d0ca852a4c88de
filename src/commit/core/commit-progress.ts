import type { LogIndex } from '../../runtime/ids.ts';

/**
 * How far one commit may overtake another in the order "relaxed", in log entries: what is read behind it in the WAL has an index
 * above its own less this.
 */
export const COMMIT_WINDOW = 64;

/** Positions of the origins of one set of committers: that of lane i is the last index ≡ i (mod their number) that it committed. */
export type LanePositions = readonly LogIndex[];

/**
 * What the positions of the committers' origins prove. Each lane commits in log order, so all its entries up to its position are
 * committed, whichever set of committers they were left to: `commit.order` and the number of committers may change from
 * one run to the next, and an entry that another set has committed is passed over. In the order "strict" there is one
 * lane, whose position says it all; in the order "relaxed" it is moved on from time to time.
 */
export class CommitProgress {
  readonly #sets: readonly LanePositions[];
  /** Every COMMIT up to here is committed. Nothing speaks against the next one: the entries between two commits bear none. */
  readonly contiguous: LogIndex;

  constructor(sets: readonly LanePositions[]) {
    this.#sets = sets;
    let index = Math.max(0, ...sets.map(reach));
    while (this.has((index + 1) as LogIndex)) index += 1;
    this.contiguous = index as LogIndex;
  }

  /** Whether the COMMIT that stands at this index, if one does, is committed. */
  has(index: LogIndex): boolean {
    return this.#sets.some((positions) => positions[index % positions.length] >= index);
  }

  /** The highest index that is committed. */
  get highest(): LogIndex {
    return Math.max(0, ...this.#sets.flat()) as LogIndex;
  }

  /**
   * Up to where a single committer that has come to `index` since then leaves no doubt, however PostgreSQL is found next. It says so of everything when
   * it has passed what several committers left behind: of an entry between two of theirs their positions do not tell whether it bore a commit.
   */
  provenBy(index: LogIndex): LogIndex {
    const { contiguous, highest } = this;
    if (highest <= contiguous || index >= highest) return Infinity as LogIndex;
    return Math.max(contiguous, index) as LogIndex;
  }
}

/** The index before the first that some lane has not reached. */
function reach(positions: LanePositions): number {
  const { length } = positions;
  const next = (position: number, lane: number): number =>
    position + 1 + ((((lane - position - 1) % length) + length) % length);
  return Math.min(...positions.map(next)) - 1;
}
