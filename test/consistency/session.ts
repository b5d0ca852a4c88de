import pg from 'pg';
import type { Rng } from '../sim/rng.ts';
import type { Outcome } from './checker/history.ts';
import { isUnknown } from '../faults/operations.ts';
import type { Doubt } from './doubts.ts';
import type { CommitOrder, Level } from './levels.ts';

/** Where sessions connect to: the nodes of a cluster, or one server that is its own only node. */
export interface Target {
  readonly name: string;
  readonly uris: () => readonly string[];
  /** Whether it can be asked what became of a transaction. */
  readonly tellsOutcomes: boolean;
  /** In which order its nodes commit what is decided. */
  readonly order: CommitOrder;
}

export interface SessionOptions {
  readonly node: number;
  readonly level: Level;
  /** Whether commits wait until every node shows them. */
  readonly remoteApply: boolean;
  /** Draws the moments at which the client loses its connection in the middle of a COMMIT; without it, it does so never. */
  readonly losses?: Rng | undefined;
}

/** How likely it is to lose the connection in a COMMIT, and within how many milliseconds of sending it. */
const LOSS = 0.05;
const LOSS_WITHIN = 40;
/** Milliseconds before the next attempt at a node that is down or takes no writes, so that it costs the others no processor. */
const RECONNECT = 50;

/** Numbers sessions: one that connects again is another, as its node may be another run of the node. */
let processes = 0;

/** One client of one node, which connects again when its connection breaks. */
export class Session {
  readonly node: number;
  readonly #target: Target;
  readonly #options: SessionOptions;
  #client: pg.Client | undefined;
  #begun = 0;
  process = 0;
  transactions = 0;
  /** Transactions whose client was not told what became of them, and those of them that have a name to ask by. */
  unknown = 0;
  readonly doubts: Doubt[] = [];
  readonly failures: Record<string, number> = {};

  constructor(target: Target, options: SessionOptions) {
    this.#target = target;
    this.#options = options;
    this.node = options.node;
  }

  /**
   * One transaction; what became of it. Errors that are not PostgreSQL's or the connection's are thrown. When the answer
   * is `unknown`, `settle` is called after the run with what the cluster says, if the transaction had asked for its name.
   */
  async transact(body: (client: pg.Client) => Promise<unknown>, settle: Doubt['settle'] = ignore): Promise<Outcome> {
    let committing = false;
    let gid: string | undefined;
    try {
      const client = await this.#connect();
      await client.query(`BEGIN ISOLATION LEVEL ${this.#options.level}`);
      await body(client);
      gid = await this.#nameOf(client);
      committing = true;
      this.#loseSoon(client);
      await client.query('COMMIT');
      this.transactions += 1;
      return 'committed';
    } catch (error) {
      if (error instanceof TypeError) throw error;
      const code = error instanceof pg.DatabaseError ? (error.code ?? '?') : 'connection';
      this.failures[code] = (this.failures[code] ?? 0) + 1;
      const usable = error instanceof pg.DatabaseError && (await this.#client?.query('ROLLBACK').then(yes, no));
      // Not waited for: a node that is paused takes its time.
      if (!usable) void this.end();
      if (code === 'connection' || code === '57P03') await new Promise((resolve) => setTimeout(resolve, RECONNECT));
      if (!committing || !isUnknown(error)) return 'aborted';
      this.unknown += 1;
      if (gid !== undefined) this.doubts.push({ gid, settle });
      return 'unknown';
    }
  }

  /** Of every other transaction: those without one remain of unknown outcome, as those of most applications would. */
  async #nameOf(client: pg.Client): Promise<string | undefined> {
    this.#begun += 1;
    if (!this.#target.tellsOutcomes || this.#begun % 2 === 0) return undefined;
    const { rows } = await client.query<{ gid: string }>('SELECT multimaster.current_gid() AS gid');
    return rows[0].gid;
  }

  #loseSoon(client: pg.Client): void {
    const { losses } = this.#options;
    if (losses?.chance(LOSS) === true) setTimeout(() => client.connection.stream.destroy(), losses.below(LOSS_WITHIN));
  }

  async #connect(): Promise<pg.Client> {
    if (this.#client !== undefined) return this.#client;
    const connectionString = this.#target.uris()[this.node - 1];
    const client = new pg.Client({ connectionString, connectionTimeoutMillis: 5000 });
    client.on('error', () => undefined);
    this.#client = client;
    await client.connect();
    if (this.#options.remoteApply) await client.query('SET synchronous_commit = remote_apply');
    this.process = ++processes;
    return client;
  }

  async end(): Promise<void> {
    const client = this.#client;
    this.#client = undefined;
    await client?.end().catch(() => undefined);
  }
}

const ignore = () => undefined;
const yes = () => true;
const no = () => false;
