import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { installCatalog, uninstallCatalog } from '../../src/catalog/install.ts';
import { installedBin, startPostgres } from '../support/postgres.ts';
import type { TestPostgres } from '../support/postgres.ts';

const servers = [
  { name: 'the newest PostgreSQL', bin: undefined },
  { name: 'the oldest PostgreSQL', bin: installedBin },
].filter(({ bin }, index) => index === 0 || bin !== undefined);

const STRIDE = 16;
const NODE = 3;

describe.each(servers)('the catalog on $name', ({ bin }) => {
  let server: TestPostgres;
  let client: pg.Client;
  let count = 0;

  beforeAll(async () => {
    server = await startPostgres({ bin, settings: { fsync: 'off' } });
    const template = await server.connect();
    await template.query('CREATE ROLE app LOGIN');
    await template.query('CREATE DATABASE template');
    await template.end();
    const inside = await server.connect({ database: 'template' });
    await installCatalog(inside, { nodeId: NODE, stride: STRIDE });
    await inside.end();
  });
  afterAll(() => server.stop());

  /** A database of its own, with the catalog of node 3. */
  beforeEach(async () => {
    const admin = await server.connect();
    const database = `d${++count}`;
    await admin.query(`CREATE DATABASE ${database} TEMPLATE template`);
    await admin.end();
    client = await server.connect({ database });
    return () => client.end();
  });

  /** As the session sends a client's DDL. */
  async function announced(ddl: string, on = client): Promise<void> {
    await on.query('BEGIN');
    await on.query(`SELECT set_config('multimaster.ddl', 'x', true)`);
    await on.query(ddl);
    await on.query('COMMIT');
  }

  /** The SQLSTATE, or undefined. */
  async function failure(run: Promise<unknown>): Promise<string | undefined> {
    try {
      await run;
      return undefined;
    } catch (error) {
      await client.query('ROLLBACK');
      return (error as pg.DatabaseError).code;
    }
  }

  async function column<T>(query: string): Promise<T[]> {
    const { rows } = await client.query<[T]>({ text: query, rowMode: 'array' });
    return rows.map(([value]) => value);
  }

  const identity = async (table: string): Promise<string> =>
    (await column<string>(`SELECT relreplident FROM pg_class WHERE oid = '${table}'::regclass`))[0];
  const take = async (sequence: string, n: number): Promise<number[]> =>
    (await column<string>(`SELECT nextval('${sequence}') FROM generate_series(1, ${n})`)).map(Number);

  describe('replica identity', () => {
    it('is FULL where there is no primary key, in every way a table can come about', async () => {
      await announced('CREATE TABLE a (x int)');
      await announced('CREATE TABLE b (x int PRIMARY KEY)');
      await announced('CREATE TABLE c AS SELECT 1 AS x');
      await announced('SELECT 1 AS x INTO d');
      await announced('CREATE SCHEMA s CREATE TABLE e (x int)');
      await announced('CREATE TABLE f (x int PRIMARY KEY DEFERRABLE)');
      await announced('CREATE UNLOGGED TABLE g (x int)');
      await announced('CREATE TABLE h (LIKE b INCLUDING ALL)');
      let found = '';
      for (const table of ['a', 'b', 'c', 'd', 's.e', 'f', 'g', 'h']) found += await identity(table);
      expect(found).toBe('fdfffffd');
    });

    it('follows the primary key', async () => {
      await announced('CREATE TABLE t (x int)');
      await announced('ALTER TABLE t ADD PRIMARY KEY (x)');
      expect(await identity('t')).toBe('d');
      await announced('ALTER TABLE t DROP CONSTRAINT t_pkey');
      expect(await identity('t')).toBe('f');
      await announced('ALTER TABLE t ADD y int PRIMARY KEY');
      await announced('ALTER TABLE t DROP COLUMN y');
      expect(await identity('t')).toBe('f');
      await announced(`CREATE TYPE mood AS ENUM ('a')`);
      await announced('CREATE TABLE u (m mood PRIMARY KEY, x int)');
      await announced('DROP TYPE mood CASCADE');
      expect(await identity('u')).toBe('f');
    });

    it('is each leaf’s own', async () => {
      await announced('CREATE TABLE p (x int, y int) PARTITION BY RANGE (x)');
      await announced('CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)');
      await announced('CREATE TABLE p2 (x int, y int)');
      await announced('ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)');
      expect([await identity('p1'), await identity('p2')]).toEqual(['f', 'f']);
      await announced('ALTER TABLE p ADD PRIMARY KEY (x)');
      expect([await identity('p1'), await identity('p2')]).toEqual(['d', 'd']);
      await announced('ALTER TABLE p DROP CONSTRAINT p_pkey');
      expect([await identity('p1'), await identity('p2')]).toEqual(['f', 'f']);
      await client.query('INSERT INTO p VALUES (1, 1), (11, 1); UPDATE p SET y = 2; DELETE FROM p WHERE x = 1');
    });

    it('leaves what the user chose, as long as it works', async () => {
      await announced('CREATE TABLE t (x int NOT NULL, y int PRIMARY KEY)');
      await announced('CREATE UNIQUE INDEX t_x ON t (x)');
      await announced('ALTER TABLE t REPLICA IDENTITY USING INDEX t_x');
      expect(await identity('t')).toBe('i');
      await announced('ALTER TABLE t ADD z int');
      expect(await identity('t')).toBe('i');
      await announced('ALTER TABLE t REPLICA IDENTITY FULL');
      await announced('ALTER TABLE t DROP z');
      expect(await identity('t')).toBe('f');
      await announced('ALTER TABLE t REPLICA IDENTITY NOTHING');
      expect(await identity('t')).toBe('d');
    });

    it('lets tables with generated columns be changed', async () => {
      await announced('CREATE TABLE t (x int, y int GENERATED ALWAYS AS (x + 1) STORED)');
      await client.query('INSERT INTO t VALUES (1); UPDATE t SET x = 2; DELETE FROM t');
      if (server.major < 18) return;
      await announced('CREATE TABLE v (x int NOT NULL UNIQUE, y int GENERATED ALWAYS AS (x + 1) VIRTUAL)');
      await client.query('INSERT INTO v VALUES (1); UPDATE v SET x = 2; DELETE FROM v');
    });

    it('is FULL where PostgreSQL does not send all of a key', async () => {
      const full = server.major < 18;
      const slug = 'tenant int NOT NULL, name text, slug text GENERATED ALWAYS AS (lower(name)) STORED NOT NULL';
      await announced(`CREATE TABLE p (${slug}, PRIMARY KEY (tenant, slug))`);
      await announced(`CREATE TABLE i (${slug}, UNIQUE (slug, tenant))`);
      await announced('ALTER TABLE i REPLICA IDENTITY USING INDEX i_slug_tenant_key');
      await announced(`CREATE TABLE beside (${slug}, PRIMARY KEY (tenant) INCLUDE (slug))`);
      expect([await identity('p'), await identity('i'), await identity('beside')]).toEqual(
        full ? ['f', 'f', 'd'] : ['d', 'i', 'd'],
      );
      await announced('ALTER TABLE p DROP CONSTRAINT p_pkey, ADD PRIMARY KEY (tenant)');
      expect(await identity('p')).toBe('d');
    });
  });

  describe('sequences', () => {
    it('hand out this node’s class', async () => {
      await announced('CREATE TABLE t (a serial, b bigserial, c smallserial, d int GENERATED ALWAYS AS IDENTITY)');
      for (const name of ['a', 'b', 'c', 'd']) expect(await take(`t_${name}_seq`, 3)).toEqual([3, 19, 35]);
      await announced(
        'CREATE TABLE u (id int GENERATED BY DEFAULT AS IDENTITY (START 100 INCREMENT 10 CACHE 5) PRIMARY KEY)',
      );
      expect(await take('u_id_seq', 3)).toEqual([120, 280, 440]);
      await announced('CREATE SEQUENCE s INCREMENT -1');
      expect(await take('s', 3)).toEqual([-3, -19, -35]);
      await announced('CREATE TEMP SEQUENCE own');
      expect(await take('own', 3)).toEqual([1, 2, 3]);
    });

    it('stay in it, whatever is altered', async () => {
      await announced('CREATE TABLE t (id serial PRIMARY KEY)');
      await announced('ALTER TABLE t ADD x int');
      await announced('ALTER SEQUENCE t_id_seq OWNED BY NONE');
      await announced('ALTER SEQUENCE t_id_seq AS bigint');
      expect(await take('t_id_seq', 2)).toEqual([3, 19]);
      await announced('ALTER SEQUENCE t_id_seq RESTART WITH 100');
      expect(await take('t_id_seq', 2)).toEqual([115, 131]);
      await announced('ALTER SEQUENCE t_id_seq RESTART');
      expect(await take('t_id_seq', 1)).toEqual([3]);
      await announced('ALTER SEQUENCE t_id_seq START WITH 1000');
      expect(await take('t_id_seq', 1)).toEqual([19]);
      expect(await failure(announced('ALTER SEQUENCE t_id_seq INCREMENT BY 2'))).toBe('0A000');
      await announced('ALTER SEQUENCE t_id_seq INCREMENT BY 2 RESTART WITH 2001');
      expect(await take('t_id_seq', 2)).toEqual([2021, 2053]);
    });

    it('keep their increment unless they begin anew: another node may have used what this one has not', async () => {
      await announced('CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, other serial)');
      expect(await failure(announced('ALTER TABLE t ALTER id SET INCREMENT BY 2'))).toBe('0A000');
      expect(await failure(announced('ALTER TABLE t ALTER id SET INCREMENT BY 2 RESTART'))).toBe('0A000');
      await announced('ALTER TABLE t ALTER id SET INCREMENT BY 2 RESTART WITH 101');
      expect(await take('t_id_seq', 2)).toEqual([101, 133]);
      await announced('ALTER TABLE t ALTER id RESTART 1001 SET INCREMENT BY 1');
      expect(await take('t_id_seq', 2)).toEqual([1011, 1027]);
      // As on the other nodes.
      await client.query('SET session_replication_role = replica');
      await client.query('ALTER TABLE t ALTER id SET INCREMENT BY 2 RESTART WITH 2001');
      expect(await take('t_id_seq', 2)).toEqual([2021, 2053]);
    });

    it('return to it: TRUNCATE … RESTART IDENTITY, CYCLE, identity RESTART', async () => {
      await announced('CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY)');
      await take('t_id_seq', 5);
      await client.query('TRUNCATE t RESTART IDENTITY');
      expect(await take('t_id_seq', 2)).toEqual([3, 19]);
      await announced('ALTER TABLE t ALTER id RESTART WITH 50');
      expect(await take('t_id_seq', 1)).toEqual([51]);
      await announced('CREATE SEQUENCE c MAXVALUE 40 CYCLE');
      expect(await take('c', 5)).toEqual([3, 19, 35, 3, 19]);
      await announced('CREATE SEQUENCE d INCREMENT -1 MINVALUE 1 MAXVALUE 40 CYCLE');
      expect(await take('d', 5)).toEqual([38, 22, 6, 38, 22]);
    });

    it('end where their range ends, and are refused where it is too small to be divided', async () => {
      await announced('CREATE SEQUENCE s MAXVALUE 20');
      expect(await take('s', 2)).toEqual([3, 19]);
      expect(await failure(take('s', 1))).toBe('2200H');
      expect(await failure(announced('CREATE SEQUENCE n MAXVALUE 15'))).toBe('0A000');
      await announced('CREATE SEQUENCE e START 19 MAXVALUE 20');
      expect(await failure(take('e', 1))).toBe('2200H');
    });
  });

  describe('DDL that was not announced', () => {
    it.each([
      'CREATE TABLE t (x int)',
      'DO $$ BEGIN CREATE TABLE t (x int); END $$',
      'DO $$ BEGIN EXECUTE $x$CREATE TABLE t AS SELECT 1$x$; END $$',
      'CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$',
      'DROP TABLE old',
      'DROP SCHEMA s CASCADE',
      'ALTER TABLE old ADD x int',
      'CREATE EXTENSION hstore',
      'GRANT SELECT ON old TO PUBLIC',
      'CREATE TEMP TABLE x AS SELECT nest()',
      'DROP OWNED BY app',
    ])('%s is refused', async (ddl) => {
      await announced('CREATE TABLE old (id int PRIMARY KEY)');
      await announced('CREATE SCHEMA s');
      await announced(
        `CREATE FUNCTION nest() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE n (x int); RETURN 1; END $$`,
      );
      expect(await failure(client.query(ddl))).toBe('0A000');
    });

    it('is refused inside a statement that was', async () => {
      await announced(
        `CREATE FUNCTION nest() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE n (x int); RETURN 1; END $$`,
      );
      expect(await failure(announced('CREATE TABLE t AS SELECT nest()'))).toBe('0A000');
      expect(await column(`SELECT 1 FROM pg_class WHERE relname IN ('t', 'n')`)).toEqual([]);
      await announced('CREATE TABLE ok (x int)');
    });

    it('may concern temporary objects, and may be part of an extension or of maintenance', async () => {
      await client.query(`DO $$ BEGIN
        CREATE TEMP TABLE t (id serial PRIMARY KEY, x int DEFAULT 1); CREATE INDEX ON t (x); ALTER TABLE t ADD y int;
        CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
        DROP TABLE t; CREATE TEMP VIEW v AS SELECT 1;
      END $$`);
      await announced('CREATE EXTENSION hstore');
      await announced('ALTER EXTENSION hstore UPDATE');
      await announced('CREATE MATERIALIZED VIEW m AS SELECT 1 AS x');
      await announced('CREATE UNIQUE INDEX ON m (x)');
      await client.query('BEGIN');
      await client.query(`SELECT set_config('multimaster.ddl', 'x', true)`);
      await client.query('REFRESH MATERIALIZED VIEW CONCURRENTLY m');
      await client.query('COMMIT');
      await client.query('REINDEX TABLE pg_class');
      expect(await column('SELECT pg_current_xact_id_if_assigned()')).toEqual([null]);
    });

    it('is judged statement by statement, also across savepoints', async () => {
      await client.query('BEGIN');
      await client.query('SAVEPOINT a');
      await expect(client.query('CREATE TABLE t (x int)')).rejects.toThrow('not supported inside a function');
      await client.query('ROLLBACK TO a');
      await client.query(`SELECT set_config('multimaster.ddl', 'x', true)`);
      await client.query('CREATE TABLE t (x int)');
      await expect(client.query('CREATE TABLE u (x int)')).rejects.toThrow('not supported inside a function');
      await client.query('ROLLBACK');
    });

    it('works for an ordinary role, whose rights are not widened', async () => {
      await announced('GRANT CREATE ON SCHEMA public TO app');
      const { rows } = await client.query<{ name: string }>('SELECT current_database() AS name');
      const app = await server.connect({ user: 'app', database: rows[0].name });
      await announced('CREATE TABLE t (id serial, x int)', app);
      expect(await identity('t')).toBe('f');
      await expect(app.query('SELECT * FROM multimaster.installation')).rejects.toThrow('permission denied');
      await expect(app.query(`SELECT multimaster.execute_quietly('DROP TABLE t')`)).rejects.toThrow(
        'permission denied',
      );
      await app.end();
    });

    it('is none of its business in a replaying session, which keeps identities and sequences all the same', async () => {
      await client.query('SET session_replication_role = replica');
      await client.query('CREATE TABLE t (id serial, x int)');
      expect(await identity('t')).toBe('f');
      expect(await take('t_id_seq', 2)).toEqual([3, 19]);
      await client.query('INSERT INTO t (x) VALUES (1)');
      await client.query('ALTER TABLE t ADD r float DEFAULT random(), ADD n timestamptz DEFAULT now()');
      await client.query('DROP TABLE t');
      expect(await column('SELECT * FROM multimaster.sequence')).toEqual([]);
      expect(await column('SELECT * FROM multimaster.identity')).toEqual([]);
    });

    it('can be prepared', async () => {
      await client.query('BEGIN');
      await client.query(`SELECT set_config('multimaster.ddl', 'x', true)`);
      await client.query('CREATE TABLE t (id serial, e int DEFAULT 1)');
      await client.query('INSERT INTO t VALUES (DEFAULT)');
      const gid = `g${count}`;
      await client.query(`PREPARE TRANSACTION '${gid}'`);
      expect(await column(`SELECT current_setting('multimaster.ddl_stack')`)).toEqual(['']);
      await announced('CREATE TABLE other (id serial)');
      await client.query(`COMMIT PREPARED '${gid}'`);
      expect(await take('t_id_seq', 1)).toEqual([19]);
      expect(await identity('t')).toBe('f');
    });

    it('leaves statements that commit on their way alone', async () => {
      await announced('CREATE TABLE t (x int)');
      await client.query(`SET multimaster.ddl = 'x'`);
      await client.query('CREATE INDEX CONCURRENTLY i ON t (x)');
      await client.query(`SET multimaster.ddl = 'x'`);
      await client.query('DROP INDEX CONCURRENTLY i');
    });
  });

  describe('changes of rows by ALTER TABLE', () => {
    beforeEach(async () => {
      await announced('CREATE TABLE t (id int PRIMARY KEY, x int, s text)');
      await announced('CREATE TABLE empty (id int PRIMARY KEY, x int)');
      await client.query(`INSERT INTO t VALUES (1, 1, '1')`);
      await announced('CREATE DOMAIN any_id AS uuid DEFAULT gen_random_uuid() CHECK (VALUE IS NOT NULL)');
      await announced('CREATE DOMAIN id_again AS any_id');
      await announced('CREATE DOMAIN moment AS timestamptz DEFAULT now()');
      await announced('CREATE DOMAIN seven AS int DEFAULT 7');
      await announced(`CREATE TYPE mood AS ENUM ('now', 'later')`);
    });

    it.each([
      'ADD y float DEFAULT random()',
      'ADD y uuid DEFAULT gen_random_uuid()',
      'ADD y timestamptz DEFAULT now()',
      'ADD y timestamptz DEFAULT CURRENT_TIMESTAMP',
      'ADD y serial',
      'ADD y int GENERATED ALWAYS AS IDENTITY',
      `ADD y timestamptz DEFAULT 'now'`,
      `ADD y date DEFAULT $$ Today $$`,
      `ADD y date[] DEFAULT '{2020-01-01,tomorrow}'`,
      `ADD y tstzrange DEFAULT '[yesterday 10:00,)'`,
      `ADD y int DEFAULT 'today'::date - '2020-01-01'::date`,
      `ADD y date DEFAULT 'now'::text::date`,
      `ADD y timestamptz DEFAULT 'now', ALTER x TYPE bigint`,
      `ADD y timestamptz DEFAULT 'now', ALTER y SET DEFAULT NULL`,
      `ADD y timestamptz DEFAULT now(), ALTER x TYPE bigint`,
      'ADD y any_id',
      'ADD y id_again',
      'ADD y moment',
      'ALTER x TYPE float USING random()',
      'ALTER x TYPE timestamptz USING now()',
      'ALTER x TYPE timestamptz USING CURRENT_TIMESTAMP',
      `ALTER x TYPE timestamptz USING 'now'`,
      `ALTER x TYPE bool USING id > 1 AND '2020-01-01' < date 'today'`,
    ])('%s is refused where there are rows', async (change) => {
      expect(await failure(announced(`ALTER TABLE t ${change}`))).toBe('0A000');
      if (change.startsWith('ADD')) await announced(`ALTER TABLE empty ${change}`);
    });

    it.each([
      'ADD y int DEFAULT 7',
      `ADD y text DEFAULT upper('x')`,
      `ADD y text DEFAULT 'now'`,
      `ADD y mood DEFAULT 'now'`,
      `ADD y mood DEFAULT 'now'::text::mood`,
      `ADD today timestamptz DEFAULT '2020-01-01', ADD known text DEFAULT 'nowhere'`,
      'ADD y seven',
      `ADD y any_id DEFAULT '00000000-0000-0000-0000-000000000000'`,
      'ADD y int GENERATED ALWAYS AS (x * 2) STORED',
      'ADD y timestamptz, ALTER y SET DEFAULT now()',
      'ALTER x TYPE bigint',
      'ALTER s TYPE int USING s::int',
      'ALTER s TYPE int USING (length(s) + x)',
      'ALTER x SET DEFAULT random()',
    ])('%s is allowed', async (change) => {
      await announced(`ALTER TABLE t ${change}`);
    });

    it('domains do not take the present moment for a constant', async () => {
      expect(await failure(announced(`CREATE DOMAIN d AS timestamptz DEFAULT 'now'`))).toBe('0A000');
      expect(await failure(announced(`ALTER DOMAIN moment SET DEFAULT 'today'`))).toBe('0A000');
      await announced(`ALTER DOMAIN moment SET DEFAULT '2020-01-01'`);
      await announced('ALTER TABLE t ADD y moment');
      await announced(`CREATE DOMAIN word AS text DEFAULT 'now'`);
    });

    it('an unlogged table stays unlogged', async () => {
      await announced('CREATE UNLOGGED TABLE u (id int PRIMARY KEY)');
      expect(await failure(announced('ALTER TABLE u SET LOGGED'))).toBe('0A000');
      await announced('ALTER TABLE t SET UNLOGGED');
    });
  });

  it('takes over what was there, can be repeated, and leaves it as it was', async () => {
    await uninstallCatalog(client);
    expect(await column(`SELECT 1 FROM pg_namespace WHERE nspname = 'multimaster'`)).toEqual([]);
    await client.query(`
      CREATE TABLE t (id serial, x int);
      INSERT INTO t (x) SELECT 1 FROM generate_series(1, 10);
      CREATE TABLE n (id int PRIMARY KEY); ALTER TABLE n REPLICA IDENTITY NOTHING;
      CREATE TABLE behind (id serial PRIMARY KEY); INSERT INTO behind VALUES (500);
      CREATE SEQUENCE tiny MAXVALUE 3`);
    const before = await client.query('SELECT s.* FROM pg_sequence s ORDER BY seqrelid');
    for (let i = 0; i < 2; i++) {
      await installCatalog(client, { nodeId: NODE, stride: STRIDE });
      expect([await identity('t'), await identity('n')]).toEqual(['f', 'd']);
    }
    const xmin = `SELECT xmin FROM pg_class WHERE relname = 't' UNION ALL SELECT xmin FROM multimaster.installation`;
    const unchanged = await column(xmin);
    await installCatalog(client, { nodeId: NODE, stride: STRIDE });
    expect(await column(xmin)).toEqual(unchanged);
    expect(await take('t_id_seq', 2)).toEqual([19, 35]);
    expect(await take('behind_id_seq', 1)).toEqual([515]);
    expect(await take('tiny', 2)).toEqual([1, 2]);

    await uninstallCatalog(client);
    expect([await identity('t'), await identity('n')]).toEqual(['d', 'n']);
    expect((await client.query('SELECT s.* FROM pg_sequence s ORDER BY seqrelid')).rows).toEqual(before.rows);
    expect(await take('t_id_seq', 1)).toEqual([36]);
    await client.query('CREATE TABLE plain (x int)');
    expect(await column('SELECT pubname FROM pg_publication')).toEqual([]);
  });

  it('is not installed where a trigger fires on replay', async () => {
    await announced('CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)');
    await announced(`CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'`);
    await announced('CREATE TRIGGER audit AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing()');
    await announced('ALTER TABLE t ENABLE ALWAYS TRIGGER audit');
    const install = () => installCatalog(client, { nodeId: NODE, stride: STRIDE });
    const cure = 'SET session_replication_role = replica;  ALTER TABLE public.t ENABLE TRIGGER audit;';
    await expect(install()).rejects.toThrow(new RegExp(`^trigger audit of table public.t fires on replay.*: ${cure}$`));
    await client.query(cure);
    await install();
    // Those that must fire do.
    const firing = `SELECT count(*)::int FROM pg_trigger WHERE tgenabled = 'A' AND tgconstraint <> 0`;
    expect(await column(firing)).toEqual([1]);
  });

  it('waits for no transaction in doubt when it is repeated', async () => {
    await announced('CREATE TABLE t (id serial PRIMARY KEY)');
    await client.query('BEGIN');
    await client.query('TRUNCATE t RESTART IDENTITY');
    await client.query(`SELECT set_config('multimaster.ddl', 'x', true)`);
    await client.query('CREATE TABLE u (id serial)');
    await client.query(`PREPARE TRANSACTION 'doubt${count}'`);
    await client.query(`SET lock_timeout = '1s'`);
    await installCatalog(client, { nodeId: NODE, stride: STRIDE });
    await client.query(`ROLLBACK PREPARED 'doubt${count}'`);
  });

  it('becomes another node’s when the server is a copy of one', async () => {
    await announced('CREATE TABLE t (id serial PRIMARY KEY)');
    await client.query('INSERT INTO t VALUES (DEFAULT), (DEFAULT), (100)');
    await installCatalog(client, { nodeId: 5, stride: STRIDE });
    expect(await take('t_id_seq', 2)).toEqual([101, 117]);
    await expect(installCatalog(client, { nodeId: 5, stride: 32 })).rejects.toThrow(
      "sequences.stride can't be changed",
    );
  });

  it('does nothing on a server that a dump of it was restored on', async () => {
    await client.query('UPDATE multimaster.installation SET system_identifier = 1');
    await client.query('CREATE TABLE t (id serial)');
    expect(await take('t_id_seq', 2)).toEqual([1, 2]);
    expect(await identity('t')).toBe('d');
  });
});
