import { Committer } from '../commit/committer.ts';
import { CommitProgress, type LanePositions } from '../commit/core/commit-progress.ts';
import type { DecidedCommit } from '../commit/core/commit-queue.ts';
import type { ErrorReport } from '../commit/core/types.ts';
import { parseGid } from '../commit/gid.ts';
import type { Gid, LogIndex, Lsn, NodeId } from '../runtime/ids.ts';
import type { Logger } from '../runtime/log.ts';
import { PgError } from '../runtime/errors.ts';
import type { ConflictVictim } from '../session/ports.ts';
import type { ApplyResult, RecordSource } from './apply/apply-session.ts';
import { furthest } from './commit-origins.ts';
import { DatabaseReplica, type Admission, type DatabaseReplicaOptions } from './database-replica.ts';
import { HistoryServer, type HistoryAnswer, type HistoryRequest } from './history/history-server.ts';
import type { UnseenWal } from './slots.ts';
import { ReplayWatch, type Blocker } from './replay-watch.ts';
import type { TransactionSpool } from './spool.ts';

/** What the local PostgreSQL reports to the cluster node. */
export interface ReplicaEvents {
  up(committed: LogIndex, progress: CommitProgress, prepared: ReadonlyMap<Gid, string>): void;
  down(): void;
  committed(index: LogIndex, gid: Gid | undefined): void;
  applied(gid: Gid, error: ErrorReport | undefined): void;
  rolledBack(gid: Gid): void;
  blocked(gid: Gid, holder: Blocker, table: string | undefined): void;
  decoded(gid: Gid, database: string, data: Uint8Array | undefined): void;
  progress(gid: Gid): void;
  /** The decoder of this database gets on with a large transaction. */
  decoding(database: string): void;
  bypass(database: string, xid: number, relations: readonly string[]): void;
  /** WAL of the database is gone that was not looked at for such writes. Throws if that can't be noted down. */
  unseen(database: string, wal: UnseenWal): void;
  /** Why what is written here would reach no other node; undefined: it would. Told before `up`, and when it changes. */
  readiness(problem: string | undefined): void;
  replayed(rows: number, seconds: number): void;
}

export interface LocalReplicaOptions {
  readonly cluster: string;
  readonly databases: readonly string[];
  readonly database: Pick<
    DatabaseReplicaOptions,
    'node' | 'server' | 'secret' | 'stride' | 'apply' | 'committers' | 'directory' | 'handedOut' | 'retention' | 'guard'
  >;
  /** In which order PostgreSQL commits what was decided. */
  readonly order: 'strict' | 'relaxed';
  /** The lowest log index from which some node may ask to go on; 0 while that is not known. */
  readonly neededHistory: () => LogIndex;
  readonly spool: TransactionSpool;
  /** Milliseconds after which a replay that isn't done is looked at for what it waits for. */
  readonly conflictCheckAfter: number;
  readonly log: Logger;
  readonly events: ReplicaEvents;
  readonly admission: Admission;
  /** Whether a decoded transaction is one of this run's. */
  readonly isOwn: (gid: Gid) => boolean;
  /** Whether a prepared transaction is one of this node's that nobody waits for, and that the log can't commit any more. */
  readonly isAbandoned: (gid: Gid) => boolean;
  readonly victim: (pid: number) => ConflictVictim | undefined;
}

/** What PostgreSQL has: everything up to `committed` and what `progress` says, and prepared transactions with their databases. */
interface Look {
  readonly committed: LogIndex;
  readonly progress: CommitProgress;
  readonly prepared: ReadonlyMap<Gid, string>;
}

/** What was seen while nothing was committed, and the index up to which everything was. */
export interface HeldLook<T> {
  readonly index: LogIndex;
  readonly found: T;
}

const RECONNECT_DELAY = 500;
const SWEEP_INTERVAL = 5000;
const HISTORY_INTERVAL = 5000;
const GUARD_INTERVAL = 5000;
const NOTE_INTERVAL = 5000;
/** Milliseconds that commits under way have when this ends: a server that hangs may never answer. */
const STOP_LIMIT = 5000;

