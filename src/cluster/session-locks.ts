import { performance } from 'node:perf_hooks';
import { PgError } from '../runtime/errors.ts';
import type { LogIndex } from '../runtime/ids.ts';
import { LOCKS_LOST } from '../session/advisory/session-locks.ts';
import type { ClusterLocks, LockSession, LockWait } from '../session/ports.ts';
import type { LockAnswer, LockEffect, LockRequest } from './core/lock-agent.ts';
import type { NodeEvent } from './core/types.ts';

export interface AdvisoryLocksOptions {
  /** Takes an event of the node core's. */
  readonly step: (event: NodeEvent) => void;
  /** Milliseconds on the monotonic clock up to which sessions may go on with what they hold. */
  readonly leaseEnd: () => number;
  /** Everything that was decided before the call stands at or before the answer. */
  readonly readIndex: () => Promise<LogIndex>;
}

/**
 * Joins the sessions of this node with the core's part for advisory locks (lock-agent.ts): numbers them, times their waits, and asks for the
 * read index that their lease rests on.
 */
export class AdvisoryLocks implements ClusterLocks {
  readonly #options: AdvisoryLocksOptions;
  readonly #sessions = new Map<number, Session>();
  #number = 0;

  constructor(options: AdvisoryLocksOptions) {
    this.#options = options;
  }

  open(database: string, lost: (error: PgError) => void): LockSession {
    const number = ++this.#number;
    const session = new Session(number, database, lost, {
      request: (request) => this.#options.step({ type: 'lock-request', request }),
      isSure: () => performance.now() < this.#options.leaseEnd(),
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
}

interface SessionParts {
  readonly request: (request: LockRequest) => void;
  readonly isSure: () => boolean;
  readonly closed: () => void;
}

class Session implements LockSession {
  readonly #number: number;
  readonly #database: string;
  readonly #lost: (error: PgError) => void;
  readonly #parts: SessionParts;
  #wait: Wait | undefined;

  constructor(number: number, database: string, lost: (error: PgError) => void, parts: SessionParts) {
    this.#number = number;
    this.#database = database;
    this.#lost = lost;
    this.#parts = parts;
  }

  get isSure(): boolean {
    return this.#parts.isSure();
  }

  acquire(key: string, shared: boolean, options: Parameters<LockSession['acquire']>[2], wake: () => void): LockWait {
    const session = this.#number;
    const wait = new Wait(wake, () => this.#parts.request({ type: 'withdraw', session }));
    this.#wait = wait;
    wait.limit(options.timeouts);
    this.#parts.request({ type: 'acquire', session, lock: this.#name(key), shared, wait: options.wait });
    return wait;
  }

  release(locks: readonly (readonly [key: string, shared: boolean])[], wake: () => void): LockWait {
    const session = this.#number;
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
    this.#wait = undefined;
    this.#parts.closed();
    this.#parts.request({ type: 'close', session: this.#number });
  }

  #name(key: string): string {
    return `${this.#database}:${key}`;
  }
}

/** PostgreSQL's words. */
const TIMEOUTS = [
  new PgError('55P03', 'canceling statement due to lock timeout'),
  new PgError('57014', 'canceling statement due to statement timeout'),
] as const;

/** The longest that a timer takes. */
const LONGEST = 2 ** 31 - 1;

class Wait implements LockWait {
  result: LockWait['result'];
  readonly #wake: () => void;
  readonly #withdraw: () => void;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(wake: () => void, withdraw: () => void) {
    this.#wake = wake;
    this.#withdraw = withdraw;
  }

  limit(timeouts: readonly number[]): void {
    timeouts.forEach((milliseconds, i) => {
      if (milliseconds > 0)
        this.#timers.push(setTimeout(() => this.cancel(TIMEOUTS[i]), Math.min(milliseconds, LONGEST)));
    });
  }

  end(result: NonNullable<LockWait['result']>): void {
    if (this.result !== undefined) return;
    for (const timer of this.#timers) clearTimeout(timer);
    this.result = result;
    this.#wake();
  }

  cancel(error: PgError): void {
    if (this.result !== undefined) return;
    this.#withdraw();
    this.end(error);
  }
}
