import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type pg from 'pg';
import { installCatalog } from '../../src/catalog/install.ts';
import { targetsOfPlayground, targetsOfUris, verify, verifyCommand } from '../../src/cli/verify.ts';
import type { VerifyReport } from '../../src/cli/verify.ts';
import { installedBin, startPostgres } from '../support/postgres.ts';
import type { TestPostgres } from '../support/postgres.ts';

/** One of nearly everything that a database can hold. */
const SCHEMA = `
CREATE SCHEMA s; COMMENT ON SCHEMA s IS 'a schema';
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE t (id serial PRIMARY KEY, m mood DEFAULT 'ok', p positive, f float8, n numeric, at timestamptz, b bytea, j jsonb, a int[], c pair);
CREATE INDEX t_f ON t (f) WHERE f > 0; COMMENT ON COLUMN t.f IS 'a float'; ALTER TABLE t ADD CONSTRAINT f_ok CHECK (f < 1e300);
CREATE TABLE nokey (x int, y text); CREATE TABLE child (z int) INHERITS (nokey);
CREATE TABLE part (x int, y text) PARTITION BY RANGE (x);
CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (10); CREATE TABLE part2 PARTITION OF part DEFAULT;
CREATE TABLE empty (); CREATE UNLOGGED TABLE fleeting (x int);
CREATE VIEW v AS SELECT id FROM t; CREATE MATERIALIZED VIEW mv AS SELECT 1 AS x;
CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1'; COMMENT ON FUNCTION f(int) IS 'a function';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int);
CREATE FUNCTION g() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER tg BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION g();
CREATE RULE r AS ON DELETE TO nokey DO INSTEAD NOTHING;
CREATE POLICY pol ON t USING (id > 0); CREATE STATISTICS st ON f, n FROM t;
CREATE SEQUENCE q CACHE 5; CREATE SEQUENCE cyc MAXVALUE 1000 CYCLE;
GRANT SELECT ON t TO PUBLIC; GRANT INSERT (f) ON t TO PUBLIC;
INSERT INTO t (p, f, n, at, b, j, a, c) SELECT i, i / 3.0, i * 1.10, '2024-01-01 00:00+00'::timestamptz + i * interval '1 h', 'ab', '{"b":1,"a":[1]}', '{1,NULL}', (i, 'x')::pair FROM generate_series(1, 500) i;
INSERT INTO nokey VALUES (1, 'a'), (1, 'a'), (NULL, NULL); INSERT INTO child VALUES (1, 'c', 2);
INSERT INTO part VALUES (1, 'one'), (11, 'eleven'); INSERT INTO empty DEFAULT VALUES;`;

