import type { DecidedCommit } from '../commit/core/commit-queue.ts';
import type { ErrorReport } from '../commit/core/types.ts';
import type { Gid, LogIndex, NodeId } from '../runtime/ids.ts';
import type { Logger } from '../runtime/log.ts';
import type { HistoryPiece } from './messages.ts';
import { NoDonor, type HistoryClient } from './history-client.ts';
import { CatchUpTroubles, type Hopeless } from './catch-up-troubles.ts';
import type { ChangeSource } from './ports.ts';

/** Keeps what was read and waits to be replayed; see replication/spool.ts. */
export interface CatchUpSpool {
  begin(key: Gid): void;
  append(key: Gid, bytes: Buffer): boolean;
  complete(key: Gid): Buffer | undefined;
  settled(key: Gid): Promise<void>;
  read(key: Gid, offset: number, limit: number): Promise<{ bytes: Uint8Array; last: boolean }>;
  release(key: Gid): void;
}

export interface CatchUpOptions {
  readonly databases: readonly string[];
  readonly history: HistoryClient;
  readonly spool: CatchUpSpool;
  readonly log: Logger;
  /** How far this node's PostgreSQL has committed. */
  readonly committed: () => LogIndex;
  readonly apply: (gid: Gid, database: string, source: ChangeSource) => void;
  readonly caughtUp: (gid: Gid, index: LogIndex, database: string) => void;
  readonly gapFilled: (from: LogIndex, to: LogIndex, entries: readonly DecidedCommit[]) => void;
  /** Whether what this node needs is gone from the others' histories has changed. */
  readonly hopeless: (isSo: boolean) => void;
}

interface Available {
  readonly key: Gid;
  readonly gid: string;
  readonly data: Uint8Array | undefined;
}

interface Wanted {
  readonly gid: Gid;
  readonly database: string;
}

/** Where the reading of a database goes on. */
interface Cursor {
  after: LogIndex;
  /** When it last did, in monotonic milliseconds. */
  at: number;
  /** The donor is to begin at `after`, whatever it has given out: not all of that is here. */
  fresh: boolean;
  /** The transaction whose last part is still to come, and how many bytes of it are here. */
  partial: { readonly key: Gid; length: number } | undefined;
}

/** Bytes of one answer; transactions read ahead of their turn; pauses, in milliseconds. */
const ANSWER_SIZE = 1024 * 1024;
const READ_AHEAD = 1000;
const RETRY_DELAY = 500;
const STALE_AFTER = 10_000;

/**
 * Brings in what the others committed without this node: reads a donor's history, and replays each transaction when
 * the core asks for it, which it does as soon as all that the transaction depends on is committed. So independent
 * transactions are replayed in parallel, and the commits still run in log order.
 */
export class CatchUp {
  readonly #options: CatchUpOptions;
  readonly #wanted = new Map<LogIndex, Wanted>();
  readonly #available = new Map<LogIndex, Available>();
  readonly #applying = new Map<Gid, LogIndex>();
  readonly #cursors = new Map<string, Cursor>();
  readonly #running = new Set<string>();
  #stopped = false;
  #bytesRead = 0;
  readonly #troubles: CatchUpTroubles;

  constructor(options: CatchUpOptions) {
    this.#options = options;
    this.#troubles = new CatchUpTroubles(() => performance.now(), options.hopeless);
  }

  /** Why no donor can help, while that is so. */
  get problem(): string | undefined {
    return this.#troubles.problem;
  }

  /** Donors have said that what this node needs is not in their history any more; undefined while one of them helps. */
  get hopeless(): Hopeless | undefined {
    return this.#troubles.hopeless;
  }

  /** Bytes of changes read from donors since the program started. */
  get bytesRead(): number {
    return this.#bytesRead;
  }

  /** The log commits this, everything it depends on is committed here, and it is not prepared here. */
  need(index: LogIndex, gid: Gid, database: string): void {
    this.#wanted.set(index, { gid, database });
    this.#tryApply(index);
    this.#read(database);
  }

