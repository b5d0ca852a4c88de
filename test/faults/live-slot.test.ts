import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };
const SLOTS = `SELECT slot_name, active_pid, wal_status FROM pg_replication_slots WHERE slot_name LIKE 'pgmm_live%'`;

describe('a node whose live slot is lost', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    await on(cluster.node(1).uri, 'CREATE TABLE t (id serial PRIMARY KEY, filler text)');
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

  const direct = (sql: string) => on(cluster.node(3).postgresUri, sql);
  const insert = (node: number) => on(cluster.node(node).uri, 'INSERT INTO t DEFAULT VALUES');
  const back = () =>
    waitFor('node 3 is back', () => isReady(cluster, 3), {
      ...PATIENCE,
      describe: () => cluster.log(3, 'proxy').split('\n').slice(-20).join('\n'),
    });
  const statusOf = async (node: number) =>
    (await (await fetch(new URL('/status', cluster.node(node).metrics))).json()) as ClusterStatus;
  const anew = () => cluster.log(3, 'proxy').split('and begins anew').length - 1;
  const unseen = async () => (await statusOf(3)).bypasses.unseen;

  async function expectSame(): Promise<void> {
    for (const node of [1, 2, 3]) await insert(node);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  }

  it('begins it anew when it was dropped in between, and says what nobody has looked at', async () => {
    expect(await unseen()).toEqual([]);
    await cluster.dev('kill', '3', 'proxy');
    await waitFor('the others go on', () => insert(1).then(() => true), PATIENCE);
    await direct(`SELECT pg_drop_replication_slot(slot_name) FROM (${SLOTS}) s`);
    await cluster.dev('start', '3', 'proxy');
    await back();
    expect(await unseen()).toMatchObject([{ database: 'postgres', from: null }]);
    expect(anew()).toBe(1);
    await expectSame();
  });

  it('begins it anew when it is dropped at work; a transaction that began before can not be committed', async () => {
    const client = new pg.Client({ connectionString: cluster.node(3).uri });
    client.on('error', () => undefined);
    await client.connect();
    await client.query('BEGIN');
    await client.query(`INSERT INTO t (filler) VALUES ('begun before')`);
    // The proxy takes the slot again half a second later.
    const before = anew();
    await direct(
      `SELECT pg_terminate_backend(active_pid, 1000), pg_drop_replication_slot(slot_name) FROM (${SLOTS}) s`,
    );
    await waitFor('the slot begins anew', () => anew() > before, PATIENCE);
    await back();
    // The slot could not be made while that one was open.
    const refusal: unknown = await client.query('COMMIT').catch((error: unknown) => error);
    expect((refusal as pg.DatabaseError).code).toBe('40001');
    await client.end();
    await expectSame();
  });

  it('begins it anew when its WAL is gone, and settles before what is prepared', async () => {
    await cluster.dev('kill', '3', 'proxy');
    await waitFor('the others go on', () => insert(1).then(() => true), PATIENCE);
    await direct(`BEGIN; INSERT INTO t VALUES (-1, 'in doubt'); PREPARE TRANSACTION 'pgmm:dev:2:1:1:1'`);
    await direct(`ALTER SYSTEM SET max_slot_wal_keep_size = '16MB'`);
    await direct('SELECT pg_reload_conf()');
    await waitFor('the slot is lost', async () => {
      await direct(`SELECT pg_logical_emit_message(true, 'fill', 'x')`);
      await direct('SELECT pg_switch_wal()');
      await direct('CHECKPOINT');
      return (await direct(SLOTS))[0]['wal_status'] === 'lost';
    });
    await direct('ALTER SYSTEM RESET max_slot_wal_keep_size');
    await direct('SELECT pg_reload_conf()');
    await cluster.dev('start', '3', 'proxy');
    await back();
    expect(await direct('SELECT gid FROM pg_prepared_xacts')).toEqual([]);
    await expectSame();
    // What was not looked at before is not known to this day.
    expect(await unseen()).toMatchObject([{ database: 'postgres', from: null }]);
  });

  it('loses nothing that was acknowledged, even if all nodes lose all their slots with transactions in doubt', async () => {
    const nodes = [1, 2, 3];
    const acknowledged: string[] = [];
    const writers = nodes.flatMap((node) => [0, 1, 2].map((i) => write(node, `${node} ${i}`, acknowledged)));
    await waitFor('writes', () => acknowledged.length > 100, PATIENCE);
    await Promise.all(nodes.map((node) => cluster.dev('kill', String(node), 'proxy')));
    await Promise.all(writers);
    for (const node of nodes)
      await on(
        cluster.node(node).postgresUri,
        `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active`,
        'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots',
      );
    await Promise.all(nodes.map((node) => cluster.dev('start', String(node), 'proxy')));
    for (const node of nodes) await waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);
    await expectSame();
    const found = new Set((await direct('SELECT filler FROM t')).map(({ filler }) => filler));
    expect(acknowledged.filter((value) => !found.has(value))).toEqual([]);
  });

  /** Until its connection breaks. */
  async function write(node: number, name: string, acknowledged: string[]): Promise<void> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    client.on('error', () => undefined);
    await client.connect();
    for (let i = 0; ; i++) {
      const value = `${name} ${i}`;
      try {
        await client.query('INSERT INTO t (filler) VALUES ($1)', [value]);
        acknowledged.push(value);
      } catch (error) {
        // Refused, as another node is gone already, is an answer, too.
        if (!(error instanceof pg.DatabaseError)) return;
      }
    }
  }
});
