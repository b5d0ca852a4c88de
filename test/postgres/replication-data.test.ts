import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installedBin } from '../support/postgres.ts';
import { waitFor } from '../support/wait-for.ts';
import { ReplicationPair } from './replication-pair.ts';

/** A value for every type: the first of these that the type's input function takes. */
const SAMPLES = [
  '{"a": [1, "x\\ty"]}',
  '<a b="c">d</a>',
  '1.50',
  '-7',
  '3',
  '2024-02-29 12:34:56.789+02',
  '2024-02-29',
  '04:05:06.789+02',
  '1 mon -2 days 03:04:05.6',
  '\\xdeadbeef00',
  '10.1.2.0/24',
  '08:00:2b:01:02:03',
  '08:00:2b:01:02:03:04:05',
  'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  '(1.5,2.5),(0.25,0)',
  '(1.5,2.5)',
  '[(0,0),(1,1)]',
  '((0,0),(1,1),(2,0))',
  '<(1,2),3>',
  '{1,2,3}',
  '0/16B3748',
  '10:20:10,14',
  '[1,10)',
  '[2024-01-01,2024-02-01)',
  '{[1,3),[5,7)}',
  '{[2024-01-01,2024-02-01)}',
  '1010',
  'cat & rat',
  "a:1A 'b c':2",
  'pg_class',
  'integer',
  'lower(text)',
  'lower',
  'pg_catalog.+(integer,integer)',
  'C',
  'a\\b\tc\nd\'e"fé€',
  't',
  `it's "ok", really`,
  '(1,"x y")',
  '[a,c)',
  '{[a,c)}',
  '{sad,NULL}',
  '{"(1,\\"x y\\")",NULL}',
  '{{1,2},{3,NULL}}',
  '{t,f}',
  '{a,"b,c",NULL}',
  '{2024-02-29}',
  '{"[1,10)"}',
  '{"[2024-01-01,2024-02-01)"}',
];

/** All types that a column can have, but the ones that hold a catalog's rows; with a value of each that one was found for. */
const TYPES = `
  SELECT format_type(t.oid, -1) AS type, sample($1, format_type(t.oid, -1)) AS sample
  FROM pg_type t LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
  WHERE coalesce(e.typtype, t.typtype) IN ('b', 'r', 'm', 'e', 'd')
    AND t.typnamespace = 'pg_catalog'::regnamespace
    AND t.typname !~ 'pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin|gtsvector'
    OR t.typname IN ('mood', '_mood', 'posint', '_posint', 'pair', '_pair', 'textrange', 'textmultirange')
  ORDER BY t.oid`;

const WITH_SAMPLES = `
CREATE FUNCTION sample(candidates text[], type text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE c text;
BEGIN
  FOREACH c IN ARRAY candidates LOOP
    BEGIN
      EXECUTE format('SELECT %L::%s', c, type);
      RETURN c;
    EXCEPTION WHEN others THEN NULL;
    END;
  END LOOP;
  RETURN NULL;
END $$`;

const versions = [
  { name: '15 to 15', options: { originBin: installedBin, targetBin: installedBin } },
  { name: '18 to 18', options: {} },
  { name: '15 to 18', options: { originBin: installedBin } },
].filter(({ options }) => Object.values(options).every((bin) => bin !== undefined));

