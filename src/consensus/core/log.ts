/**
 * The log in memory: a snapshot, then entries. All entries after `base` are here, so memory is bounded by how often the
 * layer above compacts. Every change is also noted for storage and collected once per step by `takeUnsaved`.
 */
import type { LogIndex } from '../../runtime/ids.ts';
import { invariant } from './invariant.ts';
import type { Entry, PersistBatch, Snapshot } from './types.ts';

type Unsaved = Pick<PersistBatch, 'truncateFrom' | 'snapshot' | 'entries'>;

const at = (n: number): LogIndex => n as LogIndex;

export class RaftLog {
  /** The position before the first entry held; at or below the snapshot, which may trail some retained entries. */
  #base: { index: LogIndex; term: number };
  #entries: Entry[];
  #snapshot: Snapshot | null;
  /** Only rises. Everything up to here is the same on a majority for ever, so it is never truncated. */
  #commit: LogIndex;
  #uncommittedBytes = 0;
  #truncateFrom: LogIndex | null = null;
  #unsaved: Entry[] = [];
  #received: Snapshot | null = null;

  constructor(snapshot: Snapshot | null, entries: readonly Entry[]) {
    this.#snapshot = snapshot;
    this.#base = { index: snapshot?.index ?? at(0), term: snapshot?.term ?? 0 };
    this.#commit = this.#base.index;
    this.#entries = [];
    for (const entry of entries) this.#push(entry);
  }

  get firstIndex(): LogIndex {
    return at(this.#base.index + 1);
  }

  get lastIndex(): LogIndex {
    return at(this.#base.index + this.#entries.length);
  }

  get lastTerm(): number {
    return this.#entries.at(-1)?.term ?? this.#base.term;
  }

  get commit(): LogIndex {
    return this.#commit;
  }

  /** Payload bytes of the entries after the commit index. */
  get uncommittedBytes(): number {
    return this.#uncommittedBytes;
  }

  get snapshot(): Snapshot | null {
    return this.#snapshot;
  }

  /** Null where the entry is compacted away or not written yet; 0 before the first entry. */
  termAt(index: LogIndex): number | null {
    if (index === this.#base.index) return this.#base.term;
    return this.#entries[index - this.#base.index - 1]?.term ?? null;
  }

  /** Both ends included; as many as fit into `maxBytes` of payload, but at least one. */
  slice(from: LogIndex, to: LogIndex, maxBytes = Infinity): Entry[] {
    invariant(from >= this.firstIndex && to <= this.lastIndex, () => `entries ${from} to ${to} are not in the log`);
    const start = from - this.firstIndex;
    const limit = to - this.firstIndex + 1;
    let end = start;
    for (let bytes = 0; end < limit; end++) {
      bytes += this.#entries[end].payload.length;
      if (bytes > maxBytes && end > start) break;
    }
    return this.#entries.slice(start, end);
  }

  /** True if a log ending in (index, term) holds all that this one could have committed (section 3.6.1). */
  isUpToDate(index: LogIndex, term: number): boolean {
    return term > this.lastTerm || (term === this.lastTerm && index >= this.lastIndex);
  }

  /**
   * The last position at or before `index` whose term is at most `term`: nothing between could match a log that has
   * `term` at `index`. Positions that are compacted away are not looked into: their term is unknown (null).
   */
  lastNotAfter(index: LogIndex, term: number): { index: LogIndex; term: number | null } {
    for (let i = Math.min(index, this.lastIndex); i >= 0; i--) {
      const own = this.termAt(at(i));
      if (own === null || own <= term) return { index: at(i), term: own };
    }
    return { index: at(0), term: 0 };
  }

  /** A leader's own entry. */
  append(term: number, payload: Uint8Array): Entry {
    const entry = { index: at(this.lastIndex + 1), term, payload };
    this.#push(entry);
    this.#unsaved.push(entry);
    return entry;
  }

  /**
   * A follower takes over a leader's entries, which follow a position that matches. Entries already here are kept, even
   * if more follow them: the message may be an old one (section 3.5).
   */
  merge(entries: readonly Entry[]): void {
    const fresh = entries.findIndex((entry) => this.termAt(entry.index) !== entry.term);
    if (fresh === -1) return;
    const from = entries[fresh].index;
    if (from <= this.lastIndex) {
      invariant(from > this.#commit, () => `entry ${from} is to be replaced but ${this.#commit} is committed`);
      for (const gone of this.#entries.splice(from - this.firstIndex)) this.#uncommittedBytes -= gone.payload.length;
      this.#truncateFrom = from;
    }
    for (const entry of entries.slice(fresh)) {
      this.#push(entry);
      this.#unsaved.push(entry);
    }
  }

  commitTo(index: LogIndex): void {
    invariant(index >= this.#commit, () => `commit index falls from ${this.#commit} to ${index}`);
    invariant(index <= this.lastIndex, () => `commit index ${index} is past the log's end ${this.lastIndex}`);
    for (let i = this.#commit + 1; i <= index; i++) {
      this.#uncommittedBytes -= this.#entries[i - this.firstIndex].payload.length;
    }
    this.#commit = index;
  }

  /** Forgets everything in favour of a leader's snapshot, which is ahead of what is known to be committed here. */
  reset(snapshot: Snapshot): void {
    invariant(snapshot.index > this.#commit, () => `snapshot ${snapshot.index} is behind commit ${this.#commit}`);
    this.#snapshot = snapshot;
    this.#base = { index: snapshot.index, term: snapshot.term };
    this.#entries = [];
    this.#commit = snapshot.index;
    this.#uncommittedBytes = 0;
    this.#received = snapshot;
  }

  /** Puts the layer above's state in place of the entries up to `index`, of which the last `retain` stay readable. */
  compact(index: LogIndex, state: Uint8Array, retain: number): Snapshot {
    const term = this.termAt(index);
    invariant(term !== null && index <= this.#commit, () => `cannot compact to ${index}, commit is ${this.#commit}`);
    invariant(index > (this.#snapshot?.index ?? 0), () => `compacting to ${index} twice`);
    const snapshot = { index, term, state };
    this.#snapshot = snapshot;
    const base = at(Math.max(this.#base.index, index - retain));
    const baseTerm = this.termAt(base);
    invariant(baseTerm !== null, 'the log has no entry at its new base');
    this.#entries = this.#entries.slice(base - this.#base.index);
    this.#base = { index: base, term: baseTerm };
    return snapshot;
  }

  takeUnsaved(): Unsaved {
    const taken = { truncateFrom: this.#truncateFrom, snapshot: this.#received, entries: this.#unsaved };
    this.#truncateFrom = null;
    this.#received = null;
    this.#unsaved = [];
    return taken;
  }

  #push(entry: Entry): void {
    invariant(entry.index === this.lastIndex + 1, () => `entry ${entry.index} after ${this.lastIndex}`);
    invariant(entry.term >= this.lastTerm, () => `entry ${entry.index} has term ${entry.term} after ${this.lastTerm}`);
    this.#entries.push(entry);
    this.#uncommittedBytes += entry.payload.length;
  }
}
