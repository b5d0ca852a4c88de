import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installedBin } from '../support/postgres.ts';
import { ReplayCluster } from '../support/replay-cluster.ts';

const versions: [string, string | undefined][] = [['from npm', undefined]];
if (installedBin !== undefined) versions.push(['installed', installedBin]);

describe.each(versions)('tables whose schema is renamed, on PostgreSQL %s', (_name, postgresBin) => {
  let c: ReplayCluster;

  beforeAll(async () => {
    c = await ReplayCluster.start({ postgresBin });
    await c.run(
      'CREATE SCHEMA a CREATE TABLE t (id int PRIMARY KEY, v text)',
      'CREATE SCHEMA b CREATE TABLE t (id int PRIMARY KEY, v text)',
    );
  });
  afterAll(() => c.stop());

  /** Rows that only this table is to have, from every node, whose decoders thereby have described it. */
  async function write(table: string, from: number): Promise<void> {
    for (const node of [1, 2, 3]) await c.on(node, `INSERT INTO ${table} VALUES (${from + node}, '${table}')`);
  }

  it('are written to from every node by the new name', async () => {
    await write('a.t', 0);
    await write('b.t', 0);
    await c.on(1, 'ALTER SCHEMA a RENAME TO c');
    await write('c.t', 10);
    await c.expectSame();
  });

  it('are not taken for those of a schema that has got the name', async () => {
    await c.on(
      2,
      `INSERT INTO c.t VALUES (20, 'c.t')`,
      'ALTER SCHEMA c RENAME TO x',
      'ALTER SCHEMA b RENAME TO c',
      'ALTER SCHEMA x RENAME TO b',
      `INSERT INTO c.t VALUES (30, 'c.t')`,
      `INSERT INTO b.t VALUES (30, 'b.t')`,
    );
    await write('c.t', 30);
    await write('b.t', 30);
    await c.expectSame();
    const kept = (table: string) => c.rows(`SELECT id FROM ${table} WHERE id >= 20 ORDER BY id`);
    expect(await kept('b.t')).toEqual([['20'], ['30'], ['31'], ['32'], ['33']]);
    expect(await kept('c.t')).toEqual([['30'], ['31'], ['32'], ['33']]);
  });
});