  /** Nobody asks for it any more. */
  drop(gid: Gid): void {
    for (const [index, wanted] of this.#wanted) if (wanted.gid === gid) this.#wanted.delete(index);
  }

  /** True when the replay was one of catch-up's. */
  onApplied(gid: Gid, error: ErrorReport | undefined): boolean {
    const index = this.#applying.get(gid);
    if (index === undefined) return false;
    this.#applying.delete(gid);
    const wanted = this.#wanted.get(index);
    if (wanted?.gid !== gid) return true;
    if (error === undefined) {
      this.#wanted.delete(index);
      this.#release(index);
      this.#options.caughtUp(gid, index, wanted.database);
    } else {
      // A deadlock, or a lock that somebody has to be talked out of; anything else will be told again and again.
      this.#options.log.warn({ gid, index, error }, 'a committed transaction could not be replayed yet');
      setTimeout(() => this.#tryApply(index), error.sqlstate === '40P01' ? 0 : RETRY_DELAY);
    }
    return true;
  }

  #tryApply(index: LogIndex): void {
    const wanted = this.#wanted.get(index);
    const available = this.#available.get(index);
    if (this.#stopped || wanted === undefined || available === undefined || this.#applying.has(wanted.gid)) return;
    if (available.gid !== wanted.gid) {
      this.#options.log.fatal(
        { index, log: wanted.gid, donor: available.gid },
        'the donor committed another transaction under this index',
      );
      return;
    }
    this.#applying.set(wanted.gid, index);
    const { spool } = this.#options;
    const { key, data } = available;
    const source: ChangeSource =
      data === undefined
        ? { type: 'remote', read: (offset, limit) => spool.read(key, offset, limit) }
        : { type: 'inline', data };
    this.#options.apply(wanted.gid, wanted.database, source);
  }

  #release(index: LogIndex): void {
    const available = this.#available.get(index);
    if (available === undefined) return;
    this.#available.delete(index);
    this.#options.spool.release(available.key);
  }

  #isWanted(database: string): boolean {
    for (const wanted of this.#wanted.values()) if (wanted.database === database) return true;
    return false;
  }

  /** Something that is wanted of this database has not been read yet. */
  #isMissing(database: string): boolean {
    for (const [index, wanted] of this.#wanted)
      if (wanted.database === database && !this.#available.has(index)) return true;
    return false;
  }

  /** Reads the database's history for as long as something of it is wanted. */
  #read(database: string): void {
    if (this.#running.has(database) || this.#stopped) return;
    this.#running.add(database);
    void this.#readOn(database).finally(() => {
      this.#running.delete(database);
      if (this.#isWanted(database)) this.#read(database);
    });
  }