/**
 * The local PostgreSQL as the cluster node sees it: all coordinated databases together, up or down as a whole. A lost
 * connection takes everything down; then all is set up anew and PostgreSQL itself is asked how far it is.
 */
export class LocalReplica {
  readonly #options: LocalReplicaOptions;
  readonly #committer: Committer;
  readonly #watch: ReplayWatch;
  #databases = new Map<string, DatabaseReplica>();
  /** Counts the times that everything was set up: what an earlier one still reports is out of date. */
  #generation = 0;
  #up = false;
  #problem: string | undefined;
  #stopped = false;
  #recovering: Promise<void> | undefined;
  #recoverAgain = false;
  #fixingGuards = false;
  /** One hold at a time: the end of one would be the end of another. */
  #holding: Promise<unknown> = Promise.resolve();
  readonly #history = new HistoryServer((database) => this.#databases.get(database)?.history);
  readonly #rollbacks = new Set<Promise<void>>();
  readonly #origin = new Map<Gid, string>();
  /** Own transactions that may have locked rows or tables, and since when. */
  readonly #locksSince = new Map<Gid, Lsn>();
  readonly #begun = new Map<Gid, number>();
  readonly #committing = new Map<LogIndex, DecidedCommit>();
  /** Everything up to here was seen to be committed in this run; and was noted down where several lanes commit. */
  #lastCommitted = 0 as LogIndex;
  #noted = 0 as LogIndex;
  /** What PostgreSQL had when it was last looked at, and what a single lane has committed. */
  #found = new CommitProgress([]);
  #singly = 0 as LogIndex;
  /** Committers at work since PostgreSQL was connected to. */
  #lanes = 1;
  readonly #timers: NodeJS.Timeout[] = [];
  #suspects = new Set<Gid>();
  #retainedWal: ReadonlyMap<string, number> = new Map();

