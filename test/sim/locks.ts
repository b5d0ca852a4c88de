import type { Loop, Process } from './loop.ts';
import type { Gid } from '../../src/runtime/ids.ts';

/** A row change. `base` names the transaction whose version it was computed from; null where there was no row. */
export interface Write {
  readonly key: string;
  readonly op: 'insert' | 'update' | 'delete';
  readonly base: Gid | null;
  readonly value: string;
}

/** A transaction inside the model PostgreSQL. */
export interface Tx {
  readonly kind: 'client' | 'replay';
  /** The backend that runs it. */
  readonly pid: number;
  /** Known from the start for a replay, from PREPARE on for a client's. */
  gid: Gid | undefined;
  database: string;
  state: 'open' | 'preparing' | 'prepared' | 'gone';
  readonly writes: Map<string, Write>;
  readonly locks: Set<string>;
  waiting: Waiter | undefined;
  /** Which of the server's slots has all its changes; see LiveSlot. */
  slot: number;
}

interface Waiter {
  readonly tx: Tx;
  readonly key: string;
  readonly granted: () => void;
  readonly failed: (sqlstate: string) => void;
}

interface Lock {
  holder: Tx;
  readonly queue: Waiter[];
}

/** Exclusive row locks with queues, and the detection of deadlocks among those who wait. */
export class Locks {
  readonly #loop: Loop;
  readonly #process: Process;
  readonly #locks = new Map<string, Lock>();
  deadlocks = 0;

  constructor(loop: Loop, process: Process) {
    this.#loop = loop;
    this.#process = process;
  }

  acquire(tx: Tx, key: string, granted: () => void, failed: (sqlstate: string) => void): void {
    const lock = this.#locks.get(key);
    if (lock === undefined) {
      this.#locks.set(key, { holder: tx, queue: [] });
      tx.locks.add(key);
      granted();
    } else if (lock.holder === tx) {
      granted();
    } else {
      const waiter = { tx, key, granted, failed };
      tx.waiting = waiter;
      lock.queue.push(waiter);
      this.#loop.in(this.#process, tx.kind === 'replay' ? 30 : 300, () => this.#checkDeadlock(waiter));
    }
  }

  /** Who holds what this transaction waits for. */
  holderBefore(tx: Tx): Tx | undefined {
    return tx.waiting === undefined ? undefined : this.#locks.get(tx.waiting.key)?.holder;
  }

  stopWaiting(tx: Tx, sqlstate: string): void {
    const { waiting } = tx;
    if (waiting === undefined) return;
    const queue = this.#locks.get(waiting.key)?.queue;
    queue?.splice(queue.indexOf(waiting), 1);
    tx.waiting = undefined;
    waiting.failed(sqlstate);
  }

  release(tx: Tx): void {
    for (const key of tx.locks) {
      const lock = this.#locks.get(key)!;
      const next = lock.queue.shift();
      if (next === undefined) {
        this.#locks.delete(key);
        continue;
      }
      lock.holder = next.tx;
      next.tx.locks.add(key);
      next.tx.waiting = undefined;
      this.#loop.in(this.#process, 0.05, () => {
        if (next.tx.state === 'open') next.granted();
        else next.failed('57014');
      });
    }
    tx.locks.clear();
  }

  /** A crash: what was prepared holds its locks again, nothing else does. */
  reset(prepared: Iterable<Tx>): void {
    this.#locks.clear();
    for (const tx of prepared) for (const key of tx.locks) this.#locks.set(key, { holder: tx, queue: [] });
  }

  /** PostgreSQL sees no further than to a prepared transaction. */
  #checkDeadlock(waiter: Waiter): void {
    if (waiter.tx.waiting !== waiter) return;
    let tx: Tx | undefined = waiter.tx;
    for (let depth = 0; depth < 50 && tx !== undefined; depth++) {
      tx = this.holderBefore(tx);
      if (tx === waiter.tx) {
        this.deadlocks++;
        return this.stopWaiting(waiter.tx, '40P01');
      }
    }
  }

  describe(): string[] {
    return [...this.#locks].map(([key, { holder, queue }]) => {
      const name = ({ kind, pid, gid, state }: Tx) => `${kind} ${gid ?? pid} ${state}`;
      return `${key}: ${name(holder)}, then ${queue.map(({ tx }) => name(tx)).join(', ') || 'nobody'}`;
    });
  }
}
