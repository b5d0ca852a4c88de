import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { loadSafety } from '../../src/catalog/safety.ts';
import { installedBin, startPostgres } from '../support/postgres.ts';
import type { TestPostgres } from '../support/postgres.ts';

const servers = [
  { name: 'the newest PostgreSQL', bin: undefined },
  { name: 'the oldest PostgreSQL', bin: installedBin },
].filter(({ bin }, index) => index === 0 || bin !== undefined);

describe.each(servers)('function safety on $name', ({ bin }) => {
  let server: TestPostgres;
  let client: pg.Client;

  beforeAll(async () => {
    server = await startPostgres({ bin, settings: { fsync: 'off' } });
    client = await server.connect();
    await client.query(`
      CREATE SCHEMA s; CREATE TABLE t (x int); CREATE SEQUENCE q;
      CREATE FUNCTION pure(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
      CREATE FUNCTION wild(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES ($1); RETURN $1; END';
      CREATE FUNCTION s.pure2(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT public.pure($1)';
      CREATE FUNCTION s.sly(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN WILD($1); END';
      CREATE FUNCTION s.slyer() RETURNS int LANGUAGE sql STABLE AS 'SELECT s.sly(1)';
      CREATE FUNCTION s.modern() RETURNS bigint LANGUAGE sql STABLE RETURN nextval('q');
      CREATE FUNCTION s.dynamic(c text) RETURNS int LANGUAGE plpgsql STABLE AS 'DECLARE r int; BEGIN EXECUTE c INTO r; RETURN r; END';
      CREATE FUNCTION "Quoted"() RETURNS int LANGUAGE sql AS 'SELECT 1';
      CREATE FUNCTION mixed(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
      CREATE FUNCTION mixed(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
      CREATE FUNCTION step(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT $1 + $2';
      CREATE AGGREGATE agg(int) (SFUNC = step, STYPE = int, INITCOND = '0');
      CREATE AGGREGATE tame(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
      CREATE FUNCTION wild2(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT wild($1)';
      CREATE OPERATOR ### (FUNCTION = wild2, LEFTARG = int, RIGHTARG = int);
      CREATE OPERATOR ##+ (FUNCTION = int4pl, LEFTARG = int, RIGHTARG = int);
      CREATE DOMAIN checked AS int CHECK (wild(VALUE) > 0);
      CREATE DOMAIN plain AS int CHECK (VALUE > 0);
      CREATE VIEW v_plain AS SELECT x, random(), pure(x) FROM t;
      CREATE VIEW v_wild AS SELECT wild(x) FROM t;
      CREATE VIEW v_over AS SELECT * FROM v_wild;
      CREATE VIEW v_seq AS SELECT nextval('q');
      CREATE VIEW v_op AS SELECT x ### 1 FROM t;
      CREATE VIEW v_lock AS SELECT pg_try_advisory_lock(1) FROM t;
      CREATE MATERIALIZED VIEW m AS SELECT clock_timestamp();
      CREATE TABLE rls (x int); CREATE POLICY p ON rls USING (wild(x) > 0); ALTER TABLE rls ENABLE ROW LEVEL SECURITY;
      CREATE TABLE rls_plain (x int); CREATE POLICY p ON rls_plain USING (x > 0);
    `);
  });
  afterAll(() => server.stop());

  it('tells whether anything locks what no statement names', async () => {
    const hides = async () => (await loadSafety(client)).hidesLocks;
    expect(await hides()).toBe(false);
    for (const [create, drop] of [
      [
        `CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM FROM t FOR  No Key update; END'`,
        'DROP FUNCTION f',
      ],
      [`CREATE PROCEDURE f() LANGUAGE plpgsql AS 'BEGIN Lock t; END'`, 'DROP PROCEDURE f'],
      [`CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT x FROM t FOR SHARE; END`, 'DROP FUNCTION f'],
      ['CREATE VIEW f AS SELECT * FROM t FOR UPDATE', 'DROP VIEW f'],
    ]) {
      await client.query(create);
      expect(await hides(), create).toBe(true);
      await client.query(drop);
      expect(await hides(), drop).toBe(false);
    }
  });

  it('tells what is more than a read', async () => {
    const safety = await loadSafety(client);
    const sorted = (names: ReadonlySet<string>): string[] => [...names].sort();
    expect(sorted(safety.volatileNames)).toEqual([
      ...['Quoted', 'agg', 'dynamic', 'mixed', 'modern', 'sly', 'slyer', 'step', 'wild', 'wild2'],
    ]);
    expect(sorted(safety.volatileOperators)).toEqual(['###']);
    expect(sorted(safety.volatileTypes)).toEqual(['checked']);
    expect(sorted(safety.taintedRelations)).toEqual(['rls', 'v_lock', 'v_op', 'v_over', 'v_seq', 'v_wild']);
  });
});
