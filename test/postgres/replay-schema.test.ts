import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReplayCluster } from '../support/replay-cluster.ts';

describe('replay of schema changes', () => {
  let c: ReplayCluster;

  beforeAll(async () => {
    c = await ReplayCluster.start();
  });
  afterAll(() => c.stop());

  const rows = async (sql: string): Promise<string[]> => (await c.rows(sql)).map((row) => row.join('|'));

  it('runs them in their place between the rows', async () => {
    await c.run(
      'CREATE TABLE place (id int PRIMARY KEY, a text)',
      `INSERT INTO place VALUES (1, 'a'), (2, 'b')`,
      'ALTER TABLE place ADD b int DEFAULT 5, ADD c text',
      `UPDATE place SET c = a || b WHERE id = 1`,
      'ALTER TABLE place RENAME a TO "A a"',
      `INSERT INTO place ("A a", id) VALUES ('c', 3)`,
      'ALTER TABLE place DROP COLUMN b, ADD b numeric DEFAULT 1.5 NOT NULL',
      'DELETE FROM place WHERE id = 2',
      'ALTER TABLE place ALTER id TYPE bigint',
      'INSERT INTO place (id) VALUES (5000000000)',
      'ALTER TABLE place RENAME TO "other place"',
      'UPDATE "other place" SET b = 0 WHERE id = 3',
      'CREATE TABLE place (x int)',
      'INSERT INTO place VALUES (1), (1)',
      'CREATE SCHEMA aside',
      'ALTER TABLE "other place" SET SCHEMA aside',
      'UPDATE aside."other place" SET c = NULL',
      'DROP TABLE place',
      'CREATE TABLE place (x text, id serial)',
      `INSERT INTO place (x) VALUES ('new')`,
    );
    await c.expectSame();
    expect(await rows('SELECT id, "A a", c, b FROM aside."other place" ORDER BY id')).toEqual([
      '1|a||1.5',
      '3|c||0',
      '5000000000|||1.5',
    ]);
    expect(await rows('SELECT x FROM place')).toEqual(['new']);
  });

  it('alters tables that other transactions go on to write', async () => {
    await c.run('CREATE TABLE altered (id int PRIMARY KEY, v text, w text)');
    await c.each(
      `INSERT INTO altered SELECT i, 'v', 'w' FROM generate_series(1, 30) i`,
      'ALTER TABLE altered ADD n int DEFAULT 7',
      'UPDATE altered SET n = id WHERE id < 10',
      'ALTER TABLE altered DROP COLUMN v',
      `INSERT INTO altered VALUES (100, 'x', 1)`,
      'ALTER TABLE altered DROP CONSTRAINT altered_pkey',
      'UPDATE altered SET n = n + 1 WHERE id < 5',
      'INSERT INTO altered VALUES (100, NULL, NULL)',
      'DELETE FROM altered WHERE ctid = (SELECT max(ctid) FROM altered WHERE id = 100)',
      'ALTER TABLE altered ADD PRIMARY KEY (id, n)',
      `UPDATE altered SET w = 'z' WHERE id = 7`,
      'ALTER TABLE altered ALTER n TYPE text USING n::text',
      'ALTER TABLE altered ALTER w SET DEFAULT now()::text',
      `INSERT INTO altered (id, n) VALUES (200, 'text')`,
      'ALTER TABLE altered ADD CHECK (id > 0), ADD UNIQUE (w, id), ALTER w SET NOT NULL, ALTER w SET STORAGE EXTERNAL',
      'ALTER TABLE altered RENAME COLUMN w TO "W"',
      'ALTER TABLE altered RENAME CONSTRAINT altered_id_check TO positive',
      `ALTER TABLE altered SET (fillfactor = 50), ALTER "W" SET STATISTICS 500`,
      `UPDATE altered SET "W" = "W" || id`,
    );
    await c.expectSame();
    expect((await c.refusal(2, `INSERT INTO altered VALUES (0, '', '')`))?.code).toBe('23514');
  });

  it('makes and drops objects of every kind', async () => {
    await c.each(
      'CREATE SCHEMA app CREATE TABLE inside (id serial PRIMARY KEY, v text) CREATE VIEW inside_view AS SELECT v FROM inside',
      `CREATE TYPE app.color AS ENUM ('red', 'blue')`,
      `ALTER TYPE app.color ADD VALUE 'green' BEFORE 'blue'`,
      `CREATE TABLE app.painted (id int PRIMARY KEY, c app.color, EXCLUDE (c WITH =) WHERE (c <> 'red'))`,
      `INSERT INTO app.painted VALUES (1, 'green')`,
      'CREATE TYPE app.pair AS (a int, b text)',
      'ALTER TYPE app.pair ADD ATTRIBUTE c numeric',
      'CREATE DOMAIN app.pos AS int DEFAULT 3 CHECK (VALUE > 0)',
      'ALTER DOMAIN app.pos ADD CONSTRAINT small CHECK (VALUE < 100)',
      'CREATE TYPE app.textrange AS RANGE (subtype = text)',
      'CREATE TABLE app.typed (p app.pair, d app.pos, r app.textrange)',
      `INSERT INTO app.typed VALUES ((1, 'x', 2.5), 5, '[a,b)')`,
      'CREATE FUNCTION app.twice(x int) RETURNS int LANGUAGE sql IMMUTABLE RETURN x * 2',
      'CREATE INDEX painted_twice ON app.painted (app.twice(id)) WHERE id > 0',
      'CREATE UNIQUE INDEX ON app.inside (lower(v)) INCLUDE (id)',
      'CREATE STATISTICS app.st ON id, v FROM app.inside',
      'CREATE AGGREGATE app.total (int) (SFUNC = int4pl, STYPE = int, INITCOND = 0)',
      'CREATE OPERATOR app.=~= (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)',
      'CREATE COLLATION app.german FROM "C"',
      'CREATE TEXT SEARCH CONFIGURATION app.plain (COPY = simple)',
      `CREATE CAST (app.color AS text) WITH INOUT AS ASSIGNMENT`,
      'CREATE MATERIALIZED VIEW app.empty AS SELECT id FROM app.inside WITH NO DATA',
      `COMMENT ON TABLE app.inside IS 'it''s "here" €'`,
      'CREATE RULE log AS ON DELETE TO app.inside DO ALSO NOTHING',
      `CREATE POLICY own ON app.inside USING (v = current_user) WITH CHECK (true)`,
      'ALTER TABLE app.inside ENABLE ROW LEVEL SECURITY',
      `CREATE FUNCTION app.tg() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := NEW.v || '!'; RETURN NEW; END $$`,
      'CREATE TRIGGER tg BEFORE INSERT ON app.inside FOR EACH ROW EXECUTE FUNCTION app.tg()',
      `INSERT INTO app.inside (v) VALUES ('x')`,
      'ALTER TABLE app.inside DISABLE TRIGGER tg',
      `INSERT INTO app.inside (v) VALUES ('y')`,
      'CREATE OR REPLACE VIEW app.inside_view AS SELECT v, id FROM app.inside',
      `CREATE OR REPLACE FUNCTION app.twice(x int) RETURNS int LANGUAGE sql IMMUTABLE RETURN x + x`,
      'ALTER FUNCTION app.twice(int) COST 5',
    );
    await c.expectSame();
    expect(await rows('SELECT v FROM app.inside ORDER BY v')).toEqual(['x!', 'y']);
    await c.each(
      'DROP TRIGGER tg ON app.inside',
      'DROP FUNCTION app.tg',
      'DROP TYPE app.pair CASCADE',
      'DROP SCHEMA app CASCADE',
    );
    await c.expectSame();
  });

  it('gives what is made the same owner and rights on every node', async () => {
    await c.each(
      'CREATE ROLE "the Owner" NOLOGIN',
      'CREATE ROLE reader LOGIN IN ROLE "the Owner"',
      `ALTER ROLE reader SET work_mem = '7MB'`,
      'GRANT CREATE ON SCHEMA public TO "the Owner"',
      'ALTER DEFAULT PRIVILEGES FOR ROLE "the Owner" GRANT SELECT ON TABLES TO reader',
      'CREATE SCHEMA "mine, too" AUTHORIZATION "the Owner"',
    );
    await c.run(
      'SET LOCAL ROLE "the Owner"',
      'CREATE TABLE owned (id serial PRIMARY KEY, u text DEFAULT current_user)',
      'INSERT INTO owned DEFAULT VALUES',
      'SET LOCAL search_path = "mine, too", public',
      'CREATE TABLE elsewhere (id int PRIMARY KEY REFERENCES owned)',
      `CREATE FUNCTION who() RETURNS text LANGUAGE sql STABLE AS 'SELECT max(u) FROM owned'`,
      'INSERT INTO elsewhere SELECT id FROM owned',
      'GRANT INSERT (id) ON elsewhere TO reader WITH GRANT OPTION',
    );
    const client = c.client(2);
    await client.query('SET SESSION AUTHORIZATION reader; SET ROLE "the Owner"');
    await client.query('CREATE TABLE "mine, too".by_session (id int)');
    await client.query('SET ROLE NONE');
    await client.query('ALTER TABLE "mine, too".by_session OWNER TO SESSION_USER');
    await client.query('RESET SESSION AUTHORIZATION');
    await client.query('SET ROLE reader');
    await expect(client.query('CREATE TABLE nope.x (id int)')).rejects.toThrow();
    await expect(client.query('DROP ROLE "the Owner"')).rejects.toThrow('permission denied');
    await client.query('RESET ROLE');
    await c.each(
      'REVOKE SELECT ON owned FROM reader',
      'ALTER TABLE owned OWNER TO reader',
      'GRANT reader TO postgres WITH ADMIN OPTION',
      'ALTER ROLE reader RENAME TO "a reader"',
      `ALTER ROLE "a reader" PASSWORD 'secret' VALID UNTIL 'infinity' CONNECTION LIMIT 3`,
    );
    await c.expectSame();
    expect(await rows(`SELECT tableowner FROM pg_tables WHERE tablename IN ('owned', 'elsewhere') ORDER BY 1`)).toEqual(
      ['a reader', 'the Owner'],
    );
    expect(
      await rows(`SELECT rolpassword IS NOT NULL, rolconnlimit FROM pg_authid WHERE rolname = 'a reader'`),
    ).toEqual(['t|3']);
    await c.each('DROP OWNED BY "a reader", "the Owner" CASCADE', 'DROP ROLE "a reader"', 'DROP ROLE "the Owner"');
    await c.expectSame();
  });

  it('means what the session meant, whatever it has set', async () => {
    const client = c.client(3);
    await client.query(`SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'sql_standard';
      SET TimeZone = 'Asia/Kolkata'; SET check_function_bodies = off; SET client_encoding = 'LATIN1'`);
    await client.query(
      `CREATE TABLE meant (id int PRIMARY KEY, d date DEFAULT '03/04/2024', t timestamptz DEFAULT '2024-03-04 00:00', s text DEFAULT 'a\\\\b''c', i interval DEFAULT '1-2')`,
    );
    await client.query(`CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT no_such_column'`);
    await client.query('INSERT INTO meant VALUES (1)');
    await client.query('RESET ALL; SET synchronous_commit = remote_apply');
    await c.each('INSERT INTO meant VALUES (2)', 'INSERT INTO meant VALUES (3)', 'INSERT INTO meant VALUES (4)');
    await c.expectSame();
    expect(await rows(`SELECT count(DISTINCT (d, t, s, i)), min(d), min(s) FROM meant`)).toEqual([
      `1|2024-04-03|a\\\\b'c`,
    ]);
  });

  it('installs extensions and uses what they bring', async () => {
    await c.each(
      'CREATE EXTENSION hstore',
      'CREATE EXTENSION citext SCHEMA public',
      'CREATE TABLE ci (k citext PRIMARY KEY, h hstore)',
      'CREATE TABLE hs (h hstore, v text)',
      'CREATE INDEX ON hs (h)',
      'CREATE INDEX ON ci USING gin (h)',
      `INSERT INTO ci VALUES ('Abc', 'a=>1, b=>NULL'), ('x', '')`,
      `INSERT INTO hs VALUES ('a=>1', 'x'), ('a=>1', 'x'), (NULL, 'y')`,
      `UPDATE ci SET h = h || 'c=>"3 \\""' WHERE k = 'aBC'`,
      `DELETE FROM hs WHERE ctid = (SELECT min(ctid) FROM hs)`,
      `UPDATE hs SET v = 'z'`,
      `DELETE FROM ci WHERE k = 'X'`,
    );
    await c.expectSame();
    expect(await rows('SELECT * FROM ci')).toEqual(['Abc|"a"=>"1", "b"=>NULL, "c"=>"3 \\""']);
    await c.run('DROP EXTENSION hstore CASCADE');
    await c.expectSame();
  });

  it('makes partitions, attaches and detaches them', async () => {
    await c.run(
      'CREATE TABLE measured (id bigserial, at date NOT NULL, v int) PARTITION BY RANGE (at)',
      `CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')`,
      `INSERT INTO measured (at, v) VALUES ('2024-01-05', 1)`,
      `CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')`,
      `INSERT INTO measured (at, v) VALUES ('2024-02-05', 2)`,
      `UPDATE measured SET at = '2024-02-06' WHERE v = 1`,
    );
    await c.each(
      'ALTER TABLE measured ADD PRIMARY KEY (id, at)',
      'CREATE INDEX ON measured (v)',
      'ALTER TABLE measured DETACH PARTITION measured_1',
      `INSERT INTO measured_1 (id, at, v) VALUES (1, '2024-01-01', 9)`,
      `ALTER TABLE measured ATTACH PARTITION measured_1 FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')`,
      'ALTER TABLE measured ADD w text DEFAULT 3',
      'UPDATE measured SET v = v + 1',
      'DROP TABLE measured_2',
    );
    await c.expectSame();
    expect(await rows('SELECT v, w FROM measured')).toEqual(['10|3']);
  });

  it('undoes them with their savepoint or transaction', async () => {
    await c.run(
      'CREATE TABLE kept (id int)',
      'SAVEPOINT a',
      'CREATE TABLE undone (id int)',
      'INSERT INTO undone VALUES (1)',
      'ROLLBACK TO a',
      'CREATE TABLE undone (other text)',
      `INSERT INTO undone VALUES ('x')`,
    );
    await c.expectSame();
    const client = c.client(1);
    await client.query('BEGIN');
    await client.query('DROP TABLE kept, undone');
    await client.query('CREATE TABLE kept (now text)');
    await client.query('ROLLBACK');
    expect(
      (await c.refusal(2, 'CREATE TABLE half (id int)', 'INSERT INTO half VALUES (1)', 'SELECT 1 / 0'))?.code,
    ).toBe('22012');
    await c.expectSame();
    expect(await rows(`SELECT to_regclass('half')`)).toEqual(['']);
  });

  it.each([
    ['CREATE TEMPORARY TABLE r (id int)'],
    ['CREATE UNLOGGED TABLE r (id int)'],
    ['CREATE TABLE r AS SELECT random() AS x'],
    ['SELECT random() AS x INTO r'],
    ['ALTER TABLE refused ADD x float8 DEFAULT random()'],
    ['ALTER TABLE refused ADD x serial'],
    ['ALTER TABLE refused ADD at timestamptz DEFAULT now()'],
    ['ALTER TABLE refused ALTER v TYPE text USING v || random()'],
    [`DO $$ BEGIN EXECUTE 'CREATE TABLE r (id int)'; END $$`],
    [`SELECT make_table()`],
    ['CREATE INDEX CONCURRENTLY ON refused (v)'],
    ['CREATE SEQUENCE r'],
    ['CREATE DATABASE r'],
    ['ALTER SYSTEM SET work_mem = 1000'],
    ['CREATE PUBLICATION r FOR ALL TABLES'],
    ['CREATE TABLE r (id int) TABLESPACE pg_default'],
  ])('refuses with a hint, and leaves nothing behind: %s', async (sql) => {
    await c.run('CREATE TABLE IF NOT EXISTS refused (id int PRIMARY KEY, v text)');
    await c.run(`INSERT INTO refused VALUES (1, 'x') ON CONFLICT DO NOTHING`);
    await c.run(
      `CREATE OR REPLACE FUNCTION make_table() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE TABLE r (id int); END $$`,
    );
    for (const node of [1, 2]) {
      const error = await c.refusal(node, ...(node === 1 ? [sql] : [`UPDATE refused SET v = 'lost'`, sql]));
      expect([error?.code, error?.hint]).toEqual(['0A000', expect.stringMatching(/\w/)]);
    }
    expect(await rows(`SELECT to_regclass('r'), v FROM refused`)).toEqual(['|x']);
    await c.expectSame();
  });
});
