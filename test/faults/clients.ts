import pg from 'pg';
import type { Rng } from '../sim/rng.ts';
import { isUnknown, perform, TOTAL, type Answer, type Operation } from './operations.ts';

const KINDS = ['transfer', 'append', 'insert'] as const;
/** Milliseconds between two attempts to connect, so that a node that is down costs no processor. */
const RECONNECT = 50;

/** What one client or reader is connected to; a name for messages. */
interface Target {
  readonly node: number;
  /** Asked for at every connect. */
  readonly uri: () => string;
}

/** Runs random operations over one connection, and connects again when it breaks. */
export class FaultClient {
  readonly #target: Target;
  readonly #rng: Rng;
  readonly #next: () => number;
  readonly operations: Operation[] = [];
  /** Monotonic times of acknowledgements. */
  readonly acknowledged: number[] = [];
  /** SQLSTATEs of failures, with how often each came. */
  readonly failures = new Map<string, number>();
  #client: pg.Client | undefined;
  #stopped = false;
  #done: Promise<void> = Promise.resolve();

  constructor(target: Target, rng: Rng, next: () => number) {
    this.#target = target;
    this.#rng = rng;
    this.#next = next;
  }

  get node(): number {
    return this.#target.node;
  }

  start(): void {
    this.#done = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const client = await this.#connected();
      if (client === undefined) continue;
      const kind = this.#rng.pick(KINDS);
      const operation: Operation = { id: this.#next(), kind, node: this.#target.node, answer: 'unknown' };
      this.operations.push(operation);
      operation.answer = await this.#attempt(client, operation);
    }
  }

  async #attempt(client: pg.Client, operation: Operation): Promise<Answer> {
    try {
      await perform(client, operation, this.#rng);
      this.acknowledged.push(performance.now());
      return 'committed';
    } catch (error) {
      const code = error instanceof pg.DatabaseError ? (error.code ?? '?') : 'connection';
      operation.error = `${code} ${(error as Error).message}`;
      this.failures.set(code, (this.failures.get(code) ?? 0) + 1);
      // Refused at once, as the node can't write now: asking again and again would only cost the others their processor.
      if (code === '57P03') await pause(RECONNECT);
      // Whatever the state of the connection: a transaction that is open on it must not go on.
      const usable = error instanceof pg.DatabaseError && (await client.query('ROLLBACK').then(yes, no));
      if (!usable) this.#drop();
      return isUnknown(error) ? 'unknown' : 'failed';
    }
  }

  async #connected(): Promise<pg.Client | undefined> {
    if (this.#client !== undefined) return this.#client;
    this.#client = await connect(this.#target.uri());
    return this.#client;
  }

  #drop(): void {
    this.#client?.end().catch(() => undefined);
    this.#client = undefined;
  }

  /** Ends after the operation under way, which must not take longer than any fault. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
    this.#drop();
  }
}

/** Reads the sum of all accounts on one node again and again: every snapshot has to show the same. */
export class FaultReader {
  readonly #target: Target;
  reads = 0;
  readonly wrong: string[] = [];
  #stopped = false;
  #done: Promise<void> = Promise.resolve();

  constructor(target: Target) {
    this.#target = target;
  }

  start(): void {
    this.#done = this.#run();
  }

  async #run(): Promise<void> {
    let client: pg.Client | undefined;
    while (!this.#stopped) {
      client ??= await connect(this.#target.uri());
      if (client === undefined) continue;
      try {
        const { rows } = await client.query<{ sum: string }>('SELECT sum(balance) FROM account');
        this.reads += 1;
        if (Number(rows[0].sum) !== TOTAL) this.wrong.push(`node ${this.#target.node} showed a sum of ${rows[0].sum}`);
        await pause(RECONNECT);
      } catch {
        // Reads may fail while a node is down; what is read must be right.
        client.end().catch(() => undefined);
        client = undefined;
      }
    }
    await client?.end().catch(() => undefined);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }
}

async function connect(uri: string): Promise<pg.Client | undefined> {
  const client = new pg.Client({ connectionString: uri, connectionTimeoutMillis: 5000 });
  client.on('error', () => undefined);
  try {
    await client.connect();
    return client;
  } catch {
    client.end().catch(() => undefined);
    await pause(RECONNECT);
    return undefined;
  }
}

const yes = () => true;
const no = () => false;
const pause = (milliseconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, milliseconds));
