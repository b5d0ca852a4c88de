import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { isReady } from '../support/ready.ts';
import { ReplayCluster } from '../support/replay-cluster.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';
import { waitFor } from '../support/wait-for.ts';

const FILES = {
  'pgmm_rows.control': `default_version = '1.0'`,
  'pgmm_rows--1.0.sql': `
    CREATE TABLE config (name text, value int);
    CREATE TABLE keyed (id int PRIMARY KEY, v text);
    CREATE TABLE passing (x int);
    INSERT INTO config SELECT 'n' || i, i FROM generate_series(1, 100) i;
    DELETE FROM config WHERE value = 3;
    INSERT INTO keyed VALUES (1, 'a'), (2, 'b');
    UPDATE keyed SET v = 'c' WHERE id = 2;
    INSERT INTO passing VALUES (1);
    DROP TABLE passing;`,
  'pgmm_rows--1.0--1.1.sql': `
    INSERT INTO config VALUES ('new', 1000);
    TRUNCATE keyed;
    INSERT INTO keyed VALUES (1, 'new');`,
  'pgmm_firing.control': `default_version = '1.0'`,
  'pgmm_firing--1.0.sql': `
    CREATE TABLE watched (x int);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER watch AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch();
    ALTER TABLE watched ENABLE ALWAYS TRIGGER watch;`,
};

describe('replay of extensions', () => {
  const dir = makeTempDir('extensions');
  let c: ReplayCluster;
  /** Before PostgreSQL 18 extensions are found in its own directory only. */
  let possible = false;

  beforeAll(async () => {
    mkdirSync(join(dir, 'extension'));
    for (const [name, text] of Object.entries(FILES)) writeFileSync(join(dir, 'extension', name), text);
    c = await ReplayCluster.start();
    for (const node of [1, 2, 3]) {
      const server = await onServer(node);
      const known = await server.query(`SELECT FROM pg_settings WHERE name = 'extension_control_path'`);
      possible = known.rowCount === 1;
      if (possible) {
        await server.query(`ALTER SYSTEM SET extension_control_path = '${dir}:$system'`);
        await server.query('SELECT pg_reload_conf()');
        const found = `SELECT FROM pg_available_extensions WHERE name = 'pgmm_rows'`;
        await waitFor('the extension is found', async () => (await server.query(found)).rowCount === 1);
      }
      await server.end();
    }
    await c.run('CREATE TABLE own (id int PRIMARY KEY)');
  });
  beforeEach((context) => {
    if (!possible) context.skip();
  });
  afterEach(() => c.on(1, 'DROP EXTENSION IF EXISTS pgmm_rows'));
  afterAll(async () => {
    await c.stop();
    removeTempDir(dir);
  });

  async function onServer(node: number): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: c.cluster.node(node).postgresUri });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  const rows = async (): Promise<(string | null)[][]> =>
    c.rows('SELECT count(*), sum(value) FROM config UNION ALL SELECT id, length(v) FROM keyed ORDER BY 1');

  it('does not add the rows of the script to those that it makes itself', async () => {
    await c.on(
      1,
      'INSERT INTO own VALUES (1)',
      'CREATE EXTENSION pgmm_rows',
      `INSERT INTO config VALUES ('mine', 7)`,
      `UPDATE keyed SET v = 'mine' WHERE id = 1`,
    );
    await c.expectSame();
    expect(await rows()).toEqual([
      ['1', '4'],
      ['2', '1'],
      ['100', '5054'],
    ]);
    await c.run(`ALTER EXTENSION pgmm_rows UPDATE TO '1.1'`);
    await c.expectSame();
    expect(await rows()).toEqual([
      ['1', '3'],
      ['101', '6054'],
    ]);
  });

  it('takes a script that was rolled back for none', async () => {
    await c.on(
      2,
      'SAVEPOINT a',
      'CREATE EXTENSION pgmm_rows',
      `INSERT INTO config VALUES ('gone', 1)`,
      'ROLLBACK TO a',
      'CREATE TABLE config (name text, value int)',
      `INSERT INTO config VALUES ('mine', 7), ('mine', 7)`,
      'DROP TABLE config',
      'CREATE EXTENSION pgmm_rows',
      'DELETE FROM config WHERE value > 50',
      'INSERT INTO own VALUES (2)',
    );
    await c.expectSame();
    expect((await rows()).at(-1)).toEqual(['49', '1272']);
  });

  it('replays what an event trigger of the origin adds', async () => {
    await c.each(
      'CREATE TABLE audit (tag text)',
      `CREATE FUNCTION audit() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (tg_tag); END'`,
    );
    for (const node of [1, 2, 3]) {
      const server = await onServer(node);
      await server.query('CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION audit()');
      await server.end();
    }
    await c.run('CREATE EXTENSION pgmm_rows');
    await c.expectSame();
    expect(await c.rows(`SELECT tag FROM audit WHERE tag ~ 'EXTENSION'`)).toEqual([['CREATE EXTENSION']]);
    for (const node of [1, 2, 3]) {
      const server = await onServer(node);
      await server.query('DROP EVENT TRIGGER audit');
      await server.end();
    }
  });

  it('refuses one that brings a trigger which fires on replay', async () => {
    const refused = await c.refusal(1, 'CREATE EXTENSION pgmm_firing');
    expect(refused).toMatchObject({
      code: '0A000',
      message: 'CREATE EXTENSION is not supported: trigger watch of table public.watched fires on replay',
    });
  });

  it('tells the transaction again in the WAL of a node that has replayed it, for nodes that were away', async () => {
    const server = await onServer(2);
    await server.query(`SELECT pg_create_logical_replication_slot('look', 'pgoutput', true)`);
    await c.cluster.dev('kill', '3', 'proxy');
    await c.on(1, 'CREATE EXTENSION pgmm_rows', 'INSERT INTO own VALUES (3)');
    const { rows: changes } = await server.query<{ data: Buffer }>(
      `SELECT data FROM pg_logical_slot_get_binary_changes('look', NULL, NULL,
         'proto_version', '2', 'publication_names', 'pgmm', 'messages', 'true')`,
    );
    await server.end();
    const story = changes.map(
      ({ data }) => /^M.{9}(pgmm:\w+)/s.exec(data.toString('latin1'))?.[1] ?? String.fromCharCode(data[0]),
    );
    const [first, last] = [story.indexOf('pgmm:ddl'), story.indexOf('pgmm:end')];
    expect(first).toBeGreaterThan(-1);
    // All rows of the script, and those that the nodes keep for themselves.
    const inserts = (part: string[]): number => part.filter((type) => type === 'I').length;
    expect(inserts(story.slice(0, first))).toBe(0);
    expect(inserts(story.slice(first, last))).toBeGreaterThanOrEqual(103);
    expect(inserts(story.slice(last))).toBe(1);
    await c.cluster.dev('start', '3', 'proxy');
    await waitFor('the node is a member again', () => isReady(c.cluster, 3), { timeoutMs: 90_000 });
    await c.expectSame();
  });
});