  constructor(options: LocalReplicaOptions) {
    this.#options = options;
    this.#committer = new Committer({
      connection: (database, lane) => this.#databases.get(database)?.committer(lane),
      committed: (index) => this.#onCommitted(index),
      failed: (error) => this.#onCommitFailed(error),
    });
    this.#watch = new ReplayWatch({
      conflictCheckAfter: options.conflictCheckAfter,
      databases: () => (this.#up ? this.#databases.values() : []),
      victim: options.victim,
      blocked: (gid, blocker, table) => options.events.blocked(gid, blocker, table),
      log: options.log,
    });
  }

  /** Begins to connect, and keeps at it. */
  start(): void {
    void this.#connect();
    this.#timers.push(setInterval(() => void this.#sweep(), SWEEP_INTERVAL));
    this.#timers.push(setInterval(() => void this.#advanceHistory(), HISTORY_INTERVAL));
    this.#timers.push(setInterval(() => void this.#fixGuards(), GUARD_INTERVAL));
    this.#timers.push(setInterval(() => void this.#noteProgress(), NOTE_INTERVAL));
  }

  /** Why it can't be used now; undefined while it can, or before it was tried. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** WAL that is known to be durable. */
  get flushed(): Lsn | undefined {
    return this.#databases.values().next().value?.flushed;
  }

  get isUp(): boolean {
    return this.#up;
  }

  /** Every write past the proxy that was made before PostgreSQL was connected to is known. */
  get hasReadWal(): boolean {
    return this.#up && [...this.#databases.values()].every((database) => database.hasReadWal);
  }

  database(name: string): DatabaseReplica | undefined {
    return this.#databases.get(name);
  }

  /** Transactions that wait for an apply session, and sessions at work. */
  get applyLoad(): { queued: number; busy: number } {
    const pools = [...this.#databases.values()].map(({ pool }) => pool);
    return { queued: sum(pools.map(({ queued }) => queued)), busy: sum(pools.map(({ busy }) => busy)) };
  }

  async #connect(): Promise<void> {
    let reported = '';
    while (!this.#stopped) {
      const generation = ++this.#generation;
      try {
        await this.#openAll(generation);
        this.#up = true;
        this.#problem = undefined;
        this.#options.log.info('connected to the local PostgreSQL');
        this.#onReadiness();
        this.recover();
        void this.#fixGuards();
        return;
      } catch (error) {
        const { message } = error as Error;
        if (message !== reported) this.#options.log.warn(`the local PostgreSQL cannot be used yet: ${message}`);
        reported = message;
        this.#problem = message;
        for (const database of this.#databases.values()) database.close();
        this.#databases = new Map();
        await new Promise((resolve) => setTimeout(resolve, RECONNECT_DELAY));
      }
    }
  }

  async #openAll(generation: number): Promise<void> {
    for (const name of this.#options.databases) {
      const replica = await DatabaseReplica.open(this.#databaseOptions(name, generation));
      this.#databases.set(name, replica);
    }
    this.#lanes = await this.#chooseLanes();
    for (const database of this.#databases.values()) await database.openCommitters(this.#lanes);
    if (generation !== this.#generation || this.#stopped) throw new Error('connection lost while connecting');
  }

  async #chooseLanes(): Promise<number> {
    const { order, log, database } = this.#options;
    const ready = await Promise.all([...this.#databases.values()].map((one) => one.lanesAreReady()));
    if (order === 'strict') return 1;
    if (ready.every(Boolean)) return database.committers;
    log.warn(
      { committers: database.committers },
      'transactions in progress began before there were that many committers: this node commits in the order "strict" until it connects to PostgreSQL again',
    );
    return 1;
  }

  #databaseOptions(name: string, generation: number): DatabaseReplicaOptions {
    const { database, spool, log, events, isOwn } = this.#options;
    return {
      ...database,
      database: name,
      ...(name === this.#options.databases[0] && { admission: this.#options.admission }),
      spool,
      log,
      committed: () => this.#lastCommitted,
      wants: (gid) => {
        if (!isOwn(gid)) return false;
        this.#origin.set(gid, name);
        return true;
      },
      locksSince: (gid) => this.#locksSince.get(gid),
      decoded: (gid, data) => events.decoded(gid, name, data),
      applied: (gid, result) => {
        if (generation === this.#generation) this.#onApplied(gid, result);
      },
      progress: (gid) => events.progress(gid),
      decoding: () => events.decoding(name),
      bypass: (xid, relations) => events.bypass(name, xid, relations),
      slots: {
        unseen: (wal) => events.unseen(name, wal),
        inTheWay: (pid) => this.#endTransaction(pid),
        readiness: () => {
          if (generation === this.#generation && this.#up) this.#onReadiness();
        },
      },
      closed: (error) => this.#onClosed(error, generation),
    };
  }

  #onReadiness(): void {
    const problems = [...this.#databases.values()].map(({ unready }) => unready);
    this.#options.events.readiness(problems.find((problem) => problem !== undefined));
  }

  /** False if it is not one of a client of this proxy. */
  #endTransaction(pid: number): boolean {
    const victim = this.#options.victim(pid);
    victim?.abort(slotAnew());
    return victim !== undefined;
  }

  #onClosed(error: Error, generation: number): void {
    if (generation !== this.#generation || this.#stopped) return;
    this.#generation += 1;
    this.#options.log.error(`lost a connection to the local PostgreSQL: ${error.message}`);
    const wasUp = this.#up;
    this.#up = false;
    for (const database of this.#databases.values()) database.close();
    this.#databases = new Map();
    if (!wasUp) return; // the connecting under way notices
    this.#options.events.down();
    setTimeout(() => void this.#connect(), RECONNECT_DELAY);
  }

  // ---- what the cluster node asks for

  commit(entry: DecidedCommit): void {
    this.#committing.set(entry.index, entry);
    this.#databases.get(entry.database)?.onCommitting(entry.gid);
    this.#committer.commit(entry);
  }

  apply(gid: Gid, database: string, source: RecordSource): void {
    const replica = this.#databases.get(database);
    if (replica === undefined) {
      if (this.#up) this.#failApply(gid, `database "${database}" is not among databases: of this node`);
      return;
    }
    this.#begun.set(gid, performance.now());
    replica.pool.apply(gid, source);
    this.#watch.begin();
  }

  #failApply(gid: Gid, message: string): void {
    queueMicrotask(() => this.#options.events.applied(gid, { sqlstate: '3D000', message }));
  }

  cancelApply(gid: Gid): void {
    for (const { pool } of this.#databases.values()) pool.cancel(gid);
  }

  rollbackPrepared(gid: Gid, database: string): void {
    const replica = this.#databases.get(database);
    if (replica === undefined) return;
    const generation = this.#generation;
    const work = replica.rollbackPrepared(gid).then(
      () => {
        if (generation === this.#generation) this.#options.events.rolledBack(gid);
      },
      (error: unknown) =>
        this.#options.log.error({ err: error, gid }, 'a prepared transaction could not be rolled back'),
    );
    this.#rollbacks.add(work);
    void work.finally(() => this.#rollbacks.delete(work));
  }

  async lockWaits(): Promise<ReadonlyMap<number, readonly number[]>> {
    const [database] = this.#databases.values();
    try {
      return (await (database as DatabaseReplica | undefined)?.lockWaits()) ?? new Map<number, never>();
    } catch (error) {
      // Whoever waits asks again.
      this.#options.log.warn({ err: error }, 'PostgreSQL could not be asked who waits for a lock');
      return new Map();
    }
  }

  overruleBackend(pid: number, error: ErrorReport): void {
    const victim = this.#options.victim(pid);
    if (victim !== undefined) {
      const { sqlstate, message, detail, hint } = error;
      victim.abort(new PgError(sqlstate, message, { detail, hint }));
      return;
    }
    void this.#terminate(pid, error);
  }

  /** Somebody connected to PostgreSQL behind the proxy's back holds a lock that a committed or older transaction needs. */
  async #terminate(pid: number, error: ErrorReport): Promise<void> {
    for (const database of this.#databases.values()) {
      const ended = await database.terminateBackend(pid).catch((failure: unknown) => {
        this.#options.log.warn({ err: failure, pid }, 'a backend in the way of a replay could not be ended');
        return false;
      });
      if (ended) {
        this.#options.log.warn({ pid, detail: error.detail }, 'ended a backend in the way of a replay');
        return;
      }
    }
  }

  /** A transaction that is about to be prepared may have locked rows or tables since a position in the WAL. */
  carryLocks(gid: Gid, since: Lsn): void {
    this.#locksSince.set(gid, since);
  }

  release(gid: Gid): void {
    this.#options.spool.release(gid);
    this.#locksSince.delete(gid);
    const database = this.#origin.get(gid);
    if (database === undefined) return;
    this.#origin.delete(gid);
    this.#databases.get(database)?.release(gid);
  }

  readChanges(gid: Gid, offset: number, limit: number): Promise<{ bytes: Buffer; last: boolean }> {
    return this.#options.spool.read(gid, offset, limit);
  }

  readHistory(reader: NodeId, request: HistoryRequest): Promise<HistoryAnswer> {
    return this.#history.read(reader, request);
  }

  forgetHistory(reader: NodeId, database: string): void {
    this.#history.forget(reader, database);
  }

  /** Bytes of WAL that PostgreSQL keeps for each of this program's slots. */
  get retainedWal(): ReadonlyMap<string, number> {
    return this.#retainedWal;
  }

  /** Bytes of this server's WAL since about what a node has committed that stands at this index. */
  walSince(index: LogIndex): number {
    return Math.max(0, ...[...this.#databases.values()].map((database) => database.walSince(index)));
  }

  async #advanceHistory(): Promise<void> {
    if (!this.#up) return;
    const retained = new Map<string, number>();
    const needed = this.#options.neededHistory();
    for (const [name, database] of this.#databases) {
      try {
        await database.advanceHistory(needed);
        for (const [slot, bytes] of await database.retainedWal()) retained.set(slot, bytes);
      } catch (error) {
        this.#options.log.warn({ err: error, database: name }, 'the history slot could not be advanced');
      }
    }
    this.#retainedWal = retained;
  }

  /** Lets everything that runs come to its end, then reports what PostgreSQL has. */
  recover(): void {
    if (!this.#up) return;
    if (this.#recovering !== undefined) {
      this.#recoverAgain = true;
      return;
    }
    this.#recovering = this.#recover(this.#generation).finally(() => {
      this.#recovering = undefined;
      if (this.#recoverAgain) {
        this.#recoverAgain = false;
        this.recover();
      }
    });
  }

  async #recover(generation: number): Promise<void> {
    let found: Look;
    try {
      found = await this.#look();
    } catch (error) {
      this.#onClosed(error as Error, generation);
      return;
    }
    if (generation !== this.#generation) return;
    const { committed, progress, prepared } = found;
    this.#found = progress;
    this.#committer.reset(this.#lanes);
    this.#options.log.info({ committed, prepared: prepared.size }, 'PostgreSQL looked at');
    // What the core throws is no trouble with PostgreSQL, and must stop the process.
    this.#options.events.up(committed, progress, prepared);
  }

  async #look(): Promise<Look> {
    await this.#committer.stop();
    this.#committing.clear();
    await Promise.all([...this.#databases.values()].map(({ pool }) => pool.quiesce()));
    while (this.#rollbacks.size > 0) await Promise.all(this.#rollbacks);
    const positions: ReadonlyMap<number, LanePositions>[] = [];
    const prepared = new Map<Gid, string>();
    for (const [name, database] of this.#databases) {
      positions.push(await database.commitPositions());
      for (const gid of await database.preparedGids()) {
        if (parseGid(gid)?.cluster === this.#options.cluster) prepared.set(gid as Gid, name);
      }
    }
    const progress = new CommitProgress(furthest(positions));
    return { committed: await this.#provenCommitted(progress), progress, prepared };
  }

  /**
   * Several lanes prove less than was committed where one of them had nothing to commit for a while. What this run has seen is as true, unless
   * PostgreSQL has lost what it had: then the core is told, and stops (I7).
   */
  async #provenCommitted(progress: CommitProgress): Promise<LogIndex> {
    const { contiguous } = progress;
    const hasAll = this.#lastCommitted > contiguous && progress.has(this.#lastCommitted);
    const committed = hasAll ? this.#lastCommitted : contiguous;
    this.#lastCommitted = Math.max(this.#lastCommitted, committed) as LogIndex;
    await this.#noteCommitted(committed);
    return committed;
  }

  /** PostgreSQL is sure to say after a restart that everything up to here is committed; Infinity: of all that is. */
  get provenCommitted(): LogIndex {
    return this.#lanes === 1 ? this.#found.provenBy(this.#singly) : this.#noted;
  }

  /**
   * Runs `look` in a moment in which nothing is committed here, and gives what it gives with the index up to which everything is committed, and
   * nothing beyond. Rejects when it is not done within `limit` milliseconds; commits go on then, and what it saw must not be used.
   */
  holdCommits<T>(limit: number, look: () => Promise<T>): Promise<HeldLook<T>> {
    const held = this.#holding.then(() => this.#hold(limit, look));
    this.#holding = held.catch(() => undefined);
    return held;
  }

  async #hold<T>(limit: number, look: () => Promise<T>): Promise<HeldLook<T>> {
    if (!this.#up || this.#recovering !== undefined) throw new Error('the local PostgreSQL is not in use now');
    const generation = this.#generation;
    const hold = this.#committer.hold();
    const late = deadline(limit, 'commits could not be held back for as long as it takes');
    let seen: HeldLook<T>;
    let wasHeld = false;
    try {
      seen = await Promise.race([this.#lookAfter(hold.quiet, look), late.passed]);
    } finally {
      late.clear();
      wasHeld = hold.release();
    }
    if (!wasHeld || generation !== this.#generation) throw new Error('PostgreSQL was looked at anew meanwhile');
    return seen;
  }

  async #lookAfter<T>(quiet: Promise<void>, look: () => Promise<T>): Promise<HeldLook<T>> {
    await quiet;
    const index = this.#lastCommitted;
    const found = await look();
    const positions = await Promise.all([...this.#databases.values()].map((database) => database.commitPositions()));
    const { highest } = new CommitProgress(furthest(positions));
    if (highest > index) throw new Error(`entry ${highest} is committed, and some before it are not`);
    return { index, found };
  }

  async #noteProgress(): Promise<void> {
    if (!this.#up || this.#recovering !== undefined) return;
    try {
      await this.#noteCommitted(this.#lastCommitted);
    } catch (error) {
      this.#options.log.warn({ err: error }, 'how far everything is committed could not be noted');
    }
  }

  async #noteCommitted(index: LogIndex): Promise<void> {
    const [database] = this.#databases.values();
    if (this.#lanes === 1 || index <= this.#noted) return;
    await database.noteCommitted(index);
    this.#noted = index;
  }

  // ---- what PostgreSQL reports

  #onCommitted(index: LogIndex): void {
    this.#lastCommitted = index;
    if (this.#lanes === 1) this.#singly = index;
    const entry = this.#committing.get(index);
    this.#committing.delete(index);
    if (entry !== undefined) {
      const { gid } = entry;
      const database = this.#databases.get(entry.database);
      database?.onCommitted(gid).catch((error: unknown) => {
        this.#options.log.error({ err: error, gid }, 'the schema could not be looked at anew');
      });
    }
    this.#options.events.committed(index, entry?.gid);
  }

  #onCommitFailed(error: Error): void {
    this.#options.log.error({ err: error }, 'COMMIT PREPARED failed');
    this.#onClosed(error, this.#generation);
  }

  #onApplied(gid: Gid, result: ApplyResult): void {
    const begun = this.#begun.get(gid);
    this.#begun.delete(gid);
    this.#watch.forget(gid);
    const { events } = this.#options;
    switch (result.type) {
      case 'prepared':
        if (begun !== undefined) events.replayed(result.rows, (performance.now() - begun) / 1000);
        return events.applied(gid, undefined);
      case 'failed': {
        const { sqlstate, message, detail, hint, fields } = result.error;
        return events.applied(gid, { sqlstate, message, detail, hint, fields: { ...fields } });
      }
      case 'lost':
        // Whether it is prepared is found out when PostgreSQL is looked at again.
        return;
    }
  }

  /**
   * A PREPARE whose connection broke can still be carried out after it was looked for in vain. What is found twice in a row,
   * and nobody knows of, is such a one.
   */
  async #sweep(): Promise<void> {
    if (!this.#up || this.#recovering !== undefined) return;
    const found = new Set<Gid>();
    try {
      for (const [name, database] of this.#databases) {
        for (const gid of (await database.preparedGids()) as Gid[]) {
          if (!this.#options.isAbandoned(gid)) continue;
          found.add(gid);
          if (!this.#suspects.has(gid)) continue;
          this.#options.log.warn({ gid, database: name }, 'rolling back a prepared transaction that nobody waits for');
          await database.rollbackPrepared(gid);
        }
      }
    } catch (error) {
      this.#options.log.warn({ err: error }, 'prepared transactions could not be looked through');
    }
    this.#suspects = found;
  }

  async #fixGuards(): Promise<void> {
    if (!this.#up || this.#fixingGuards) return;
    this.#fixingGuards = true;
    try {
      for (const database of this.#databases.values()) await database.fixGuard();
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the guard could not be brought to all tables');
    } finally {
      this.#fixingGuards = false;
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#watch.stop();
    this.#history.stop();
    const late = deadline(STOP_LIMIT, 'PostgreSQL does not answer');
    try {
      await Promise.race([this.#committer.stop(), late.passed]);
    } catch (error) {
      // What it was told to commit is looked up at the next start.
      this.#options.log.warn(`stopping while commits are under way: ${(error as Error).message}`);
    } finally {
      late.clear();
    }
    for (const database of this.#databases.values()) database.close();
  }
}

const slotAnew = (): PgError =>
  new PgError('40001', 'could not serialize access: the slot that this node reads its WAL through begins anew', {
    detail: 'The others would not be told of all that the transaction has changed.',
    hint: 'Retry the transaction.',
  });

/** A promise that rejects after so many milliseconds, unless it is cleared before. */
function deadline(milliseconds: number, reason: string): { readonly passed: Promise<never>; clear(): void } {
  let timer: NodeJS.Timeout | undefined;
  const passed = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(reason)), milliseconds);
  });
  return { passed, clear: () => clearTimeout(timer) };
}

const sum = (numbers: readonly number[]): number => numbers.reduce((total, n) => total + n, 0);
