import { PgError } from '../../runtime/errors.ts';
import type { AcquireOptions, ClusterLocks, LockSession, LockWait } from '../ports.ts';

/** The session ends because others may be given its locks. */
export const LOCKS_LOST = new PgError(
  '57P01',
  'terminating connection: this node may have lost its place in the cluster, and with it the advisory locks of this session',
  {
    severity: 'FATAL',
    hint: 'Connect again, to another node if need be, and take the locks anew. Transactions that were not committed are rolled back.',
  },
);

/** One lock as PostgreSQL shows it to its holder. */
export interface HeldLock {
  /** `5`, or `1,2` for a key of two. */
  readonly key: string;
  readonly shared: boolean;
}

/**
 * What one session has of the cluster's advisory locks. PostgreSQL counts how often a session took a lock, knows savepoints, and says what it still
 * holds; here stands only what the cluster has granted, so that it can be given back when PostgreSQL holds it no more. A
 * session that never locks pays nothing: all flags stay false.
 */
export class SessionLocks {
  /** Something was run that may have let go of locks, and PostgreSQL has not been asked what is left. */
  dirty = false;
  /** Some of them end with the transaction in progress. */
  #untilEnd = false;
  #postponed = false;
  readonly #held = new Map<string, HeldLock>();
  readonly #open: () => LockSession | undefined;
  #session: LockSession | undefined;
  #wait: LockWait | undefined;

  constructor(cluster: ClusterLocks | undefined, database: string, lost: (error: PgError) => void) {
    this.#open = () => cluster?.open(database, lost);
  }

  get held(): readonly HeldLock[] {
    return [...this.#held.values()];
  }

  get any(): boolean {
    return this.#held.size > 0;
  }

  /** False when others may have been given what this session believes to hold. */
  get isSure(): boolean {
    return this.#held.size === 0 || this.#session?.isSure === true;
  }

  has({ key, shared }: HeldLock): boolean {
    return this.#held.has(nameOf(key, shared));
  }

  acquire(lock: HeldLock, options: AcquireOptions, wake: () => void): LockWait {
    this.#session ??= this.#open();
    if (this.#session === undefined) throw new Error('advisory locks are not those of the cluster');
    this.#wait = this.#session.acquire(lock.key, lock.shared, options, wake);
    return this.#wait;
  }

  granted(lock: HeldLock): void {
    this.#held.set(nameOf(lock.key, lock.shared), lock);
    this.#wait = undefined;
  }

  /** Undefined where nothing is to be released. */
  release(locks: readonly HeldLock[], wake: () => void): LockWait | undefined {
    for (const { key, shared } of locks) this.#held.delete(nameOf(key, shared));
    if (locks.length === 0) return undefined;
    return this.#session?.release(
      locks.map(({ key, shared }) => [key, shared]),
      wake,
    );
  }

  /** A cancel request has come; false where nothing is waited for. */
  cancel(): boolean {
    if (this.#wait?.result !== undefined || this.#wait === undefined) return false;
    this.#wait.cancel(new PgError('57014', 'canceling statement due to user request'));
    return true;
  }

  /** PostgreSQL could not be asked: again when the client says something. */
  postpone(): void {
    this.#postponed = true;
  }

  /** The client has said something. */
  resume(): void {
    if (!this.#postponed) return;
    this.#postponed = false;
    this.dirty = true;
  }

  /** A lock was taken that ends with the transaction, or a savepoint of it. */
  endWithTransaction(): void {
    this.#untilEnd = true;
  }

  transactionEnded(): void {
    if (!this.#untilEnd) return;
    this.#untilEnd = false;
    this.dirty = true;
  }

  rolledBackToSavepoint(): void {
    if (this.#untilEnd) this.dirty = true;
  }

  /** DISCARD ALL is about to run. */
  discarded(): void {
    if (this.#held.size > 0) this.dirty = true;
  }

  close(): void {
    this.#session?.close();
    this.#session = undefined;
    this.#held.clear();
  }
}

const nameOf = (key: string, shared: boolean): string => `${shared ? 'shared' : 'exclusive'} ${key}`;
