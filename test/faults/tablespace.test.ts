import { chownSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { PlaygroundDirectory } from '../../src/cli/dev/directory.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { REQUEST_FILE } from '../../src/cluster/reclone/recloner.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };

describe('tablespaces, of which each node has its own', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
  });
  afterAll(() => cluster.stop());

  async function on(uri: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: uri });
    await client.connect();
    try {
      let rows: Record<string, unknown>[] = [];
      for (const sql of statements) ({ rows } = await client.query<Record<string, unknown>>(sql));
      return rows;
    } finally {
      await client.end();
    }
  }

  const direct = (node: number, ...statements: string[]) => on(cluster.node(node).postgresUri, ...statements);
  const files = (node: number) => new PlaygroundDirectory(cluster.dir).node(node);
  const location = (node: number) => join(files(node).dir, 'fast');

  function makeLocation(node: number): void {
    const { uid, gid } = statSync(files(node).postgresData);
    mkdirSync(location(node));
    if (process.getuid?.() === 0) chownSync(location(node), uid, gid);
  }

  it('are not made through the proxy, which says how they are', async () => {
    const refusal: unknown = await on(cluster.node(1).uri, `CREATE TABLESPACE fast LOCATION '/fast'`).catch(
      (error: unknown) => error,
    );
    expect(refusal).toMatchObject({ code: '0A000', hint: expect.stringContaining('each node') as string });
  });

  it('are copied to where the node has the one of that name', async () => {
    await on(
      cluster.node(1).uri,
      'CREATE TABLE t (id int PRIMARY KEY, filler text)',
      'INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 5000) i',
    );
    // Another OID than on the others.
    await direct(3, 'CREATE TEMP TABLE x ()');
    for (const node of [1, 2, 3]) {
      makeLocation(node);
      await direct(
        node,
        `CREATE TABLESPACE fast LOCATION '${location(node)}'`,
        // Where the rows lie is each node's own affair, which the capture of schema changes does not know.
        'SET session_replication_role = replica',
        'ALTER TABLE t SET TABLESPACE fast',
        'ALTER INDEX t_pkey SET TABLESPACE fast',
      );
    }
    writeFileSync(join(files(3).proxyData, REQUEST_FILE), '');
    await waitFor('a copy is in place', () => cluster.log(3, 'proxy').includes('goes on with a copy'), {
      ...PATIENCE,
      describe: () => cluster.log(3, 'proxy').split('\n').slice(-10).join('\n'),
    });
    await waitFor('node 3 is back', () => isReady(cluster, 3), PATIENCE);

    const [own] = await direct(
      3,
      `SELECT pg_tablespace_location(oid) AS location, 'pg_tblspc/' || oid AS link, pg_relation_filepath('t') AS rows,
         pg_relation_filepath('t_pkey') AS index FROM pg_tablespace WHERE spcname = 'fast'`,
    );
    expect(own['location']).toBe(location(3));
    for (const kind of ['rows', 'index']) {
      const path = String(own[kind]);
      expect(path.startsWith(String(own['link']))).toBe(true);
      expect(existsSync(join(location(3), path.slice(String(own['link']).length)))).toBe(true);
    }
    expect(readdirSync(location(3))).toEqual([expect.stringMatching(/^PG_\d+_\d+$/)]);
    await on(cluster.node(3).uri, `INSERT INTO t VALUES (0, 'from node 3')`);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
    const status = (await (await fetch(new URL('/status', cluster.node(3).metrics))).json()) as ClusterStatus;
    // Slots that the copy does not have were not lost.
    expect(status.bypasses).toEqual({ count: 0, last: null, unseen: [] });
  });
});
