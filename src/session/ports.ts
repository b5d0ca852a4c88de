import type { PgError } from '../runtime/errors.ts';
import type { Turn } from '../commit/turns.ts';
import type { Gid, LogIndex, Lsn } from '../runtime/ids.ts';

/**
 * What a session needs from the rest of the program. The composition root implements these over the commit core, the
 * simulator and the session's own tests over stand-ins.
 */

/** The end of one coordinated transaction, as its client must be told. */
export type CommitOutcome =
  | { readonly type: 'committed'; readonly index: LogIndex }
  /** Rolled back on every node; the error is ready to be sent. */
  | { readonly type: 'aborted'; readonly error: PgError }
  /** The decision could not be learned; the error is 08007 with the gid in DETAIL. */
  | { readonly type: 'unknown'; readonly error: PgError };

/** `on`: decided, prepared everywhere, committed here. `remote_apply`: committed on every member. */
export type CommitLevel = 'on' | 'remote_apply';

/** A client's transaction that another node's transaction may have to overrule. */
export interface ConflictVictim {
  /**
   * The name of the transaction in progress, where it does not give way to every other but to older ones only: while it runs a statement that
   * locks whole tables. Undefined for every other transaction that is not prepared.
   */
  readonly standing: Gid | undefined;
  /**
   * Rolls back the transaction in progress, if it is not being prepared yet, and lets the client find `error` as the
   * answer to its current or next statement. Idempotent; does nothing when no transaction is open.
   */
  abort(error: PgError): void;
}

/**
 * How new what a session reads must be (docs/reads.md). `local`: what this node has committed. `session`: the same, and the client is
 * told after each commit which token another node must be given to show it. `strict`: all that was decided when the read began.
 */
export type ReadLevel = 'local' | 'session' | 'strict';

export const READ_LEVELS: readonly ReadLevel[] = ['local', 'session', 'strict'];

export interface ReadNeeds {
  /** All that was decided before now. */
  readonly strict: boolean;
  /** The log up to here. */
  readonly after: LogIndex | undefined;
}

export interface ReadWait {
  /** Undefined until the wait is over; the error is ready to be sent. */
  readonly result: 'ready' | PgError | undefined;
  /** Ends it with 57014. */
  cancel(): void;
}

export interface Reads {
  /** Of sessions that ask for nothing. */
  readonly level: ReadLevel;
  /** Begins to wait. `wake` is called when `result` is set, which may be at once. */
  wait(needs: ReadNeeds, wake: () => void): ReadWait;
  /** What another node must have committed to show all that this one may have shown, or the log up to `index`. */
  token(index?: LogIndex): string;
  /** Undefined where the text is no token of this cluster. */
  parseToken(text: string): LogIndex | undefined;
}

export interface LockWait {
  /** Undefined until it is over; the error is ready to be sent. */
  readonly result: 'granted' | 'denied' | 'released' | PgError | undefined;
  /** Ends the wait with this error; what was asked for is taken back. */
  cancel(error: PgError): void;
}

export interface AcquireOptions {
  /** False: denied where it would have to wait. */
  readonly wait: boolean;
  /** Milliseconds, 0 for none. */
  readonly lockTimeout: number;
  readonly statementTimeout: number;
  /** Milliseconds after which PostgreSQL is asked, again and again, who waits there for this session's transaction. */
  readonly deadlockTimeout: number;
  /** Process id of the session's server connection. */
  readonly backend: number;
}

/** Advisory locks of one session, held in the whole cluster. Keys are written as `5`, or `1,2` for two. One wait at a time. */
export interface LockSession {
  /** `wake` is called when `result` is set, which may be at once. */
  acquire(key: string, shared: boolean, options: AcquireOptions, wake: () => void): LockWait;
  release(locks: readonly (readonly [key: string, shared: boolean])[], wake: () => void): LockWait;
  /** Whether what it holds is surely its own still: to be asked before the session goes on after a pause. */
  readonly isSure: boolean;
  /** The session is gone: everything is released. */
  close(): void;
}

export interface ClusterLocks {
  /** `lost` is called when the session must end at once, with the error for its client: others may be given what it holds. */
  open(database: string, lost: (error: PgError) => void): LockSession;
}

export interface Commits {
  readonly reads: Reads;
  /** Undefined where advisory locks are each node's own. */
  readonly advisoryLocks?: ClusterLocks | undefined;
  /** Undefined when writes can be coordinated now; otherwise why not, ready to be sent (57P03-like). */
  refusal(): PgError | undefined;
  /** Undefined when this node may answer reads now; otherwise why not, ready to be sent. Asked before every message: must cost nothing. */
  readRefusal(): PgError | undefined;
  /**
   * Names a transaction that is about to be asked whether it wrote. A name that is not used after all costs nothing.
   * `senior`: the name under which this session lost a conflict and has not committed since. Its priority is kept, so that who retries
   * wins in the end (as in wound-wait: Rosenkrantz, Stearns, Lewis, 1978).
   */
  allocate(database: string, senior?: Gid): Gid;
  /**
   * A client that lost a conflict is about to try again: when `granted`, its transaction may begin (commit/turns.ts). `wake` is called when that comes
   * later. Undefined when the loss is too long ago to count.
   */
  turn(senior: Gid, wake: () => void): Turn | undefined;
  /** The client has been told this name: until the transaction begins to commit, or `withdraw`, it counts as under way. */
  reveal(gid: Gid): void;
  withdraw(gid: Gid): void;
  /** What became of the transaction of that name (multimaster.outcome). Rejects with a PgError. */
  outcome(name: string): Promise<string>;
  /** What is neither committed nor rolled back on this node (multimaster.in_doubt), as plain data. */
  inDoubt(): readonly object[];
  /**
   * To be called when PREPARE TRANSACTION is sent. From then on only the coordinator decides.
   * `prepared` must be called with the server's answer: undefined on success. The promise never rejects.
   * An error of class 08 means that the connection broke before the answer: the transaction may or may not be prepared.
   */
  begin(
    gid: Gid,
    database: string,
    level: CommitLevel,
  ): { prepared(error: PgError | undefined): void; readonly outcome: Promise<CommitOutcome> };
}

/** Takes the locks that a transaction has taken on this node, other than by changing rows, to the other nodes. */
export interface LockCarrier {
  /** A position in the WAL before anything that is written from now on. */
  position(database: string): Lsn;
  /** To be called before PREPARE TRANSACTION is sent: locks taken since `since` belong to the transaction's changes. */
  carry(gid: Gid, since: Lsn): void;
}

/** Sessions by the process id of their server connection, so that the blocker of a replay can be found. */
export interface VictimRegistry {
  add(backendPid: number, victim: ConflictVictim): void;
  remove(backendPid: number): void;
}

/** A schema statement as the other nodes need it. */
export interface AnnouncedDdl {
  /** One statement, as the client wrote it. */
  readonly statement: string;
  /** current_user and session_user. */
  readonly role: string;
  readonly sessionRole: string;
  /** The settings that can change what the statement means, by name. */
  readonly settings: Readonly<Record<string, string>>;
}

export interface DdlAnnouncer {
  /**
   * The content of the transactional logical message that goes before the statement, and the value of multimaster.ddl that lets
   * the statement through the event triggers. `ordinal` counts the schema statements of the transaction from 0.
   */
  announce(gid: Gid, ordinal: number, ddl: AnnouncedDdl): { readonly message: Buffer | string; readonly token: string };
}
