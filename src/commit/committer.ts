import type { LogIndex } from '../runtime/ids.ts';
import { CommitLanes, type Assigned } from './core/commit-lanes.ts';
import type { DecidedCommit } from './core/commit-queue.ts';

/** A connection to one database that commits in order; see replication/commit-connection.ts. */
export interface CommitConnection {
  /**
   * Commits these one after the other and stops at the first failure. `done` is called with each index as it is committed.
   * Rejects with the first error; nothing after the failed one was tried.
   */
  commit(entries: readonly DecidedCommit[], done: (index: LogIndex) => void): Promise<void>;
}

export interface CommitterOptions {
  readonly connection: (database: string, lane: number) => CommitConnection | undefined;
  /** Everything up to this index that was handed over is committed. Called in log order, whatever the order of the commits. */
  readonly committed: (index: LogIndex) => void;
  /** Called once, after which nothing is committed until `reset`. */
  readonly failed: (error: Error) => void;
}

/** A moment in which nothing is committed. */
export interface CommitHold {
  /** Resolves when everything that was begun has come to its end, be it that nothing is committed any more at all. */
  readonly quiet: Promise<void>;
  /** Lets commits go on. False when they were given up meanwhile, so that what was seen of PostgreSQL in between proves nothing. */
  release(): boolean;
}

/** As many COMMIT PREPARED travel in one write at the most; more would delay the first one's answer for nothing. */
const MAX_BATCH = 32;

interface Lane {
  queue: DecidedCommit[];
  running: boolean;
}

/**
 * Runs COMMIT PREPARED over however many databases: strictly in log order (I3) by one lane, or in the order of each of several
 * lanes, which lets PostgreSQL share its fsyncs among them. One batch a lane is under way at a time; what is decided
 * meanwhile goes with the next, so round trips are shared under load while the order never depends on timing.
 */
export class Committer {
  readonly #options: CommitterOptions;
  #order = new CommitLanes(1);
  #lanes: Lane[] = [];
  /** Until it is told how many lanes there are. */
  #stopped = true;
  #idle: (() => void)[] = [];

  constructor(options: CommitterOptions) {
    this.#options = options;
  }

  commit(entry: DecidedCommit): void {
    if (!this.#stopped) this.#begin(this.#order.add(entry));
  }

  #begin(assigned: readonly Assigned[]): void {
    for (const { lane: number, entry } of assigned) {
      const lane = this.#lanes[number];
      lane.queue.push(entry);
      if (lane.running) continue;
      lane.running = true;
      // Entries that one message of the log brought are handed over in one turn: let them gather.
      queueMicrotask(() => void this.#run(lane, number));
    }
  }

  async #run(lane: Lane, number: number): Promise<void> {
    try {
      while (lane.queue.length > 0) {
        const batch = takeBatch(lane.queue);
        const connection = this.#options.connection(batch[0].database, number);
        if (connection === undefined) throw new Error(`database "${batch[0].database}" is not connected`);
        await connection.commit(batch, (index) => this.#onCommitted(index));
      }
    } catch (error) {
      if (!this.#stopped) {
        this.#stopped = true;
        this.#forget();
        this.#options.failed(error as Error);
      }
    }
    lane.running = false;
    if (!this.#isRunning) for (const resolve of this.#idle.splice(0)) resolve();
  }

  #onCommitted(index: LogIndex): void {
    const { reported, assigned } = this.#order.done(index);
    for (const one of reported) this.#options.committed(one);
    this.#begin(assigned);
  }

  get #isRunning(): boolean {
    return this.#lanes.some(({ running }) => running);
  }

  /** What was not begun is given up. */
  #forget(): void {
    this.#order.stop();
    for (const lane of this.#lanes) lane.queue = [];
  }

  async #becomesIdle(): Promise<void> {
    if (this.#isRunning) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Gives up what was not begun and waits until nothing is under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#forget();
    await this.#becomesIdle();
  }

  /** Begins nothing more until it is released: what is decided meanwhile waits, and goes on from there. One hold at a time. */
  hold(): CommitHold {
    const order = this.#order;
    order.hold();
    return {
      quiet: this.#becomesIdle(),
      release: () => {
        if (this.#stopped || this.#order !== order) return false;
        this.#begin(order.resume());
        return true;
      },
    };
  }

  /**
   * Takes entries, from wherever PostgreSQL stands. With one lane every commit waits for the one before it (`commit.order: strict`); with more, entry
   * i goes through lane i mod `lanes`.
   */
  reset(lanes: number): void {
    if (this.#isRunning) throw new Error('the committer is still running');
    this.#order = new CommitLanes(lanes);
    this.#lanes = Array.from({ length: lanes }, () => ({ queue: [], running: false }));
    this.#stopped = false;
  }
}

/** The longest run of one database from the head of the queue. */
function takeBatch(queue: DecidedCommit[]): DecidedCommit[] {
  const { database } = queue[0];
  let length = 1;
  while (length < MAX_BATCH && length < queue.length && queue[length].database === database) length++;
  return queue.splice(0, length);
}