  async #readOn(database: string): Promise<void> {
    const { history } = this.#options;
    const cursor = this.#cursor(database);
    while (!this.#stopped && this.#isWanted(database)) {
      this.#forgetCommitted();
      // Of all databases together. Their transactions are committed in one order: while the next one is still to be read, none of the others' gets out of the way.
      if (this.#available.size > READ_AHEAD && !this.#isMissing(database)) {
        await pause(RETRY_DELAY / 10);
        continue;
      }
      try {
        const { pieces } = await history.read({
          database,
          after: cursor.after,
          limit: ANSWER_SIZE,
          headersOnly: false,
          fresh: cursor.fresh,
        });
        cursor.fresh = false;
        for (const piece of pieces) await this.#take(database, piece, cursor);
        cursor.at = performance.now();
        this.#troubles.over(database);
        // Everything that was read may be on its way to being replayed: asking again at once would only spin.
        if (pieces.length === 0) await pause(RETRY_DELAY / 10);
      } catch (error) {
        this.#fail(database, 'no donor could be read', { database, after: cursor.after }, error as Error);
        this.#beginAnew(cursor);
        await pause(RETRY_DELAY);
      }
    }
    this.#troubles.over(database);
  }

  /** Tried again and again: each reason is told once. */
  #fail(needed: string, what: string, where: object, error: Error): void {
    const problem = `${what}: ${error.message}`;
    const gone = error instanceof NoDonor ? error.gone : new Set<NodeId>();
    if (this.#troubles.failed(needed, problem, gone)) this.#options.log.warn(where, problem);
  }

  #cursor(database: string): Cursor {
    const now = performance.now();
    let cursor = this.#cursors.get(database);
    if (cursor === undefined) {
      cursor = { after: this.#options.committed(), at: now, fresh: true, partial: undefined };
      this.#cursors.set(database, cursor);
    } else if (now - cursor.at > STALE_AFTER) this.#beginAnew(cursor);
    return cursor;
  }

  #beginAnew(cursor: Cursor): void {
    cursor.after = this.#options.committed();
    cursor.fresh = true;
  }

  async #take(database: string, piece: HistoryPiece, cursor: Cursor): Promise<void> {
    const { spool, committed } = this.#options;
    const { index } = piece;
    this.#bytesRead += piece.bytes.byteLength;
    const key = `history-${database}-${index}` as Gid;
    const isNeeded = index > committed() && !this.#available.has(index);
    if (isNeeded) await this.#keep(key, piece, cursor);
    if (!piece.last) return;
    if (isNeeded) {
      const data = spool.complete(key);
      // A disk that failed is found out before the transaction counts as read: then it is read again.
      if (data === undefined) await spool.settled(key);
      cursor.partial = undefined;
      this.#available.set(index, { key, gid: piece.gid ?? '', data });
    }
    cursor.after = Math.max(cursor.after, piece.after ?? index) as LogIndex;
    if (isNeeded) this.#tryApply(index);
  }

  /** Throws when it does not follow what is here: whole records may be missing in between, and nothing else would show that. */
  async #keep(key: Gid, { index, offset, bytes }: HistoryPiece, cursor: Cursor): Promise<void> {
    const { spool } = this.#options;
    if (offset === 0) {
      if (cursor.partial !== undefined) spool.release(cursor.partial.key);
      spool.begin(key);
      cursor.partial = { key, length: 0 };
    }
    const { partial } = cursor;
    if (partial?.key !== key || partial.length !== offset)
      throw new Error(`a part of log entry ${index} got lost before byte ${offset}`);
    partial.length += bytes.byteLength;
    if (bytes.byteLength > 0 && !spool.append(key, Buffer.from(bytes))) await spool.settled(key);
  }

  #forgetCommitted(): void {
    const committed = this.#options.committed();
    for (const index of this.#available.keys()) if (index <= committed) this.#release(index);
  }

  /** Finds out from a donor which transactions the log had between the two indexes. */
  async fillGap(from: LogIndex, to: LogIndex): Promise<void> {
    const { databases, history, gapFilled } = this.#options;
    while (!this.#stopped) {
      try {
        const found = await Promise.all(databases.map((database) => this.#headers(history, database, from, to)));
        const entries = found.flat().sort((a, b) => a.index - b.index);
        this.#troubles.over(GAP);
        let before = from;
        gapFilled(
          from,
          to,
          entries.map((entry) => {
            const dependsOn = before;
            before = entry.index;
            return { ...entry, dependsOn };
          }),
        );
        return;
      } catch (error) {
        this.#fail(GAP, 'no donor could say what the log had', { from, to }, error as Error);
        await pause(RETRY_DELAY);
      }
    }
  }

  async #headers(
    history: HistoryClient,
    database: string,
    from: LogIndex,
    to: LogIndex,
  ): Promise<Omit<DecidedCommit, 'dependsOn'>[]> {
    const entries = new Map<LogIndex, Omit<DecidedCommit, 'dependsOn'>>();
    let after = from;
    let fresh = true;
    // The donor may not have committed all of it yet, or not in the order of the log.
    while (after < to && !this.#stopped) {
      const answer = await history.read({ database, after, limit: ANSWER_SIZE, headersOnly: true, fresh });
      fresh = false;
      const { pieces } = answer;
      for (const { index, gid, time, after: passed } of pieces) {
        after = Math.max(after, passed ?? index) as LogIndex;
        if (index > to) continue;
        entries.set(index, { index, gid: (gid ?? '') as Gid, database, time: time ?? 0, notify: false });
      }
      after = answer.after ?? after;
      if (pieces.length === 0) await pause(RETRY_DELAY / 10);
    }
    return [...entries.values()];
  }

  stop(): void {
    this.#stopped = true;
  }

  /** This node's PostgreSQL is looked at anew: what was wanted is asked for again. */
  reset(): void {
    this.#wanted.clear();
    // What was lost with a connection gives no result. Any other comes before PostgreSQL has been looked at, while the core knows of no such replay.
    this.#applying.clear();
    this.#troubles.clear();
  }
}

/** What is needed when the log itself was compacted, beside the databases by name: no database has an empty one. */
const GAP = '';

const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));
