import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type pg from 'pg';
import type { Rng } from '../sim/rng.ts';
import { ReplayCluster } from '../support/replay-cluster.ts';
import { LoadWriter, type WriterTransaction } from './load-writers.ts';

const ROWS = 300;
const LOCK_TIMEOUT = '20s';
/** How often an application runs a block again that lost a conflict, before it is said to starve. */
const TRIES = 10;

const key = (rng: Rng) => 1 + rng.below(ROWS);
const update = (table: string, rng: Rng) => `UPDATE ${table} SET v = v + 1 WHERE id = ${key(rng)}`;

/** Single statements on the table that is altered, one of them with a column that is dropped in the end. */
const SINGLE: readonly WriterTransaction[] = [
  (rng) => [update('load', rng)],
  (_, unique) => [`INSERT INTO load (id, v) VALUES (${unique}, 0)`],
  (rng) => [`DELETE FROM load WHERE id = ${key(rng)}`],
  (rng) => [`INSERT INTO load (id, v) VALUES (${key(rng)}, 1) ON CONFLICT (id) DO UPDATE SET v = load.v + 1`],
  (rng) => [`UPDATE load SET extra = 'new' WHERE id = ${key(rng)}`],
];
const BLOCKS: readonly WriterTransaction[] = [
  (rng, unique) => [update('other', rng), `INSERT INTO load (id, v) VALUES (${unique}, 2)`, update('load', rng)],
  (rng) => [update('load', rng), update('load', rng)],
  (rng, unique) => [update('other', rng), `INSERT INTO third VALUES (${unique})`],
];
const PREPARED: readonly WriterTransaction[] = [
  (rng) => [{ name: 'u', text: 'UPDATE load SET v = v + 1 WHERE id = $1', values: [key(rng)] }],
  (_, unique) => [{ name: 'i', text: 'INSERT INTO load (id, v) VALUES ($1, 3)', values: [unique] }],
  (rng) => [update('other', rng), { name: 's', text: 'SELECT count(*) FROM load WHERE id = $1', values: [key(rng)] }],
];
const ELSEWHERE: readonly WriterTransaction[] = [(rng) => [update('other', rng)]];

const LOST = /^40001 /;
const NO_THIRD = /^42P01 relation "third" does not exist/;
const NO_EXTRA = /^42703 column "extra" of relation "load" does not exist/;
const NO_LOAD = /^42P01 relation "load" does not exist/;

interface Case {
  readonly statements: readonly string[];
  /** What writers may find besides a lost conflict, as they would on one server. */
  readonly allowed?: readonly RegExp[];
}

const CASES: readonly Case[] = [
  { statements: ['ALTER TABLE load ADD COLUMN plain int'] },
  { statements: ["ALTER TABLE load ADD COLUMN fixed text NOT NULL DEFAULT 'x'"] },
  { statements: ['ALTER TABLE load ALTER COLUMN v TYPE bigint'] },
  { statements: ['CREATE INDEX load_v ON load (v)'] },
  { statements: ['DROP INDEX load_v'] },
  {
    statements: [
      'ALTER TABLE load ADD CONSTRAINT sane CHECK (v > -1000000) NOT VALID',
      'ALTER TABLE load VALIDATE CONSTRAINT sane',
    ],
  },
  { statements: ['TRUNCATE load'] },
  { statements: ['CREATE TABLE third (id int PRIMARY KEY)'] },
  { statements: ['DROP TABLE third'] },
  {
    statements: ['ALTER TABLE load RENAME TO load_away', 'ALTER TABLE load_away RENAME TO load'],
    allowed: [NO_LOAD],
  },
  { statements: ['ALTER TABLE load DROP COLUMN extra'], allowed: [NO_EXTRA] },
];

describe('DDL under steady writes on all nodes', () => {
  let cluster: ReplayCluster;
  let admins: pg.Client[];
  let writers: LoadWriter[] = [];

  beforeAll(async () => {
    cluster = await ReplayCluster.start();
    for (const [table, more] of [
      ['load', ', extra text'],
      ['other', ''],
    ])
      await cluster.each(
        `CREATE TABLE ${table} (id int PRIMARY KEY, v int NOT NULL ${more})`,
        `INSERT INTO ${table} SELECT n, 0 FROM generate_series(1, ${ROWS}) n`,
      );
    admins = await Promise.all([1, 2, 3].map((node) => cluster.connect(node)));
    for (const admin of admins) await admin.query(`SET lock_timeout = '${LOCK_TIMEOUT}'`);
    const { cluster: nodes } = cluster;
    writers = await Promise.all(
      [1, 2, 3].flatMap((node) =>
        [SINGLE, BLOCKS, PREPARED, ELSEWHERE].map((transactions, i) =>
          LoadWriter.start({ uri: nodes.node(node).uri, node, seed: node * 10 + i, transactions }),
        ),
      ),
    );
  });

  afterAll(async () => {
    await Promise.all(admins.map((admin) => admin.end()));
    await cluster.stop();
  });

  async function writersGoOn(): Promise<void> {
    await Promise.all(writers.map((writer) => writer.goesOn()));
  }

  /** Whatever writers have found since the last time is what they may find. */
  function expectFailures(allowed: readonly RegExp[]): void {
    const failures = writers.flatMap((writer) => writer.takeFailures());
    const known = [LOST, NO_THIRD, ...allowed];
    expect(failures.filter((failure) => !known.some((pattern) => pattern.test(failure)))).toEqual([]);
  }

  it.each(CASES.map((one, i) => ({ ...one, name: one.statements.join('; '), node: 1 + (i % 3) })))(
    '$name, on node $node',
    async ({ statements, allowed = [], node }) => {
      await writersGoOn();
      expectFailures([]);
      for (const sql of statements) await admins[node - 1].query(sql);
      await writersGoOn();
      expectFailures(allowed);
    },
  );

  it('in a block, which its application runs again when it lost', async () => {
    const [admin] = admins;
    const block = ['ALTER TABLE load ADD COLUMN a int', 'CREATE INDEX load_a ON load (a)', 'UPDATE load SET a = 1'];
    let tries = 0;
    for (let done = false; !done;) {
      tries += 1;
      try {
        for (const sql of ['BEGIN', ...block, 'COMMIT']) await admin.query(sql);
        done = true;
      } catch (error) {
        await admin.query('ROLLBACK');
        expect(error).toMatchObject({ code: '40001' });
        expect(tries).toBeLessThan(TRIES);
      }
    }
    await writersGoOn();
    expectFailures([NO_EXTRA]);
  });

  it('leaves all nodes with the same schema and rows, and nothing prepared', async () => {
    await Promise.all(writers.map((writer) => writer.stop()));
    await cluster.expectSame();
    const columns = await cluster.rows(
      `SELECT attname FROM pg_attribute WHERE attrelid = 'load'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
    );
    expect(columns.flat()).toEqual(['id', 'v', 'plain', 'fixed', 'a']);
  });
});
