import type { LogIndex } from '../runtime/ids.ts';
import type { DecidedCommit } from './core/commit-queue.ts';

/** A connection to one database that commits in order; see replication/commit-connection.ts. */
export interface CommitConnection {
  /**
   * Commits these one after the other and stops at the first failure. `done` is called with each index as it is committed.
   * Rejects with the first error; nothing after the failed one was tried.
   */
  commit(entries: readonly DecidedCommit[], done: (index: LogIndex) => void): Promise<void>;
}

/** As many COMMIT PREPARED travel in one write at the most; more would delay the first one's answer for nothing. */
const MAX_BATCH = 32;

/**
 * Runs COMMIT PREPARED strictly in log order (I3), over however many databases. One batch is under way at a time; what is
 * decided meanwhile goes with the next, so round trips are shared under load while the order never depends on timing.
 */
export class Committer {
  readonly #connection: (database: string) => CommitConnection | undefined;
  readonly #committed: (index: LogIndex) => void;
  readonly #failed: (error: Error) => void;
  #queue: DecidedCommit[] = [];
  #running = false;
  #stopped = false;
  #idle: (() => void)[] = [];

  /** `failed` is called once, after which nothing is committed until `reset`. */
  constructor(options: {
    connection: (database: string) => CommitConnection | undefined;
    committed: (index: LogIndex) => void;
    failed: (error: Error) => void;
  }) {
    this.#connection = options.connection;
    this.#committed = options.committed;
    this.#failed = options.failed;
  }

  commit(entry: DecidedCommit): void {
    if (this.#stopped) return;
    this.#queue.push(entry);
    if (!this.#running) {
      this.#running = true;
      // Entries that one message of the log brought are handed over in one turn: let them gather.
      queueMicrotask(() => void this.#run());
    }
  }

  async #run(): Promise<void> {
    try {
      while (this.#queue.length > 0) {
        const batch = this.#takeBatch();
        const connection = this.#connection(batch[0].database);
        if (connection === undefined) throw new Error(`database "${batch[0].database}" is not connected`);
        await connection.commit(batch, this.#committed);
      }
    } catch (error) {
      if (!this.#stopped) {
        this.#stopped = true;
        this.#failed(error as Error);
      }
    }
    this.#running = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** The longest run of one database from the head of the queue. */
  #takeBatch(): DecidedCommit[] {
    const { database } = this.#queue[0];
    let length = 1;
    while (length < MAX_BATCH && length < this.#queue.length && this.#queue[length].database === database) length++;
    return this.#queue.splice(0, length);
  }

  /** Gives up what was not begun and waits until nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#queue = [];
    if (this.#running) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Takes entries again, from wherever PostgreSQL stands. */
  reset(): void {
    if (this.#running) throw new Error('the committer is still running');
    this.#stopped = false;
    this.#queue = [];
  }
}
