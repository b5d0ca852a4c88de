import { performance } from 'node:perf_hooks';
import { PgError } from '../runtime/errors.ts';
import type { LogIndex } from '../runtime/ids.ts';
import { LOCKS_LOST } from '../session/advisory/session-locks.ts';
import type { AcquireOptions, ClusterLocks, LockSession, LockWait } from '../session/ports.ts';
import type { LockAnswer, LockEffect, LockRequest } from './core/lock-agent.ts';
import type { NodeEvent } from './core/types.ts';

/** By process id; 0 stands for a prepared transaction. */
export type LockWaits = ReadonlyMap<number, readonly number[]>;

export interface AdvisoryLocksOptions {
  /** Takes an event of the node core's. */
  readonly step: (event: NodeEvent) => void;
  /** Milliseconds on the monotonic clock up to which sessions may go on with what they hold. */
  readonly leaseEnd: () => number;
  /** Everything that was decided before the call stands at or before the answer. */
  readonly readIndex: () => Promise<LogIndex>;
  /** Backends that wait for a lock in this node's PostgreSQL, and for whom. */
  readonly lockWaits: () => Promise<LockWaits>;
}

/**
 * Joins the sessions of this node with the core's part for advisory locks (lock-agent.ts): numbers them, times their waits, asks for the
 * read index that their lease rests on, and looks whether a wait stands in a circle that goes through PostgreSQL.
 */
export class AdvisoryLocks implements ClusterLocks {
  readonly #options: AdvisoryLocksOptions;
  readonly #sessions = new Map<number, Session>();
  #number = 0;
  #looking = false;

  constructor(options: AdvisoryLocksOptions) {
    this.#options = options;
  }

  open(database: string, lost: (error: PgError) => void): LockSession {
    const number = ++this.#number;
    const session = new Session(number, database, lost, {
      request: (request) => this.#options.step({ type: 'lock-request', request }),
      isSure: () => performance.now() < this.#options.leaseEnd(),
      overdue: () => void this.#look(),
      closed: () => this.#sessions.delete(number),
    });
    this.#sessions.set(number, session);
    return session;
  }

  perform(effect: LockEffect): void {
    switch (effect.type) {
      case 'lock-answer':
        return this.#answer(effect.session, effect.answer);
      case 'locks-lost':
        this.#sessions.get(effect.session)?.lost(effect.reason);
        return;
      case 'confirm-locks':
        void this.#confirm(effect.sentAt);
    }
  }

  #answer(number: number, answer: LockAnswer): void {
    // The core may have been told the time long ago, where the process was paused.
    if (answer.type === 'granted' && performance.now() >= answer.until)
      this.#options.step({ type: 'lock-late', session: number });
    else this.#sessions.get(number)?.answer(answer);
  }

  async #confirm(sentAt: number): Promise<void> {
    // It is asked again and again; without an answer the lease runs out.
    const index = await this.#options.readIndex().catch(() => undefined);
    if (index !== undefined) this.#options.step({ type: 'locks-confirmed', sentAt, index });
  }

  /** Who waits in PostgreSQL for sessions that wait for an advisory lock: whether that closes a circle is seen in the log. */
  async #look(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    try {
      const waits = await this.#options.lockWaits();
      const sessions = [...this.#sessions.values()];
      for (const session of sessions) {
        if (!session.waits) continue;
        const blocked = waitersFor(session.backend, waits);
        const blocks = sessions.filter(({ backend, waits: too }) => !too && blocked.has(backend));
        const request = {
          type: 'blocks',
          session: session.number,
          blocks: blocks.map(({ number }) => number),
        } as const;
        this.#options.step({ type: 'lock-request', request });
      }
    } finally {
      this.#looking = false;
    }
  }
}

interface SessionParts {
  readonly request: (request: LockRequest) => void;
  readonly isSure: () => boolean;
  /** Its wait has lasted for deadlock_timeout, or that again. */
  readonly overdue: () => void;
  readonly closed: () => void;
}

class Session implements LockSession {
  readonly number: number;
  /** Process id of its server connection, once it has asked for a lock. */
  backend = 0;
  readonly #database: string;
  readonly #lost: (error: PgError) => void;
  readonly #parts: SessionParts;
  #wait: Wait | undefined;

