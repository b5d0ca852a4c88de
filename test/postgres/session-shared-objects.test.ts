import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';

const REFUSED = { code: '0A000', message: expect.stringContaining('objects of the whole server') as string };

const hidden = (statement: string): string => `DO $$ BEGIN ${statement}; END $$`;

describe('roles, databases and other objects of the whole server', () => {
  let proxy: SessionProxy;
  let admin: pg.Client;
  let client: pg.Client;

  beforeAll(async () => {
    proxy = await startSessionProxy();
    admin = await proxy.postgres.connect();
    await admin.query('CREATE TABLE t (a int); CREATE ROLE known; CREATE ROLE other; CREATE ROLE victim');
    await admin.query(
      "CREATE FUNCTION make(name text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE ''CREATE ROLE '' || name; END'",
    );
  });

  afterAll(async () => {
    await proxy.stop();
  });

  beforeEach(async () => {
    await admin.query('TRUNCATE t');
    client = await proxy.connect();
    proxy.commits.prepared.length = 0;
  });

  const state = async (): Promise<unknown> =>
    (
      await admin.query(`SELECT array(SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1) AS roles,
        array(SELECT (roleid, member)::text FROM pg_auth_members ORDER BY 1) AS members,
        array(SELECT d::text FROM pg_database d ORDER BY 1) AS databases,
        array(SELECT s::text FROM pg_db_role_setting s ORDER BY 1) AS settings,
        array(SELECT s::text FROM pg_shdescription s ORDER BY 1) AS comments`)
    ).rows;

  it.each([
    "IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'app') THEN CREATE ROLE app LOGIN; END IF",
    "PERFORM make('app')",
    'ALTER ROLE known CREATEDB',
    'ALTER ROLE known RENAME TO renamed',
    'DROP ROLE victim',
    'GRANT known TO other',
    "ALTER ROLE known SET work_mem = '8MB'",
    "EXECUTE format('ALTER DATABASE %I SET work_mem = ''8MB''', current_database())",
    'GRANT CREATE ON DATABASE postgres TO known',
    "COMMENT ON ROLE known IS 'x'",
    'BEGIN CREATE ROLE app; EXCEPTION WHEN division_by_zero THEN NULL; END',
  ])('cannot be changed where the other nodes do not see it: %s', async (statement) => {
    const before = await state();
    await expect(client.query(hidden(statement))).rejects.toMatchObject(REFUSED);
    await client.query('BEGIN; INSERT INTO t VALUES (1)');
    await client.query(hidden(statement));
    await expect(client.query('COMMIT')).rejects.toMatchObject(REFUSED);
    expect(await state()).toEqual(before);
    // Whatever the backend has counted so far.
    await client.query('INSERT INTO t VALUES (2)');
    expect((await admin.query('SELECT a FROM t')).rows).toEqual([{ a: 2 }]);
  });

  it('are not changed by what was taken back', async () => {
    await client.query('BEGIN');
    await client.query('SAVEPOINT s');
    await client.query(hidden('CREATE ROLE app'));
    await client.query('ROLLBACK TO s');
    await client.query(hidden('BEGIN CREATE ROLE app; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END'));
    await client.query('INSERT INTO t VALUES (1)');
    await client.query('COMMIT');
    expect(proxy.commits.prepared).toHaveLength(1);
  });

  it('can be changed by statements of their own, with anything around them', async () => {
    await client.query('CREATE ROLE announced');
    await client.query('INSERT INTO t VALUES (1)');
    await client.query('BEGIN');
    await client.query('INSERT INTO t VALUES (2)');
    await client.query("ALTER ROLE announced PASSWORD 'x'");
    await client.query('CREATE TABLE of_role (a int)');
    await client.query('GRANT CREATE ON DATABASE postgres TO announced');
    await client.query(hidden('INSERT INTO t VALUES (3)'));
    await client.query('COMMIT');
    await client.query('BEGIN; REVOKE CREATE ON DATABASE postgres FROM announced; DROP ROLE announced; COMMIT');
    expect(proxy.commits.prepared).toHaveLength(4);
  });

  it('cannot be changed in a hidden place behind a statement of its own, nor before one', async () => {
    const before = await state();
    await client.query('BEGIN');
    await client.query('CREATE ROLE announced');
    await client.query(hidden('CREATE ROLE app'));
    await expect(client.query('COMMIT')).rejects.toMatchObject(REFUSED);
    await client.query('BEGIN');
    await client.query(hidden('CREATE ROLE app'));
    await expect(client.query('CREATE ROLE announced')).rejects.toMatchObject(REFUSED);
    await client.query('ROLLBACK');
    expect(await state()).toEqual(before);
    expect(proxy.commits.prepared).toHaveLength(0);
  });

  it('may be changed by a role without privileges on the catalogs', async () => {
    await admin.query('ALTER ROLE known LOGIN CREATEROLE');
    const modest = await proxy.connect({ user: 'known' });
    await expect(modest.query(hidden('CREATE ROLE app'))).rejects.toMatchObject(REFUSED);
    await modest.query('CREATE ROLE made');
    await modest.query("ALTER ROLE known PASSWORD 'x'");
    expect(proxy.commits.prepared).toHaveLength(2);
  });
});
