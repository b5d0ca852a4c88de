import pg from 'pg';
import type { Outcome } from './checker/history.ts';
import { isUnknown } from '../faults/operations.ts';
import type { Level } from './levels.ts';

/** Where sessions connect to: the nodes of a cluster, or one server that is its own only node. */
export interface Target {
  readonly name: string;
  readonly uris: () => readonly string[];
}

/** Numbers sessions: one that connects again is another, as its node may be another run of the node. */
let processes = 0;

/** One client of one node, which connects again when its connection breaks. */
export class Session {
  readonly node: number;
  readonly #target: Target;
  readonly #level: Level;
  readonly #remoteApply: boolean;
  #client: pg.Client | undefined;
  process = 0;
  transactions = 0;
  readonly failures: Record<string, number> = {};

  constructor(target: Target, node: number, level: Level, remoteApply: boolean) {
    this.#target = target;
    this.node = node;
    this.#level = level;
    this.#remoteApply = remoteApply;
  }

  /** One transaction; what became of it. Errors that are not PostgreSQL's or the connection's are thrown. */
  async transact(body: (client: pg.Client) => Promise<unknown>): Promise<Outcome> {
    let committing = false;
    try {
      const client = await this.#connect();
      await client.query(`BEGIN ISOLATION LEVEL ${this.#level}`);
      await body(client);
      committing = true;
      await client.query('COMMIT');
      this.transactions += 1;
      return 'committed';
    } catch (error) {
      if (error instanceof TypeError) throw error;
      const code = error instanceof pg.DatabaseError ? (error.code ?? '?') : 'connection';
      this.failures[code] = (this.failures[code] ?? 0) + 1;
      const usable = error instanceof pg.DatabaseError && (await this.#client?.query('ROLLBACK').then(yes, no));
      if (!usable) await this.end();
      return committing && isUnknown(error) ? 'unknown' : 'aborted';
    }
  }

  async #connect(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    const connectionString = this.#target.uris()[this.node - 1];
    const client = new pg.Client({ connectionString, connectionTimeoutMillis: 5000 });
    client.on('error', () => undefined);
    this.#client = client;
    await client.connect();
    if (this.#remoteApply) await client.query('SET synchronous_commit = remote_apply');
    this.process = ++processes;
    return client;
  }

  async end(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }
}

const yes = () => true;
const no = () => false;
