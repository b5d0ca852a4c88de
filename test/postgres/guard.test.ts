import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { installedBin } from '../support/postgres.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 90_000 };
const servers = [
  { name: 'the newest PostgreSQL', postgresBin: undefined },
  { name: 'the oldest PostgreSQL', postgresBin: installedBin },
].filter(({ postgresBin }, index) => index === 0 || postgresBin !== undefined);

describe.each(servers)('guard: on, $name', ({ postgresBin }) => {
  let cluster: TestCluster;
  const open: pg.Client[] = [];

  async function connect(uri: string, more: pg.ClientConfig = {}): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: uri, ...more });
    client.on('error', () => undefined);
    await client.connect();
    open.push(client);
    return client;
  }
  const asApp = (uri: string) => uri.replace('postgres@', 'app@');
  const direct = (node = 1) => connect(asApp(cluster.node(node).postgresUri));
  const proxied = (node = 1) => connect(asApp(cluster.node(node).uri));

  async function guard(value: 'on' | 'off'): Promise<void> {
    for (const id of [1, 2]) {
      const file = join(cluster.dir, `node${id}`, 'pgmm.yaml');
      writeFileSync(file, stringify({ ...(parse(readFileSync(file, 'utf8')) as object), guard: value }));
      await cluster.dev('kill', String(id), 'proxy');
      await cluster.dev('start', String(id), 'proxy');
    }
    for (const id of [1, 2]) await waitFor(`node ${id} takes writes`, () => isReady(cluster, id), PATIENCE);
  }

  const triggers = async (node: number): Promise<string[]> => {
    const admin = await connect(cluster.node(node).postgresUri);
    const { rows } = await admin.query<{ relation: string }>(
      `SELECT tgrelid::regclass::text AS relation FROM pg_trigger WHERE tgname = 'multimaster_guard' AND tgisinternal ORDER BY 1`,
    );
    await admin.end();
    return rows.map(({ relation }) => relation);
  };

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false, nodes: 2, postgresBin })).ready();
    const admin = await connect(cluster.node(1).uri);
    await admin.query('CREATE ROLE app LOGIN CREATEROLE; GRANT CREATE ON SCHEMA public TO app');
    const app = await proxied();
    await app.query('CREATE TABLE old (id int PRIMARY KEY, v text)');
    await app.query("INSERT INTO old SELECT n, 'x' FROM generate_series(1, 10) n");
    await app.query('CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY RANGE (id)');
    await app.query('CREATE TABLE leaf PARTITION OF parent FOR VALUES FROM (0) TO (1000)');
    await guard('on');
    await waitFor('tables are guarded', async () => (await triggers(1)).length === 3, PATIENCE);
    await waitFor('tables are guarded', async () => (await triggers(2)).length === 3, PATIENCE);
  });
  afterAll(async () => {
    for (const client of open) await client.end().catch(() => undefined);
    await cluster.stop();
  });

  it('refuses every way in which an ordinary role writes to the server itself, and lets it read', async () => {
    const app = await direct();
    const statements = [
      "INSERT INTO old VALUES (11, 'y')",
      "UPDATE old SET v = 'y'",
      'UPDATE old SET v = v WHERE false',
      'DELETE FROM old',
      'TRUNCATE old',
      "COPY old FROM PROGRAM 'echo'",
      'INSERT INTO parent VALUES (1)',
      'INSERT INTO leaf VALUES (1)',
      "INSERT INTO old VALUES (1, 'y') ON CONFLICT (id) DO UPDATE SET v = 'y'",
      'WITH gone AS (DELETE FROM old RETURNING *) SELECT count(*) FROM gone',
      'MERGE INTO old USING (VALUES (1)) s(id) ON old.id = s.id WHEN MATCHED THEN DELETE',
      "DO $$ BEGIN UPDATE old SET v = 'y'; END $$",
      'CREATE TABLE t (a int)',
      'CREATE TABLE t AS SELECT 1',
      'SELECT 1 INTO t',
      'ALTER TABLE old ADD COLUMN w int',
      'ALTER TABLE old RENAME TO older',
      'DROP TABLE old',
      'CREATE INDEX ON old (v)',
      'CREATE VIEW w AS SELECT 1',
      'GRANT SELECT ON old TO PUBLIC',
      "COMMENT ON TABLE old IS 'x'",
    ];
    for (const begin of ['BEGIN', 'BEGIN READ WRITE', 'BEGIN ISOLATION LEVEL SERIALIZABLE']) {
      for (const sql of statements) {
        await app.query(begin);
        const error = await app.query(sql).then(
          () => undefined,
          (failure: unknown) => failure as pg.DatabaseError,
        );
        await app.query('ROLLBACK');
        // COPY FROM PROGRAM is not an ordinary role's anyway.
        expect({ sql, code: error?.code }).toEqual({ sql, code: sql.includes('PROGRAM') ? '42501' : '25006' });
      }
    }
    const error = await app.query("INSERT INTO old VALUES (11, 'y')").catch((failure: unknown) => failure);
    expect(error).toMatchObject({ message: 'cannot execute INSERT on "old" past the proxy' });
    expect((error as pg.DatabaseError).hint).toContain(cluster.node(1).uri.replace(/.*@(.*)\/.*/, '$1'));
    for (const attempt of ['RESET ALL', 'DISCARD ALL', 'SET default_transaction_read_only = off']) {
      await app.query(attempt);
      await expect(app.query('DELETE FROM old')).rejects.toMatchObject({ code: '25006' });
    }
    await expect(app.query('ALTER TABLE old DISABLE TRIGGER ALL')).rejects.toMatchObject({ code: '42501' });
    await expect(app.query('DROP TRIGGER multimaster_guard ON old')).rejects.toMatchObject({ code: '25006' });
    await expect(app.query('SET session_replication_role = replica')).rejects.toMatchObject({ code: '42501' });
    await app.query('CREATE TEMP TABLE mine (a int); INSERT INTO mine VALUES (1)');
    expect((await app.query('SELECT * FROM old')).rows).toHaveLength(10);
  });

  it('refuses COPY FROM STDIN', async () => {
    const app = await direct();
    await expect(app.query('COPY old FROM STDIN')).rejects.toMatchObject({ code: '25006' });
  });

  it('judges by the session, not by the owner of a function; a superuser may', async () => {
    const app = await proxied();
    const root = await connect(cluster.node(1).uri);
    await root.query(
      'CREATE FUNCTION wipe() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$ DELETE FROM public.old WHERE id = 9 $$',
    );
    const past = await direct();
    await expect(past.query('SELECT wipe()')).rejects.toMatchObject({ code: '25006' });
    await app.query('SELECT wipe()');
    const superuser = await connect(cluster.node(1).postgresUri);
    await superuser.query('SET ROLE app');
    await expect(superuser.query('DELETE FROM old')).rejects.toMatchObject({ code: '25006' });
    await superuser.query('RESET ROLE');
    await superuser.query('BEGIN; DELETE FROM old; ROLLBACK');
  });

  it('leaves sessions through the proxy as they are', async () => {
    const app = await proxied();
    let id = 100;
    for (const before of [
      'SELECT 1',
      'RESET ALL',
      'DISCARD ALL',
      'RESET multimaster.proxy',
      'SET search_path = public',
      'SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE',
      'SET ROLE app',
      'RESET SESSION AUTHORIZATION',
    ]) {
      await app.query(before);
      await app.query("INSERT INTO old VALUES ($1, 'p')", [++id]);
    }
    const root = await connect(cluster.node(1).uri);
    await root.query('SET ROLE app');
    await root.query("UPDATE old SET v = 'r' WHERE id = 101");
    await root.query('SET max_parallel_workers_per_gather = 2; SET min_parallel_table_scan_size = 0');
    await root.query('SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0');
    await root.query('INSERT INTO old SELECT 1000 + id, v FROM old');
    await app.query('CREATE TABLE made (a int PRIMARY KEY)');
    await app.query('INSERT INTO made VALUES (1)');
    await app.query('INSERT INTO parent VALUES (5)');
    await app.query('ALTER TABLE made ADD COLUMN b int');
    await app.query('TRUNCATE leaf');
  });

  it('comes to new tables on every node at once, and is no object of theirs', async () => {
    for (const node of [1, 2])
      await waitFor(`node ${node}`, async () => (await triggers(node)).includes('made'), PATIENCE);
    const app = await direct(2);
    await waitFor('the table is on node 2', async () => (await app.query('TABLE made')).rowCount === 1, PATIENCE);
    await expect(app.query('DELETE FROM made')).rejects.toMatchObject({ code: '25006' });
    const result = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(result).toMatchObject({ same: true });
  });

  it('waits for no table that a client holds, and goes without a trace when it is turned off', async () => {
    const holder = await connect(cluster.node(1).postgresUri);
    await holder.query('BEGIN; LOCK TABLE old IN ROW EXCLUSIVE MODE');
    await guard('off');
    await waitFor('the others are free', async () => (await triggers(1)).join() === 'old', PATIENCE);
    const app = await direct();
    // In force no more, although its trigger is still there.
    await app.query('BEGIN; UPDATE old SET v = v WHERE false; ROLLBACK');
    await holder.query('ROLLBACK');
    for (const node of [1, 2])
      await waitFor(`node ${node} is free`, async () => (await triggers(node)).length === 0, PATIENCE);
  });
});