  constructor(number: number, database: string, lost: (error: PgError) => void, parts: SessionParts) {
    this.number = number;
    this.#database = database;
    this.#lost = lost;
    this.#parts = parts;
  }

  get isSure(): boolean {
    return this.#parts.isSure();
  }

  /** For an advisory lock. */
  get waits(): boolean {
    return this.#wait !== undefined && this.#wait.result === undefined;
  }

  acquire(key: string, shared: boolean, options: AcquireOptions, wake: () => void): LockWait {
    const session = this.number;
    this.backend = options.backend;
    const wait = new Wait(wake, () => this.#parts.request({ type: 'withdraw', session }));
    this.#wait = wait;
    wait.limit(options);
    if (options.wait) wait.watch(options.deadlockTimeout, this.#parts.overdue);
    this.#parts.request({ type: 'acquire', session, lock: this.#name(key), shared, wait: options.wait });
    return wait;
  }

  release(locks: readonly (readonly [key: string, shared: boolean])[], wake: () => void): LockWait {
    const session = this.number;
    this.#wait = new Wait(wake, () => undefined);
    const wait = this.#wait;
    const named = locks.map(([key, shared]) => [this.#name(key), shared] as const);
    this.#parts.request({ type: 'release', session, locks: named });
    return wait;
  }

  answer(answer: LockAnswer): void {
    const wait = this.#wait;
    this.#wait = undefined;
    if (answer.type !== 'failed') return wait?.end(answer.type);
    const { sqlstate, message, detail, hint } = answer.error;
    wait?.end(new PgError(sqlstate, message, { detail, hint }));
  }

  lost(reason: string): void {
    const { sqlstate, message, severity, hint } = LOCKS_LOST;
    this.#lost(new PgError(sqlstate, message, { severity, hint, detail: `This node: ${reason}.` }));
  }

  close(): void {
    this.#wait?.abandon();
    this.#wait = undefined;
    this.#parts.closed();
    this.#parts.request({ type: 'close', session: this.number });
  }

  #name(key: string): string {
    return `${this.#database}:${key}`;
  }
}

/** Backends that wait for this one, or for others that do. */
function waitersFor(backend: number, waits: LockWaits): ReadonlySet<number> {
  const found = new Set<number>();
  const next = [backend];
  for (let pid = next.pop(); pid !== undefined; pid = next.pop()) {
    for (const [waiter, blockers] of waits) {
      if (found.has(waiter) || !blockers.includes(pid)) continue;
      found.add(waiter);
      next.push(waiter);
    }
  }
  return found;
}

/** PostgreSQL's words. */
const LOCK_TIMEOUT = new PgError('55P03', 'canceling statement due to lock timeout');
const STATEMENT_TIMEOUT = new PgError('57014', 'canceling statement due to statement timeout');

/** The longest that a timer takes. */
const LONGEST = 2 ** 31 - 1;

class Wait implements LockWait {
  result: LockWait['result'];
  readonly #wake: () => void;
  readonly #withdraw: () => void;
  readonly #timers: NodeJS.Timeout[] = [];
  #watch: NodeJS.Timeout | undefined;

  constructor(wake: () => void, withdraw: () => void) {
    this.#wake = wake;
    this.#withdraw = withdraw;
  }

  limit({ lockTimeout, statementTimeout }: AcquireOptions): void {
    this.#after(lockTimeout, LOCK_TIMEOUT);
    this.#after(statementTimeout, STATEMENT_TIMEOUT);
  }

  #after(milliseconds: number, error: PgError): void {
    if (milliseconds === 0) return;
    this.#timers.push(setTimeout(() => this.cancel(error), Math.min(milliseconds, LONGEST)));
  }

  /** Calls back again and again until it is over. */
  watch(milliseconds: number, overdue: () => void): void {
    this.#watch = setInterval(overdue, Math.min(milliseconds, LONGEST));
  }

  end(result: NonNullable<LockWait['result']>): void {
    if (this.result !== undefined) return;
    this.abandon();
    this.result = result;
    this.#wake();
  }

  /** Nobody is interested any more. */
  abandon(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    clearInterval(this.#watch);
  }

  cancel(error: PgError): void {
    if (this.result !== undefined) return;
    this.#withdraw();
    this.end(error);
  }
}
