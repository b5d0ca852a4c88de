import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { ControlClient } from '../../replication/control-client.ts';
import { removeDurably, replaceDurably } from '../../runtime/durable-file.ts';

/**
 * How far this node has come with its sequences, for data that are replaced by a copy of another node's: nothing in those tells it. What a sequence
 * hands out is not replicated, and its own class of values (catalog/sql/sequences.ts) is nobody else's. Noted before the old data go, and held
 * against the copy before that becomes this node's own.
 */
export class OwnSequences {
  readonly #file: string;
  readonly #databases: readonly string[];
  readonly #node: number;
  readonly #connect: (database: string) => Promise<ControlClient>;

  /** `connect` gives a connection to this node's PostgreSQL as it is then. */
  constructor(
    { dataDir, databases, node }: { dataDir: string; databases: readonly string[]; node: number },
    connect: (database: string) => Promise<ControlClient>,
  ) {
    this.#file = join(dataDir, 'sequences.json');
    this.#databases = databases;
    this.#node = node;
    this.#connect = connect;
  }

  /** To be called while no proxy runs. An earlier note counts as well: this may be another attempt, with the copy in place already. */
  async note(): Promise<void> {
    const noted = await this.#read();
    for (const database of this.#databases) {
      const reached = (noted[database] ??= {});
      await this.#within(database, async (client) => {
        if (!(await this.#isOwn(client))) return;
        const { rows } = await client.ask<Reached & { name: string }>(REACHED);
        for (const { name, last, ascending } of rows) reached[name] = further({ last, ascending }, reached[name]);
      });
      // One by one: another one may not be to be asked.
      await replaceDurably(this.#file, `${JSON.stringify(noted)}\n`);
    }
  }

  /** Lets the sequences of a copy go on beyond what was noted. May be called again. */
  async goBeyond(): Promise<void> {
    const noted = await this.#read();
    for (const database of this.#databases) {
      const reached = Object.entries(noted[database] ?? {});
      if (reached.length === 0) continue;
      await this.#within(database, async (client) => {
        await client.ask('SET session_replication_role = replica');
        await client.ask('SET synchronous_commit = on');
        // Else the node's start sees to it: the whole database is another node's.
        const isAligned = await this.#isOwn(client);
        for (const [name, position] of reached) await advance(client, name, position, isAligned);
      });
    }
  }

  async forget(): Promise<void> {
    await removeDurably(this.#file);
  }

  /** False also where it has not been one of a cluster yet. */
  async #isOwn(client: ControlClient): Promise<boolean> {
    const found = await client.ask(`SELECT WHERE pg_catalog.to_regclass('multimaster.installation') IS NOT NULL`);
    if (found.rowCount === 0) return false;
    return (await client.ask('SELECT FROM multimaster.installation WHERE node_id = $1', [this.#node])).rowCount === 1;
  }

  async #within(database: string, work: (client: ControlClient) => Promise<void>): Promise<void> {
    const client = await this.#connect(database);
    client.on('error', () => undefined);
    try {
      await work(client);
    } finally {
      await client.end();
    }
  }

  async #read(): Promise<Noted> {
    try {
      return NOTED.parse(JSON.parse(await readFile(this.#file, 'utf8')));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
      throw new Error(`${this.#file} is damaged: ${(error as Error).message}`, { cause: error });
    }
  }
}

const REACHED_SCHEMA = z.object({ last: z.string().regex(/^-?\d+$/), ascending: z.boolean() });
const NOTED = z.record(z.string(), z.record(z.string(), REACHED_SCHEMA));
type Reached = z.infer<typeof REACHED_SCHEMA>;
/** By database and name. */
type Noted = z.infer<typeof NOTED>;

/** What has been used at all. One that begins again when it has come to its end hands out values twice anyway. */
const REACHED = `
SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name, p.last::pg_catalog.text AS last, s.seqincrement > 0 AS ascending
FROM pg_catalog.pg_sequence s
JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace,
  LATERAL (SELECT pg_catalog.pg_sequence_last_value(c.oid) AS last) p
WHERE c.relpersistence <> 't' AND c.oid >= 16384 AND n.nspname <> 'multimaster' AND NOT s.seqcycle AND p.last IS NOT NULL`;

function further(a: Reached, b: Reached | undefined): Reached {
  return b === undefined || (a.ascending ? BigInt(a.last) > BigInt(b.last) : BigInt(a.last) < BigInt(b.last)) ? a : b;
}

async function advance(client: ControlClient, name: string, { last, ascending }: Reached, align: boolean) {
  const { rows } = await client.ask<{ low: string; high: string; as_noted: boolean }>(
    `SELECT s.seqmin::pg_catalog.text AS low, s.seqmax::pg_catalog.text AS high, (s.seqincrement > 0) = $2 AND NOT s.seqcycle AS as_noted
     FROM pg_catalog.pg_sequence s WHERE s.seqrelid = pg_catalog.to_regclass($1)`,
    [name, ascending],
  );
  const found = rows.at(0);
  if (found?.as_noted !== true) return;
  const sign = ascending ? 1n : -1n;
  const current = (
    await client.ask<{ last: string; used: boolean }>(
      `SELECT last_value::pg_catalog.text AS last, is_called AS used FROM ${name}`,
    )
  ).rows[0];
  const ahead = sign * (BigInt(last) - BigInt(current.last));
  if (ahead < 0n || (ahead === 0n && current.used)) return;
  // Beyond its end nothing is left of the node's values, and the next nextval() says so.
  const [low, high] = [BigInt(found.low), BigInt(found.high)];
  const value = BigInt(last) < low ? low : BigInt(last) > high ? high : BigInt(last);
  await client.ask('SELECT pg_catalog.setval($1::pg_catalog.regclass, $2, true)', [name, value.toString()]);
  if (align) await client.ask('SELECT multimaster.align_sequence($1::pg_catalog.regclass)', [name]);
}
