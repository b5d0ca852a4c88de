import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { REQUEST_FILE } from '../../src/cluster/reclone/recloner.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { installedBin } from '../support/postgres.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };

/** A logical copy needs the pg_dump of the machine's PostgreSQL; a physical one is what the playground's settings are for. */
const methods = [
  ['physical', undefined, {}],
  ['logical', installedBin, { reclone: { mode: 'automatic', method: 'logical', keep_old: false } }],
] as const;

describe.each(methods.filter(([method, bin]) => method === 'physical' || bin !== undefined))(
  'the sequences of a node whose data are replaced by a %s copy',
  (_method, postgresBin, settings) => {
    let cluster: TestCluster;

    beforeAll(async () => {
      cluster = await (await startCluster({ relays: false, postgresBin, settings })).ready();
    });
    afterAll(() => cluster.stop());

    async function on(uri: string, ...statements: string[]): Promise<number> {
      const client = new pg.Client({ connectionString: uri });
      await client.connect();
      try {
        let last: pg.QueryResult<{ v?: string }> | undefined;
        for (const sql of statements) last = await client.query<{ v?: string }>(sql);
        return Number(last?.rows.at(0)?.v);
      } finally {
        await client.end();
      }
    }

    it('go on beyond what it has handed out', async () => {
      // As if the database had had them before it was taken in; no statement of a client makes one alone.
      for (const node of [1, 2, 3])
        await on(
          cluster.node(node).postgresUri,
          'SET session_replication_role = replica',
          'CREATE SEQUENCE invoice',
          'CREATE SEQUENCE "Down" INCREMENT -1',
          'CREATE SEQUENCE idle',
        );
      const own = cluster.node(2);
      const take = (sequence: string, count: number) =>
        on(own.uri, `SELECT nextval('${sequence}') AS v FROM generate_series(1, ${count}) ORDER BY 1 DESC`);
      await on(own.uri, 'CREATE TABLE t (id serial PRIMARY KEY)');
      const before = {
        invoice: await take('invoice', 1000),
        down: await on(own.uri, `SELECT min(nextval('"Down"')) AS v FROM generate_series(1, 500)`),
        owned: await on(own.uri, 'INSERT INTO t SELECT FROM generate_series(1, 50)', 'SELECT max(id) AS v FROM t'),
      };
      // The highest values are in no row any more.
      await on(own.uri, 'DELETE FROM t');

      writeFileSync(join(cluster.dir, 'node2', 'pgmm', REQUEST_FILE), '');
      await waitFor(
        'a copy is in place',
        () => cluster.log(2, 'proxy').includes('goes on with a copy of node'),
        PATIENCE,
      );
      await waitFor('the node is back', () => isReady(cluster, 2), PATIENCE);
      const uri = cluster.node(2).uri;
      const next = (sequence: string) => on(uri, `SELECT nextval('${sequence}') AS v`);
      expect(await next('invoice')).toBe(before.invoice + 16);
      expect(await next('"Down"')).toBe(before.down - 16);
      expect(await next('t_id_seq')).toBe(before.owned + 16);
      // Its own class; the first value of it if the donor's own first one, from which the copy goes on, was a lower one.
      expect([2, 18]).toContain(await next('idle'));
      // Another table of the same name begins anew.
      await on(uri, 'DROP TABLE t', 'CREATE TABLE t (id serial PRIMARY KEY)');
      expect(await next('t_id_seq')).toBe(2);
    });
  },
);