describe('pgmm verify', () => {
  let first: TestPostgres;
  let second: TestPostgres;
  let a: pg.Client;
  let b: pg.Client;
  let uris: string[];
  let count = 0;

  beforeAll(async () => {
    first = await startPostgres({ settings: { fsync: 'off' } });
    // Where there are two versions they have to agree as well.
    second = await startPostgres({ bin: installedBin, settings: { fsync: 'off' } });
    for (const [server, nodeId] of [
      [first, 1],
      [second, 2],
    ] as const) {
      const admin = await server.connect();
      await admin.query('CREATE DATABASE template');
      const inside = await server.connect({ database: 'template' });
      await installCatalog(inside, { nodeId, stride: 16 });
      await inside.query('SET session_replication_role = replica');
      await inside.query(SCHEMA);
      await inside.end();
      await admin.end();
    }
  });
  afterAll(async () => {
    await first.stop();
    await second.stop();
  });

  beforeEach(async () => {
    const database = `d${++count}`;
    for (const server of [first, second]) {
      const admin = await server.connect();
      await admin.query(`CREATE DATABASE ${database} TEMPLATE template`);
      await admin.end();
    }
    [a, b] = [await first.connect({ database }), await second.connect({ database })];
    for (const client of [a, b]) await client.query('SET session_replication_role = replica');
    // Serial values differ from node to node; the rows are to be the same.
    await b.query('UPDATE t SET id = id - 1');
    uris = [first.uri(database), second.uri(database)];
    return async () => {
      await a.end();
      await b.end();
    };
  });

  const run = async (): Promise<VerifyReport> => verify(targetsOfUris(uris), { waitMs: 0 });
  const differing = async (): Promise<string[]> =>
    (await run()).differences.map(({ kind, object }) => `${kind}: ${object}`);

  it('finds two nodes the same, of whatever version, in whatever order their rows are', async () => {
    await b.query(
      'CREATE TABLE copy AS SELECT * FROM ONLY nokey; TRUNCATE ONLY nokey; INSERT INTO nokey SELECT * FROM copy ORDER BY x DESC; DROP TABLE copy',
    );
    // How a server presents values must not matter.
    await b.query(`ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'`);
    await b.query('ALTER SYSTEM SET extra_float_digits = 0');
    await b.query('SELECT pg_reload_conf()');
    const report = await run();
    expect(report.differences).toEqual([]);
    expect(report.notes).toContainEqual(expect.stringContaining('public.fleeting is unlogged'));
    expect(report.databases[0].rows).toBe(508);
  });

  it.each([
    [`INSERT INTO nokey VALUES (1, 'a')`, 'data: table public.nokey'],
    [`UPDATE t SET f = f + 1e-12 WHERE p = 7`, 'data: table public.t'],
    [`UPDATE t SET j = '{"a":[1],"b":2}' WHERE p = 7`, 'data: table public.t'],
    ['DELETE FROM part WHERE x = 11', 'data: table public.part2'],
    ['SELECT lo_from_bytea(0, $$x$$)', 'data: table pg_catalog.pg_largeobject'],
    ['ALTER TABLE t ALTER f SET DEFAULT 1', 'schema: column public.t.f'],
    ['DROP INDEX t_f', 'schema: index public.t_f'],
    ['ALTER TABLE t DISABLE TRIGGER tg', 'schema: trigger tg on public.t'],
    ['ALTER TABLE t DROP CONSTRAINT f_ok', 'schema: constraint f_ok on public.t'],
    [
      `CREATE OR REPLACE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 1'`,
      'schema: function public.f(integer)',
    ],
    ['CREATE OR REPLACE VIEW v AS SELECT id FROM t WHERE id > 0', 'schema: view public.v'],
    [`ALTER TYPE mood ADD VALUE 'happy'`, 'schema: type public.mood'],
    ['REVOKE SELECT ON t FROM PUBLIC', 'schema: table public.t'],
    [`COMMENT ON COLUMN t.f IS 'another'`, 'schema: comment on table column public.t.f'],
    ['ALTER SEQUENCE q CACHE 6', 'schema: sequence definition public.q'],
    ['CREATE ROLE extra', 'schema: role extra'],
    ['CREATE EXTENSION hstore', 'schema: extension hstore'],
  ])('finds what %s changes', async (change, difference) => {
    await a.query(change);
    expect(await differing()).toContain(difference);
    if (change === 'CREATE ROLE extra') await a.query('DROP ROLE extra');
  });

  it('shows the rows that differ', async () => {
    await a.query(`INSERT INTO nokey VALUES (1, 'a')`);
    await b.query(`UPDATE t SET n = -1 WHERE p = 250`);
    const { differences } = await run();
    const [nokey, t] = differences;
    expect(nokey.rows).toEqual([
      { row: '(1,a)', counts: { [Object.keys(nokey.nodes)[0]]: 3, [Object.keys(nokey.nodes)[1]]: 2 } },
    ]);
    expect(t.rows).toHaveLength(2);
    expect(t.rows?.map(({ row }) => /275\.00|-1/.test(row))).toEqual([true, true]);
  });

  it('reads a large table in parts to find them', async () => {
    for (const client of [a, b])
      await client.query(`CREATE TABLE big AS SELECT i, md5(i::text) FROM generate_series(1, 50000) i`);
    await b.query('DELETE FROM big WHERE i = 777');
    const { differences } = await run();
    expect(differences.map(({ object, rows }) => [object, rows?.map(({ row }) => row)])).toEqual([
      ['table public.big', ['(777,f1c1592588411002af340cbaedd6fc33)']],
    ]);
  });

  it('finds prepared transactions, slots that lag and nodes that have committed less', async () => {
    await a.query(`BEGIN; CREATE TABLE p (x int); PREPARE TRANSACTION 'pgmm:dev:1:1:1:1'`);
    await a.query(
      `SELECT pg_replication_origin_create('pgmm_commit_1_0'), pg_replication_origin_advance('pgmm_commit_1_0', '0/5')`,
    );
    await b.query(
      `SELECT pg_replication_origin_create('pgmm_commit_1_0'), pg_replication_origin_advance('pgmm_commit_1_0', '0/6')`,
    );
    expect(await differing()).toEqual(['commit index: how far each node has committed', 'prepared: pgmm:dev:1:1:1:1']);
    await a.query(`ROLLBACK PREPARED 'pgmm:dev:1:1:1:1'`);
    await a.query(`SELECT pg_replication_origin_advance('pgmm_commit_1_0', '0/6')`);
    await b.query(`SELECT pg_create_logical_replication_slot('pgmm_1', 'pgoutput')`);
    await b.query(`SELECT pg_logical_emit_message(false, 'x', repeat('x', 2000000))`);
    const report = await verify(targetsOfUris(uris), { waitMs: 0, maxSlotLag: 1_000_000 });
    expect(report.differences).toMatchObject([{ kind: 'slot', object: 'slot pgmm_1' }]);
    expect(await differing()).toEqual([]);
    await b.query(`SELECT pg_drop_replication_slot('pgmm_1')`);
    for (const client of [a, b]) await client.query(`SELECT pg_replication_origin_drop('pgmm_commit_1_0')`);
  });

  it('waits for differences to go away', async () => {
    await a.query(`INSERT INTO nokey VALUES (5, 'e')`);
    const waiting = verify(targetsOfUris(uris), { waitMs: 20_000 });
    setTimeout(() => void b.query(`INSERT INTO nokey VALUES (5, 'e')`), 700);
    expect((await waiting).same).toBe(true);
  });

  it('is a command, for URIs and for playgrounds, with an exit code', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'pgmm-verify-'));
    const print = vi.fn<(line: string) => void>();
    const command = async (...args: string[]): Promise<string> => {
      print.mockClear();
      process.exitCode = 0;
      await verifyCommand(print).parseAsync(['--wait', '0', ...args], { from: 'user' });
      return print.mock.calls.map(([line]) => line).join('\n');
    };
    try {
      const nodes = [first, second].map(({ port }, index) => ({
        ...{ id: index + 1, postgresPort: port, metrics: '' },
        uri: uris[index].replace(/:\d+\//, ':1/'),
      }));
      writeFileSync(join(dir, 'cluster.json'), JSON.stringify({ nodes }));
      expect(targetsOfPlayground(dir).databases).toEqual([`d${count}`]);
      expect(await command('--dir', dir)).toMatch(/the same on node 1, node 2$/);
      expect(process.exitCode).toBe(0);
      const client = await second.connect({ database: `d${count}` });
      await client.query('SET session_replication_role = replica');
      await client.query('CREATE TABLE only_here (a int)');
      await client.end();
      expect(JSON.parse(await command(...uris, '--json'))).toMatchObject({ same: false });
      expect(process.exitCode).toBe(1);
    } finally {
      process.exitCode = 0;
      rmSync(dir, { recursive: true });
    }
  });
});
