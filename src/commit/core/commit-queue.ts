import type { Gid, LogIndex } from '../../runtime/ids.ts';
import { CommitProgress } from './commit-progress.ts';

/** A COMMIT entry of the log on its way into this node's PostgreSQL. */
export interface DecidedCommit {
  readonly index: LogIndex;
  readonly gid: Gid;
  readonly database: string;
  /** Wall-clock milliseconds of the decision: the commit's origin timestamp. */
  readonly time: number;
  readonly dependsOn: LogIndex;
  /** Tell the origin at once when it is done here. */
  readonly notify: boolean;
}

/**
 * The log's COMMIT entries that this node's PostgreSQL has not committed yet, in log order. They are handed out strictly
 * in that order (I3), each as soon as it is prepared here; one that is not holds up all behind it.
 *
 * A snapshot stands for entries that were never read here. The queue knows which ones (`isComplete`), and does not claim
 * anything about them until they are committed in PostgreSQL or have been filled in.
 */
export class CommitQueue {
  #entries: DecidedCommit[] = [];
  #head = 0;
  /** The names of the entries from `#head` on. */
  readonly #names = new Set<Gid>();
  #committed = 0 as LogIndex;
  #handedOut = 0 as LogIndex;
  /** What PostgreSQL had when it came back: in the order "relaxed" that may be more than all up to `#committed`. */
  #found = new CommitProgress([]);
  #applied: LogIndex;
  /** Every COMMIT after this index and up to `#applied` was added. */
  #from: LogIndex;

  /** A queue whose log begins after a snapshot: its last COMMIT, and its index. */
  constructor(lastCommit: LogIndex, applied: LogIndex) {
    this.#from = lastCommit;
    this.#applied = applied;
  }

  /** Everything up to here is committed in PostgreSQL; entries that commit nothing count as soon as they are reached. */
  get committed(): LogIndex {
    if (!this.isComplete) return this.#committed;
    if (this.#head < this.#entries.length) return (this.#entries[this.#head].index - 1) as LogIndex;
    return Math.max(this.#committed, this.#applied) as LogIndex;
  }

  /** Whether no COMMIT can stand in the log that PostgreSQL lacks and this queue does not know of. */
  get isComplete(): boolean {
    return this.#committed >= this.#from;
  }

  /** The last COMMIT that the queue does not know of. */
  get from(): LogIndex {
    return this.#from;
  }

  /** The last COMMIT that PostgreSQL is known to have committed. */
  get postgres(): LogIndex {
    return this.#committed;
  }

  /** The highest index whose COMMIT PREPARED may have been sent. */
  get handedOut(): LogIndex {
    return Math.max(this.#handedOut, this.#found.highest) as LogIndex;
  }

  get length(): number {
    return this.#entries.length - this.#head;
  }

  has(gid: Gid): boolean {
    return this.#names.has(gid);
  }

  /** The entries still to be committed, oldest first. */
  *pending(): Iterable<DecidedCommit> {
    for (let i = this.#head; i < this.#entries.length; i++) yield this.#entries[i];
  }

  /** False if PostgreSQL has committed it already. */
  add(entry: DecidedCommit): boolean {
    if (this.#found.has(entry.index)) return false;
    this.#entries.push(entry);
    this.#names.add(entry.gid);
    return true;
  }

  /** The log has been read up to here. */
  applied(index: LogIndex): void {
    this.#applied = index;
  }

  /** The next entry to commit, if `isPrepared` says yes to it. Each is handed out once. */
  next(isPrepared: (entry: DecidedCommit) => boolean): DecidedCommit | undefined {
    if (!this.isComplete) return undefined;
    for (let i = this.#head; i < this.#entries.length; i++) {
      const entry = this.#entries[i];
      if (entry.index <= this.#handedOut) continue;
      if (!isPrepared(entry)) return undefined;
      this.#handedOut = entry.index;
      return entry;
    }
    return undefined;
  }

  /** PostgreSQL has committed everything up to `index`. */
  done(index: LogIndex): void {
    if (index < this.#committed) {
      throw new Error(`I7 violated: committed index went back from ${this.#committed} to ${index}`);
    }
    this.#committed = index;
    while (this.#head < this.#entries.length && this.#entries[this.#head].index <= index) {
      this.#names.delete(this.#entries[this.#head].gid);
      this.#head++;
    }
    if (this.#head > 1024 && this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  /**
   * PostgreSQL came back: everything up to `committed` is committed, and of what comes later what `found` says. Nothing else
   * is under way any more.
   */
  recovered(committed: LogIndex, found: CommitProgress): void {
    this.done(committed);
    this.#handedOut = committed;
    this.#found = found;
    this.#replace([...this.pending()]);
  }

  /** All that is to be committed, but for what PostgreSQL has committed. */
  #replace(entries: readonly DecidedCommit[]): void {
    this.#entries = entries.filter(({ index }) => !this.#found.has(index));
    this.#head = 0;
    this.#names.clear();
    for (const { gid } of this.#entries) this.#names.add(gid);
  }

  /** A snapshot took the place of the log's entries up to `applied`. What is to be committed has to be filled in anew. */
  skip(lastCommit: LogIndex, applied: LogIndex): void {
    this.#entries = [];
    this.#head = 0;
    this.#names.clear();
    this.#from = lastCommit;
    this.#applied = applied;
  }

  /** The COMMIT entries between what PostgreSQL has committed and `from`, oldest first, out of a donor's history. */
  fill(entries: readonly DecidedCommit[]): void {
    let last = this.#committed;
    for (const { index } of entries) {
      if (index <= last || index > this.#from) throw new Error(`log entry ${index} is not in the gap`);
      last = index;
    }
    if (last !== this.#from) throw new Error(`the gap up to ${this.#from} was filled up to ${last} only`);
    this.#replace([...entries, ...this.pending()]);
    this.#from = this.#committed;
  }
}
