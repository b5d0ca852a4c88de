import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { decodeLocks, type Locks } from '../../src/replication/row-locks/lock-record.ts';
import { LockSurvey } from '../../src/replication/row-locks/lock-survey.ts';
import { connectForText } from '../../src/replication/text-settings.ts';
import { lsn, parseLsn, type Lsn } from '../../src/runtime/ids.ts';
import type { ServerConnection } from '../../src/wire/connection.ts';
import { installedBin, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { waitFor } from '../support/wait-for.ts';

const versions: [string, string | undefined][] = [['from npm', undefined]];
if (installedBin !== undefined) versions.push(['installed', installedBin]);

/** `table mode key,key`, sorted. */
function described(locks: Locks): string[] {
  const text = (value: Uint8Array | null) => (value === null ? 'NULL' : Buffer.from(value).toString());
  const rows = locks.rows.flatMap(({ table, mode, rows: keys }) =>
    keys.map((key) => `${table} ${mode} ${key.map(text).join('|')}`),
  );
  return [...locks.tables.map(({ table, mode }) => `table ${table} ${mode}`), ...rows];
}

describe.each(versions)('what a prepared transaction has locked, on PostgreSQL %s', (_name, bin) => {
  let postgres: TestPostgres;
  let client: pg.Client;
  let other: pg.Client;
  let connection: ServerConnection;
  let survey: LockSurvey;
  let count = 0;

  beforeAll(async () => {
    // The standby never comes: whoever wants to wait for it does so until it is cancelled.
    postgres = await startPostgres({ bin, settings: { synchronous_standby_names: 'absent' } });
    client = await postgres.connect({ options: '-c synchronous_commit=local' });
    other = await postgres.connect({ options: '-c synchronous_commit=local' });
    connection = await connectForText({
      ...{ host: postgres.host, port: postgres.port, user: 'postgres', database: 'postgres' },
      applicationName: 'survey',
    });
    survey = await LockSurvey.open(connection, 'live');
    // Keeps the WAL of whatever is under way, as a node's live slot does.
    await client.query("SELECT pg_create_logical_replication_slot('live', 'pgoutput', false, true)");
    await client.query(`
      CREATE TABLE t (a int, b text, v int DEFAULT 0, PRIMARY KEY (a, b));
      CREATE TABLE parent (id int PRIMARY KEY, v int DEFAULT 0);
      CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
      CREATE TABLE bare (x int, y text);
      ALTER TABLE bare REPLICA IDENTITY FULL;
      CREATE TABLE part (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
      CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100);
      CREATE FUNCTION touch(k int) RETURNS void LANGUAGE plpgsql AS $$
        BEGIN PERFORM FROM parent WHERE id = k FOR NO KEY UPDATE; END $$;`);
  });

  afterAll(async () => {
    await postgres.stop();
  });

  beforeEach(async () => {
    await client.query(`
      TRUNCATE t, parent, child, bare, part;
      INSERT INTO t SELECT i, 'k' || i FROM generate_series(1, 50) i;
      INSERT INTO parent SELECT i FROM generate_series(1, 50) i;
      INSERT INTO bare VALUES (1, 'a'), (1, 'a'), (2, NULL);
      INSERT INTO part SELECT i, 0 FROM generate_series(1, 50) i`);
  });

  async function position(): Promise<Lsn> {
    const { rows } = await other.query<{ at: string }>('SELECT pg_current_wal_flush_lsn()::text AS at');
    return parseLsn(rows[0].at);
  }

  /** What is found after these statements and PREPARE; `between` runs on another connection after the first. */
  async function found(statements: readonly string[], between: readonly string[] = []): Promise<string[]> {
    const gid = `g${++count}`;
    const from = await position();
    await client.query('BEGIN');
    for (const [i, sql] of statements.entries()) {
      await client.query(sql);
      if (i === 0) for (const another of between) await other.query(another);
    }
    await client.query(`PREPARE TRANSACTION '${gid}'`);
    const { rows } = await other.query<{ xid: string }>(
      'SELECT transaction::text AS xid FROM pg_prepared_xacts WHERE gid = $1',
      [gid],
    );
    const question = { xid: Number(rows[0].xid), from, to: await position() };
    const records = await survey.look(question).finally(() => client.query(`ROLLBACK PREPARED '${gid}'`));
    return records.flatMap((record) => described(decodeLocks(record.subarray(4)))).sort();
  }

  it('reads on from what the slot keeps where the WAL does not reach back to the beginning', async () => {
    await client.query('BEGIN');
    await client.query('SELECT FROM t WHERE a = 3 FOR SHARE');
    for (let i = 0; i < 3; i++) {
      await other.query("SELECT pg_logical_emit_message(false, 'x', 'x'), pg_switch_wal()");
      await other.query('CHECKPOINT');
      await other.query("SELECT pg_replication_slot_advance('live', pg_current_wal_lsn())");
    }
    await client.query("PREPARE TRANSACTION 'old'");
    const { rows } = await other.query<{ xid: string }>('SELECT transaction::text AS xid FROM pg_prepared_xacts');
    const question = { xid: Number(rows[0].xid), from: lsn(1n), to: await position() };
    const records = await survey.look(question).finally(() => client.query("ROLLBACK PREPARED 'old'"));
    expect(records.flatMap((record) => described(decodeLocks(record.subarray(4))))).toEqual(['t SHARE 3|k3']);
  });

  it.each(['KEY SHARE', 'SHARE', 'NO KEY UPDATE', 'UPDATE'])('finds a row locked FOR %s', async (mode) => {
    expect(await found([`SELECT FROM t WHERE a = 3 FOR ${mode}`])).toEqual([`t ${mode} 3|k3`]);
  });

  it('keeps the stronger of two locks', async () => {
    const statements = ['SELECT FROM t WHERE a = 3 FOR SHARE', 'SELECT FROM t WHERE a = 3 FOR UPDATE'];
    expect(await found(statements)).toEqual(['t UPDATE 3|k3']);
    expect(await found([...statements].reverse())).toEqual(['t UPDATE 3|k3']);
  });

  it('leaves out rows whose change takes as much', async () => {
    expect(await found(['SELECT FROM t WHERE a < 3 FOR NO KEY UPDATE', 'UPDATE t SET v = 1 WHERE a < 3'])).toEqual([]);
    expect(await found(['SELECT FROM t WHERE a = 3 FOR UPDATE', 'DELETE FROM t WHERE a = 3'])).toEqual([]);
  });

  it('keeps a lock that is stronger than the change', async () => {
    const statements = ['SELECT FROM parent WHERE id = 3 FOR UPDATE', 'UPDATE parent SET v = 1 WHERE id = 3'];
    expect(await found(statements)).toEqual(['parent UPDATE 3']);
  });

  it('finds a lock that was taken after changes of the row, where others know it', async () => {
    const change = (v: number) => `UPDATE parent SET v = ${v} WHERE id = 3`;
    const lock = (mode: string) => `SELECT FROM parent WHERE id = 3 FOR ${mode}`;
    expect(await found([change(1), lock('UPDATE')])).toEqual(['parent UPDATE 3']);
    expect(await found([change(1), change(2), 'SAVEPOINT s', change(3), lock('UPDATE')])).toEqual(['parent UPDATE 3']);
    expect(await found([change(1), lock('NO KEY UPDATE')])).toEqual([]);
    expect(await found([change(1), lock('UPDATE'), 'DELETE FROM parent WHERE id = 3'])).toEqual([]);
    const backwards = ['SAVEPOINT s', change(1), lock('UPDATE'), 'ROLLBACK TO s'];
    expect(await found([...backwards, 'SELECT FROM parent WHERE id = 4 FOR SHARE'])).toEqual(['parent SHARE 4']);
    const wide = `UPDATE bare SET y = repeat('wide', 400) WHERE x = 2`;
    expect(await found([wide, wide, 'SELECT FROM bare WHERE x = 2 FOR UPDATE'])).toEqual(['bare UPDATE 2|NULL']);
  });

  it('leaves out what a savepoint took back, and keeps what was locked before it', async () => {
    const statements = [
      ...['SELECT FROM t WHERE a = 3 FOR NO KEY UPDATE', 'SAVEPOINT s', 'UPDATE t SET v = 1 WHERE a = 3'],
      ...['SELECT FROM t WHERE a = 4 FOR UPDATE', 'SAVEPOINT s2', 'SELECT FROM t WHERE a = 5 FOR UPDATE'],
      ...['ROLLBACK TO s', 'SAVEPOINT s3', 'SELECT FROM t WHERE a = 6 FOR SHARE', 'RELEASE s3'],
    ];
    expect(await found(statements)).toEqual(['t NO KEY UPDATE 3|k3', 't SHARE 6|k6']);
  });

  it('finds locks of functions, of foreign keys and of partitions', async () => {
    expect(await found(['SELECT touch(7)'])).toEqual(['parent NO KEY UPDATE 7']);
    expect(await found(['INSERT INTO child VALUES (1, 8)'])).toEqual(['parent KEY SHARE 8']);
    expect(await found(['SELECT FROM part WHERE id = 9 FOR UPDATE'])).toEqual(['part_low UPDATE 9']);
  });

  it('names a row without a key by all its values', async () => {
    expect(await found(['SELECT FROM bare WHERE x = 2 FOR UPDATE'])).toEqual(['bare UPDATE 2|NULL']);
  });

  it.each([
    ['ALTER TABLE t ADD w int', 'ACCESS EXCLUSIVE'],
    ['LOCK TABLE t IN EXCLUSIVE MODE', 'EXCLUSIVE'],
  ])('says nothing of rows of a table that nobody else gets at: %s', async (sql, mode) => {
    const locked = ['SELECT FROM t WHERE a = 3 FOR UPDATE', 'SELECT FROM parent WHERE id = 4 FOR SHARE'];
    expect(await found([...locked, sql])).toEqual(['parent SHARE 4', `table t ${mode}`]);
  });

  it('says nothing of rows that the transaction made itself', async () => {
    expect(await found(["INSERT INTO t VALUES (99, 'x')", 'SELECT FROM t WHERE a = 99 FOR UPDATE'])).toEqual([]);
  });

  it('tells its own lock from those of others on the same row', async () => {
    await other.query('BEGIN; SELECT FROM parent WHERE id = 3 FOR NO KEY UPDATE');
    expect(await found(['SELECT FROM parent WHERE id = 3 FOR KEY SHARE'])).toEqual(['parent KEY SHARE 3']);
    await other.query('ROLLBACK; BEGIN; SELECT FROM parent WHERE id = 3 FOR KEY SHARE');
    expect(await found(['SELECT FROM parent WHERE id = 3 FOR NO KEY UPDATE'])).toEqual(['parent NO KEY UPDATE 3']);
    await other.query('ROLLBACK');
  });

  it('finds a row that somebody else has changed since, all but its key', async () => {
    const others = ['UPDATE t SET v = v + 1 WHERE a = 3', 'UPDATE t SET v = v + 1 WHERE a = 3'];
    expect(await found(['SELECT FROM t WHERE a = 3 FOR KEY SHARE'], others)).toEqual(['t KEY SHARE 3|k3']);
    const moves = [...others, 'VACUUM t'];
    expect(await found(['SELECT FROM t WHERE a = 4 FOR KEY SHARE'], moves)).toEqual(['t KEY SHARE 4|k4']);
  });

  it('finds table locks that row statements do not take', async () => {
    expect(await found(['LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE'])).toEqual(['table t SHARE ROW EXCLUSIVE']);
    expect(await found(["INSERT INTO t VALUES (99, 'x')", 'LOCK TABLE ONLY parent'])).toEqual([
      'table parent ACCESS EXCLUSIVE',
    ]);
  });

  it('waits for the locks of a PREPARE that waits for a standby', async () => {
    const from = await position();
    await client.query('BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE; SET LOCAL synchronous_commit = on');
    const { rows } = await client.query<{ pid: number; xid: string }>(
      'SELECT pg_backend_pid() AS pid, pg_current_xact_id()::xid::text AS xid',
    );
    const [{ pid, xid }] = rows;
    const prepared = client.query("PREPARE TRANSACTION 'slow'");
    await waitFor('PREPARE waits', async () => {
      const waits = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'";
      return (await other.query(waits, [pid])).rows.length > 0;
    });
    const asked = vi.spyOn(connection, 'query');
    const found = survey.look({ xid: Number(xid), from, to: await position() });
    await waitFor('it has been asked for often', () => asked.mock.calls.length > 15);
    asked.mockRestore();
    await other.query('SELECT pg_cancel_backend($1)', [pid]);
    await prepared;
    const records = await found.finally(() => client.query("ROLLBACK PREPARED 'slow'"));
    expect(records.flatMap((record) => described(decodeLocks(record.subarray(4))))).toEqual([
      'table t SHARE ROW EXCLUSIVE',
    ]);
  });

  it('reads over many pages and files, written by others', async () => {
    const others = [
      "CREATE TABLE noise AS SELECT i, repeat('x', 500) AS pad FROM generate_series(1, 20000) i",
      'SELECT pg_switch_wal()',
      'CHECKPOINT',
      'UPDATE noise SET i = i + 1',
      'SELECT pg_switch_wal()',
      'DELETE FROM noise WHERE i < 10000',
      'DROP TABLE noise',
    ];
    const statements = ['SELECT FROM t WHERE a = 3 FOR UPDATE', 'SELECT FROM t WHERE a BETWEEN 10 AND 14 FOR SHARE'];
    const ten = [10, 11, 12, 13, 14].map((a) => `t SHARE ${a}|k${a}`);
    expect(await found(statements, others)).toEqual([...ten, 't UPDATE 3|k3']);
  });

  it('finds thousands of rows', async () => {
    await client.query("INSERT INTO t SELECT i, 'x' FROM generate_series(1000, 5999) i");
    const rows = await found(['SELECT FROM t WHERE a >= 1000 FOR UPDATE']);
    expect(rows).toHaveLength(5000);
    expect(new Set(rows).size).toBe(5000);
  });

  it('says so when the WAL is not there', async () => {
    const far = lsn((await position()) + (1n << 40n));
    const question = { xid: 5, from: far, to: lsn(far + 8192n), tables: false };
    await expect(survey.look(question)).rejects.toThrow();
  });
});