describe.each(versions)('replay of data, PostgreSQL $name', ({ options }) => {
  let pair: ReplicationPair;

  beforeAll(async () => {
    pair = await ReplicationPair.start(options);
  });
  afterAll(() => pair.stop());

  async function expectSame(table: string): Promise<string[]> {
    const [a, b] = await pair.tables(table);
    expect(b).toEqual(a);
    return a;
  }

  it('carries every built-in type, as key-less rows too', async () => {
    await pair.both(WITH_SAMPLES);
    await pair.both(`
      CREATE TYPE mood AS ENUM ('sad', 'it''s "ok", really');
      CREATE DOMAIN posint AS int CHECK (VALUE > 0);
      CREATE TYPE pair AS (a int, "b c" text);
      CREATE TYPE textrange AS RANGE (subtype = text)`);
    const { rows } = await pair.a.query<{ type: string; sample: string | null }>(TYPES, [SAMPLES]);
    // Types of another major version don't exist on both sides.
    const { rows: known } = await pair.b.query<{ type: string }>('SELECT format_type(oid, -1) AS type FROM pg_type');
    const both = new Set(known.map(({ type }) => type));
    const types = rows.filter(({ type }) => both.has(type));
    expect(types.filter(({ sample }) => sample !== null).length).toBeGreaterThan(100);
    const columns = types.map(({ type }, i) => `c${i} ${type}`).join(', ');
    for (const table of ['types_key', 'types_full']) {
      await pair.both(`CREATE TABLE ${table} (id int ${table === 'types_key' ? 'PRIMARY KEY' : ''}, ${columns})`);
      if (table === 'types_full') await pair.both('ALTER TABLE types_full REPLICA IDENTITY FULL');
      const literals = types.map(({ sample }) => (sample === null ? 'NULL' : pair.a.escapeLiteral(sample)));
      await pair.run(
        `INSERT INTO ${table} VALUES (1, ${literals.join(', ')})`,
        `INSERT INTO ${table} (id) VALUES (2), (3)`,
      );
      await expectSame(table);
      const set = types.map((_, i) => `c${i} = ${literals[i]}`).join(', ');
      await pair.run(`UPDATE ${table} SET ${set} WHERE id = 2`, `UPDATE ${table} SET id = 10 WHERE id = 1`);
      expect(await expectSame(table)).toHaveLength(3);
      await pair.run(`UPDATE ${table} SET id = id + 20`, `DELETE FROM ${table} WHERE id <> 30`);
      expect(await expectSame(table)).toHaveLength(1);
    }
  });

  it('takes values as the origin meant them, whatever the settings of its databases and roles', async () => {
    await pair.both(
      'CREATE TABLE settings (id int PRIMARY KEY, d date, t timestamptz, i interval, f float8, m money, b bytea, r regclass)',
    );
    await pair.a
      .query(`ALTER ROLE postgres SET datestyle = 'SQL, DMY'; ALTER ROLE postgres SET intervalstyle = 'sql_standard';
      ALTER ROLE postgres SET extra_float_digits = -10; ALTER ROLE postgres SET bytea_output = 'escape'; ALTER ROLE postgres SET search_path = 'elsewhere';
      ALTER ROLE postgres SET timezone = 'Asia/Kolkata'`);
    await pair.b
      .query(`ALTER ROLE postgres SET datestyle = 'German, YMD'; ALTER ROLE postgres SET intervalstyle = 'iso_8601';
      ALTER ROLE postgres SET default_transaction_isolation = 'serializable'; ALTER ROLE postgres SET default_transaction_read_only = on;
      ALTER ROLE postgres SET statement_timeout = '5s'; ALTER ROLE postgres SET search_path = 'nowhere'`);
    pair.decoder.stop();
    pair.session.end();
    await waitFor('the slot is free', async () => {
      const { rows } = await pair.a.query('SELECT FROM pg_replication_slots WHERE active');
      return rows.length === 0;
    });
    pair.session = await pair.openSession('pgmm_apply_1');
    await pair.startDecoder();
    await pair.run(`INSERT INTO settings VALUES
      (1, '2024-03-04', '2024-03-04 05:06:07.123456+00', '1 year 2 mons -3 days 04:05:06', 0.1::float8 + 0.2, 12.34, '\\x00ff5c', 'settings')`);
    const rows = await Promise.all(
      [pair.a, pair.b].map((client) =>
        client.query<Record<string, string>>(
          `SELECT d::text, extract(epoch FROM t)::text AS t, extract(epoch FROM i)::text AS i, f - 0.3 AS f, m::numeric::text AS m, b, r::text FROM settings`,
        ),
      ),
    );
    expect(rows[1].rows).toEqual(rows[0].rows);
    await Promise.all([pair.a, pair.b].map((client) => client.query('ALTER ROLE postgres RESET ALL')));
  });

  it('tells NULL, empty and missing apart, and rows that are equal from each other', async () => {
    await pair.both(
      'CREATE TABLE bag (a int, b text, c json, d point, e numeric); ALTER TABLE bag REPLICA IDENTITY FULL',
    );
    await pair.run(`INSERT INTO bag SELECT 1, 'x', '{"a": 1}', '(1,2)', 1.0 FROM generate_series(1, 5)`);
    await pair.run(
      `INSERT INTO bag VALUES (1, '', NULL, NULL, NULL), (1, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL), (1, 'x', '{"a":1}', '(1,2)', 1.00)`,
    );
    await expectSame('bag');
    await pair.run(`DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE e = 1.0)`);
    expect(await expectSame('bag')).toHaveLength(9);
    await pair.run(
      `UPDATE bag SET b = 'y' WHERE ctid IN (SELECT ctid FROM bag WHERE b = 'x' LIMIT 2)`,
      `DELETE FROM bag WHERE ctid = (SELECT min(ctid) FROM bag WHERE a IS NULL)`,
      `UPDATE bag SET b = NULL WHERE b = ''`,
    );
    expect(await expectSame('bag')).toHaveLength(8);
    await pair.run('UPDATE bag SET e = 7');
    await expectSame('bag');
  });

  it('leaves generated columns to the server that has the row', async () => {
    const virtual = pair.origin.major >= 18 && pair.target.major >= 18;
    await pair.both(
      'CREATE TABLE generated (id int PRIMARY KEY, a int, s int GENERATED ALWAYS AS (a * 2) STORED, z text)',
    );
    if (virtual) await pair.both('ALTER TABLE generated ADD v int GENERATED ALWAYS AS (a * 3) VIRTUAL');
    await pair.run(`INSERT INTO generated (id, a, z) VALUES (1, 1, 'z'), (2, 2, NULL)`);
    await pair.run('UPDATE generated SET a = a + 10', 'DELETE FROM generated WHERE id = 2');
    expect(await expectSame('generated')).toEqual([virtual ? '(1,11,22,z,33)' : '(1,11,22,z)']);
    await pair.both('CREATE TABLE generated_full (a int, s int GENERATED ALWAYS AS (a * 2) STORED)');
    if (pair.origin.major >= 18) {
      await pair.a.query('ALTER PUBLICATION pgmm SET (publish_generated_columns = stored)');
    }
    await pair.both('ALTER TABLE generated_full REPLICA IDENTITY FULL');
    await pair.run('INSERT INTO generated_full VALUES (1), (1), (2)');
    await pair.run(
      'UPDATE generated_full SET a = 5 WHERE a = 2',
      'DELETE FROM generated_full WHERE ctid = (SELECT min(ctid) FROM generated_full WHERE a = 1)',
    );
    expect(await expectSame('generated_full')).toEqual(['(1,2)', '(5,10)']);
  });

  it('writes columns that only the server may generate', async () => {
    await pair.both(`CREATE TABLE always_key (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
      CREATE TABLE always_value (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text, big text);
      CREATE TABLE always_only (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)`);
    await pair.run(
      `INSERT INTO always_key (v) VALUES ('a'), ('b')`,
      `INSERT INTO always_value (k, v, big) SELECT g, 'v', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i) FROM generate_series(1, 3) g`,
      'INSERT INTO always_only DEFAULT VALUES',
    );
    await pair.run(`UPDATE always_key SET v = 'c' WHERE id = 1`, 'UPDATE always_key SET id = DEFAULT WHERE id = 2');
    await pair.run(`UPDATE always_value SET v = 'w' WHERE k = 1`);
    await pair.run(
      `UPDATE always_value SET n = DEFAULT, v = 'x' WHERE k = 2`,
      `UPDATE always_value SET k = 30, n = DEFAULT WHERE k = 3`,
    );
    await pair.run('UPDATE always_only SET id = DEFAULT');
    expect(await expectSame('always_key')).toEqual(['(1,c)', '(3,b)']);
    await expectSame('always_value');
    expect(await expectSame('always_only')).toEqual(['(2)']);
  });

  it('leaves large values alone that an update did not touch', async () => {
    await pair.both(`CREATE TABLE toast (id int PRIMARY KEY, v text, big text, big2 text);
      CREATE TABLE toast_key (k text PRIMARY KEY, v text); ALTER TABLE toast_key ALTER k SET STORAGE EXTERNAL;
      CREATE TABLE toast_full (a int, big text); ALTER TABLE toast_full REPLICA IDENTITY FULL`);
    const noise = (n: number) => `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, ${n}) i)`;
    await pair.run(
      `INSERT INTO toast VALUES (1, 'a', ${noise(10_000)}, ${noise(500)}), (2, 'b', NULL, ${noise(500)})`,
      `INSERT INTO toast_key VALUES (repeat('k', 2500), 'a')`,
      `INSERT INTO toast_full VALUES (1, ${noise(500)}), (1, ${noise(500)})`,
    );
    await pair.run(
      `UPDATE toast SET v = 'c'`,
      `UPDATE toast SET big = big || 'x', v = 'd' WHERE id = 1`,
      'UPDATE toast SET big = NULL WHERE id = 2',
      `UPDATE toast SET big2 = big2`,
      `UPDATE toast_key SET v = 'b'`,
      'UPDATE toast_full SET a = 2 WHERE ctid = (SELECT min(ctid) FROM toast_full)',
    );
    for (const table of ['toast', 'toast_key', 'toast_full']) await expectSame(table);
    await pair.run(`UPDATE toast_key SET k = repeat('l', 2500)`, 'DELETE FROM toast_full WHERE a = 1');
    await pair.run('DELETE FROM toast_key', 'UPDATE toast SET id = 5 WHERE id = 1');
    for (const table of ['toast', 'toast_key', 'toast_full']) await expectSame(table);
  });

  it('follows rows between partitions, and truncates what was truncated', async () => {
    await pair.both(`CREATE TABLE parted (id int, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k);
      CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
      CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY RANGE (id);
      CREATE TABLE parted_2_low (v text, k int NOT NULL, id int NOT NULL);
      ALTER TABLE parted_2 ATTACH PARTITION parted_2_low FOR VALUES FROM (0) TO (100)`);
    await pair.run(`INSERT INTO parted VALUES (1, 1, 'a'), (2, 2, 'b'), (3, 1, 'c')`);
    await pair.run('UPDATE parted SET k = 2 WHERE id = 1', `UPDATE parted SET v = 'z' WHERE id = 2`);
    expect(await expectSame('parted')).toHaveLength(3);
    await pair.run('TRUNCATE parted_1');
    expect(await expectSame('parted')).toHaveLength(2);
    await pair.run('TRUNCATE parted', `INSERT INTO parted VALUES (9, 2, 'after')`);
    expect(await expectSame('parted')).toHaveLength(1);
  });

  it('truncates with everything that hangs on it, and restarts sequences', async () => {
    await pair.both(`CREATE TABLE par (id serial PRIMARY KEY, v text); CREATE TABLE chi (id int PRIMARY KEY, p int REFERENCES par);
      CREATE TABLE inh (a int PRIMARY KEY); CREATE TABLE inh_child (PRIMARY KEY (a)) INHERITS (inh)`);
    await pair.run(
      `INSERT INTO par (v) VALUES ('a'), ('b')`,
      'INSERT INTO chi VALUES (1, 1)',
      'INSERT INTO inh VALUES (1)',
      'INSERT INTO inh_child VALUES (2)',
    );
    await pair.b.query(`SELECT setval('par_id_seq', 50)`);
    await pair.run('TRUNCATE par RESTART IDENTITY CASCADE', 'TRUNCATE ONLY inh');
    for (const table of ['par', 'chi']) expect(await expectSame(table)).toEqual([]);
    expect(await expectSame('inh')).toEqual(['(2)']);
    const { rows } = await pair.b.query<{ n: string }>(`SELECT nextval('par_id_seq') AS n`);
    expect(rows).toEqual([{ n: '1' }]);
  });

  it('knows nothing of savepoints that were rolled back', async () => {
    await pair.both('CREATE TABLE sp (id int PRIMARY KEY, v text)');
    await pair.run(
      `INSERT INTO sp VALUES (1, 'a')`,
      'SAVEPOINT a',
      `INSERT INTO sp VALUES (2, 'b')`,
      'SAVEPOINT b',
      `UPDATE sp SET v = 'no'`,
      'ROLLBACK TO b',
      `INSERT INTO sp VALUES (3, 'c')`,
      'RELEASE a',
      'SAVEPOINT c',
      'DELETE FROM sp',
      'ROLLBACK TO c',
    );
    expect(await expectSame('sp')).toEqual(['(1,a)', '(2,b)', '(3,c)']);
  });

  it('takes names as they are', async () => {
    await pair.both(
      `CREATE SCHEMA "S ""x"""; CREATE TABLE "S ""x"""."tä ble" ("select" int PRIMARY KEY, "a""b" text, "ö\\n" int)`,
    );
    await pair.run(`INSERT INTO "S ""x"""."tä ble" VALUES (1, 'x', 2)`);
    await pair.run(`UPDATE "S ""x"""."tä ble" SET "a""b" = 'y', "ö\\n" = NULL`);
    expect(await expectSame('"S ""x"""."tä ble"')).toEqual(['(1,y,)']);
  });

  it('compares keys of types that live elsewhere by their own operators', async () => {
    const has = async (extension: string) =>
      (await pair.a.query('SELECT FROM pg_available_extensions WHERE name = $1', [extension])).rowCount === 1;
    if (!(await has('citext')) || !(await has('hstore'))) return;
    await pair.both(`CREATE EXTENSION citext; CREATE EXTENSION hstore;
      CREATE TABLE ci (k citext PRIMARY KEY, v text); CREATE TABLE ci_child (id int PRIMARY KEY, k citext REFERENCES ci);
      CREATE TABLE hs (h hstore, v text); CREATE INDEX ON hs USING btree (h); ALTER TABLE hs REPLICA IDENTITY FULL`);
    await pair.run(
      `INSERT INTO ci VALUES ('Abc', 'a')`,
      `INSERT INTO ci_child VALUES (1, 'aBC')`,
      `INSERT INTO hs VALUES ('a=>1', 'x'), ('a=>1', 'y')`,
    );
    await pair.run(
      `UPDATE ci SET v = 'b'`,
      `UPDATE hs SET v = 'z' WHERE v = 'y'`,
      `INSERT INTO ci_child VALUES (2, 'ABC')`,
    );
    await pair.run(`DELETE FROM hs WHERE v = 'x'`, 'DELETE FROM ci_child WHERE id = 1', `UPDATE ci SET k = 'ABC'`);
    for (const table of ['ci', 'ci_child', 'hs']) await expectSame(table);
  });

  it('replays what users write into the WAL themselves, and a transaction of nothing else', async () => {
    expect(await pair.run()).toBe(0);
    expect(await pair.run(`SELECT pg_logical_emit_message(true, 'app', 'hello')`)).toBe(0);
  });
});
