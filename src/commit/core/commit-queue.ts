import type { Gid, LogIndex } from '../../runtime/ids.ts';

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
 */
export class CommitQueue {
  #entries: DecidedCommit[] = [];
  #head = 0;
  #committed = 0 as LogIndex;
  #handedOut = 0 as LogIndex;
  #applied = 0 as LogIndex;

  /** Everything up to here is committed in PostgreSQL; entries that commit nothing count as soon as they are reached. */
  get committed(): LogIndex {
    return this.#head === this.#entries.length ? (Math.max(this.#committed, this.#applied) as LogIndex) : this.#committed;
  }

  /** The highest index whose COMMIT PREPARED may have been sent. */
  get handedOut(): LogIndex {
    return this.#handedOut;
  }

  get length(): number {
    return this.#entries.length - this.#head;
  }

  has(gid: Gid): boolean {
    for (let i = this.#head; i < this.#entries.length; i++) if (this.#entries[i].gid === gid) return true;
    return false;
  }

  /** The entries still to be committed, oldest first. */
  *pending(): Iterable<DecidedCommit> {
    for (let i = this.#head; i < this.#entries.length; i++) yield this.#entries[i];
  }

  add(entry: DecidedCommit): void {
    this.#entries.push(entry);
  }

  /** The log has been read up to here. */
  applied(index: LogIndex): void {
    this.#applied = index;
  }

  /** The next entry to commit, if `isPrepared` says yes to it. Each is handed out once. */
  next(isPrepared: (entry: DecidedCommit) => boolean): DecidedCommit | undefined {
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
    if (index < this.#committed) throw new Error(`I7 violated: committed index went back from ${this.#committed} to ${index}`);
    this.#committed = index;
    while (this.#head < this.#entries.length && this.#entries[this.#head].index <= index) this.#head++;
    if (this.#head > 1024 && this.#head * 2 > this.#entries.length) {
      this.#entries = this.#entries.slice(this.#head);
      this.#head = 0;
    }
  }

  /** PostgreSQL came back: what it says it has committed is true, and nothing beyond is under way any more. */
  recovered(committed: LogIndex): void {
    this.done(committed);
    this.#handedOut = committed;
  }
}
