import pg from 'pg';
import { Rng } from '../sim/rng.ts';
import { waitFor } from '../support/wait-for.ts';

/** One transaction of a writer: its statements, in a block where there are several. `unique` is a number that never comes again. */
export type WriterTransaction = (rng: Rng, unique: number) => readonly (string | pg.QueryConfig)[];

export interface WriterOptions {
  readonly uri: string;
  readonly node: number;
  /** No two writers have the same. */
  readonly seed: number;
  readonly transactions: readonly WriterTransaction[];
}

/** One client that writes without a pause until it is stopped. What failed is not tried again: the next transaction is another. */
export class LoadWriter {
  readonly node: number;
  readonly #transactions: readonly WriterTransaction[];
  readonly #client: pg.Client;
  readonly #rng: Rng;
  #unique: number;
  #stopped = false;
  #done: Promise<void> = Promise.resolve();
  /** What ended it, when that was no error of PostgreSQL's. */
  #broken: unknown;
  committed = 0;
  /** "SQLSTATE message" of the transactions that failed since they were last taken. */
  #failures = new Set<string>();

  private constructor(client: pg.Client, { node, seed, transactions }: WriterOptions) {
    this.#client = client;
    this.node = node;
    this.#transactions = transactions;
    this.#rng = new Rng(seed);
    this.#unique = seed * 1_000_000;
  }

  static async start(options: WriterOptions): Promise<LoadWriter> {
    const client = new pg.Client({ connectionString: options.uri });
    await client.connect();
    const writer = new LoadWriter(client, options);
    writer.#done = writer.#run();
    return writer;
  }

  async #run(): Promise<void> {
    try {
      while (!this.#stopped) await this.#transact(this.#rng.pick(this.#transactions)(this.#rng, ++this.#unique));
    } catch (error) {
      this.#broken = error;
    }
  }

  async #transact(statements: readonly (string | pg.QueryConfig)[]): Promise<void> {
    const block = statements.length > 1;
    try {
      for (const statement of block ? ['BEGIN', ...statements, 'COMMIT'] : statements)
        await this.#client.query(statement);
      this.committed += 1;
    } catch (error) {
      if (!(error instanceof pg.DatabaseError)) throw error;
      this.#failures.add(`${error.code} ${error.message}`);
      if (block) await this.#client.query('ROLLBACK');
    }
  }

  takeFailures(): string[] {
    const failures = [...this.#failures];
    this.#failures.clear();
    return failures;
  }

  /** Waits until it has committed something that it began after this call. */
  async goesOn(): Promise<void> {
    // The one under way may have begun before.
    const enough = this.committed + 2;
    await waitFor(
      `a writer of node ${this.node} goes on`,
      () => this.#broken !== undefined || this.committed >= enough,
      {
        timeoutMs: 60_000,
        describe: () => [...this.#failures],
      },
    );
    this.#throwBroken();
  }

  /** Ends it after the transaction under way. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
    await this.#client.end();
    this.#throwBroken();
  }

  #throwBroken(): void {
    if (this.#broken !== undefined) throw this.#broken as Error;
  }
}
