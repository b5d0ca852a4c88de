import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };

describe('a node that is away while PostgreSQL throws away what was kept for it', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    await on(cluster.node(1).uri, 'CREATE TABLE t (id serial PRIMARY KEY, filler text)');
    for (const node of [1, 2]) {
      await direct(node, `ALTER SYSTEM SET max_slot_wal_keep_size = '48MB'`);
      await direct(node, 'SELECT pg_reload_conf()');
    }
  });
  afterAll(() => cluster.stop());

  async function on(uri: string, sql: string): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: uri });
    await client.connect();
    try {
      return (await client.query<Record<string, unknown>>(sql)).rows;
    } finally {
      await client.end();
    }
  }

  const direct = (node: number, sql: string) => on(cluster.node(node).postgresUri, sql);
  const write = (node: number, rows: number) =>
    on(
      cluster.node(node).uri,
      `INSERT INTO t (filler) SELECT repeat(md5(i::text), 30) FROM generate_series(1, ${rows}) i`,
    );
  const back = (node: number) => waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);
  const hasBegunAnew = (node: number) => cluster.log(node, 'proxy').includes('had lost its WAL');

  async function expectSame(): Promise<void> {
    for (const node of [1, 2, 3]) await write(node, 3);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  }

  async function loseSlots(nodes: readonly number[]): Promise<void> {
    await waitFor(
      'the slots are lost, and begin anew',
      async () => {
        if (nodes.every(hasBegunAnew)) return true;
        await write(1, 5000);
        for (const node of nodes) await direct(node, 'CHECKPOINT');
        return false;
      },
      PATIENCE,
    );
  }

  it('is told so, and copies another one', { timeout: 600_000 }, async () => {
    await cluster.dev('kill', '3', 'both');
    await waitFor('the others go on', () => write(1, 1).then(() => true), PATIENCE);
    await loseSlots([1, 2]);
    await cluster.dev('start', '3', 'both');
    await waitFor(
      'node 3 puts a copy in place',
      () => cluster.log(3, 'proxy').includes('goes on with a copy'),
      PATIENCE,
    );
    await back(3);
    expect(cluster.log(3, 'proxy')).toContain('the history kept here begins after');
    await expectSame();
  });

  it(
    'is not promised more than there is by a donor that finds its slot lost when it starts',
    { timeout: 600_000 },
    async () => {
      await cluster.dev('kill', '3', 'both');
      await waitFor('the others go on', () => write(1, 1).then(() => true), PATIENCE);
      const slots = `SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'pgmm_history%'`;
      for (const node of [1, 2]) {
        await cluster.dev('kill', String(node), 'proxy');
        // As good as lost: it is not there.
        await direct(node, `SELECT pg_drop_replication_slot(slot_name) FROM (${slots}) s`);
      }
      for (const node of [1, 2]) await cluster.dev('start', String(node), 'proxy');
      for (const node of [1, 2]) await back(node);
      const copies = () => cluster.log(3, 'proxy').split('goes on with a copy').length;
      const before = copies();
      await cluster.dev('start', '3', 'both');
      await waitFor('node 3 puts a copy in place', () => copies() > before, PATIENCE);
      await back(3);
      await expectSame();
    },
  );
});
