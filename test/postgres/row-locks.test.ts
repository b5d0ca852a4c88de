import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { installedBin } from '../support/postgres.ts';
import { ReplayCluster } from '../support/replay-cluster.ts';

/** Statements of a session on one node before COMMIT. */
type Session = readonly string[];

const versions: [string, string | undefined][] = [['from npm', undefined]];
if (installedBin !== undefined) versions.push(['installed', installedBin]);

const NOTES = [`INSERT INTO note VALUES ('one')`, `INSERT INTO note VALUES ('two')`];
const row = (mode: string) => `SELECT FROM t WHERE id = 1 FOR ${mode}`;
const KEYED = 'UPDATE t SET id = -1 WHERE id = 1';
const VALUED = 'UPDATE t SET v = v + 1 WHERE id = 1';

/** What one server never lets both commit while neither has seen the other. */
const EXCLUDING: [string, Session, Session][] = [
  ['FOR UPDATE and FOR UPDATE', [row('UPDATE')], [row('UPDATE')]],
  ['FOR UPDATE and FOR KEY SHARE', [row('UPDATE')], [row('KEY SHARE')]],
  ['FOR NO KEY UPDATE and FOR SHARE', [row('NO KEY UPDATE')], [row('SHARE')]],
  ['FOR SHARE and an update', [row('SHARE')], [VALUED]],
  ['an update and FOR SHARE', [VALUED], [row('SHARE')]],
  ['FOR KEY SHARE and an update of the key', [row('KEY SHARE')], [KEYED]],
  ['FOR KEY SHARE and a delete', [row('KEY SHARE')], ['DELETE FROM t WHERE id = 1']],
  ['FOR UPDATE before an update, and a child row', [row('UPDATE'), VALUED], ['INSERT INTO child VALUES (1, 1)']],
  ['FOR UPDATE after an update, and a child row', [VALUED, row('UPDATE')], ['INSERT INTO child VALUES (1, 1)']],
  ['a row that two transactions share', [row('SHARE'), 'SELECT FROM t WHERE id < 3 FOR UPDATE'], [row('KEY SHARE')]],
  ['FOR UPDATE SKIP LOCKED of the same row', ['SELECT FROM t WHERE id = 1 FOR UPDATE SKIP LOCKED'], [row('UPDATE')]],
  ['a cursor', ['DECLARE c CURSOR FOR SELECT * FROM t ORDER BY id FOR UPDATE', 'FETCH 1 FROM c'], [VALUED]],
  [
    'a prepared statement',
    ['PREPARE p AS SELECT FROM t WHERE id = 1 FOR SHARE', 'EXECUTE p', 'DEALLOCATE p'],
    [VALUED],
  ],
  ['a DO block', ['DO $$ BEGIN PERFORM FROM t WHERE id = 1 FOR SHARE; END $$'], [VALUED]],
  ['a WITH query', ['WITH w AS (SELECT id FROM t WHERE id = 1 FOR SHARE) SELECT * FROM w'], [VALUED]],
  ['a row without a key', [`SELECT FROM bare WHERE x = 1 FOR UPDATE`], [`UPDATE bare SET y = 'b' WHERE x = 1`]],
  ['names in capitals', ['SELECT FROM "Odd ""T" FOR SHARE'], [`UPDATE "Odd ""T" SET "V'" = 2`]],
  ['a partition', ['SELECT FROM part WHERE id = 1 FOR SHARE'], ['UPDATE part SET v = 1 WHERE id = 1']],
  ['a savepoint that is kept', ['SAVEPOINT s', row('SHARE'), 'RELEASE s'], [VALUED]],
  ['LOCK TABLE and an insert', ['LOCK TABLE t IN SHARE MODE'], ['INSERT INTO t VALUES (100)']],
  ['LOCK TABLE twice', ['LOCK TABLE t IN EXCLUSIVE MODE'], ['LOCK TABLE t IN EXCLUSIVE MODE']],
  ['LOCK TABLE of a partitioned table', ['LOCK TABLE part IN SHARE MODE'], ['UPDATE part SET v = 1 WHERE id = 1']],
];

/** What one server lets both do. */
const AGREEING: [string, Session, Session][] = [
  ['FOR SHARE and FOR SHARE', [row('SHARE')], [row('SHARE')]],
  ['FOR KEY SHARE and FOR NO KEY UPDATE', [row('KEY SHARE')], [row('NO KEY UPDATE')]],
  ['FOR KEY SHARE and an update of another column', [row('KEY SHARE')], [VALUED]],
  ['locks of different rows', [row('UPDATE')], ['SELECT FROM t WHERE id = 2 FOR UPDATE']],
  ['a lock that a savepoint took back', ['SAVEPOINT s', row('UPDATE'), 'ROLLBACK TO s'], [VALUED]],
  [
    'a row that the transaction made itself',
    ['INSERT INTO t VALUES (50)', 'SELECT FROM t WHERE id = 50 FOR UPDATE'],
    [VALUED],
  ],
  ['a row that it removed', [`SELECT FROM t WHERE id = 2 FOR UPDATE`, 'DELETE FROM t WHERE id = 2'], [VALUED]],
  ['LOCK TABLE ROW SHARE and an update', ['LOCK TABLE t IN ROW SHARE MODE'], [VALUED]],
  ['LOCK TABLE SHARE twice', ['LOCK TABLE t IN SHARE MODE'], ['LOCK TABLE t IN SHARE MODE']],
];

describe.each(versions)('locks without a write, over all nodes, on PostgreSQL %s', (_name, postgresBin) => {
  let c: ReplayCluster;

  beforeAll(async () => {
    c = await ReplayCluster.start({ postgresBin });
    await c.run(
      'CREATE TABLE t (id int PRIMARY KEY, v int DEFAULT 0)',
      'CREATE TABLE child (id int, parent int REFERENCES t)',
      'CREATE TABLE note (text text)',
      'CREATE TABLE bare (x int, y text)',
      `CREATE TABLE "Odd ""T" ("I d" int PRIMARY KEY, "V'" int)`,
      'CREATE TABLE part (id int PRIMARY KEY, v int) PARTITION BY RANGE (id)',
      'CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100)',
    );
  });
  afterAll(() => c.stop());

  beforeEach(async () => {
    for (const client of c.clients) await client.query('ROLLBACK');
    await c.run(
      ...['child', 't', 'note', 'bare', 'part', '"Odd ""T"'].map((table) => `DELETE FROM ${table}`),
      'INSERT INTO t SELECT i FROM generate_series(1, 10) i',
      `INSERT INTO bare VALUES (1, 'a'), (1, 'a'), (2, NULL)`,
      `INSERT INTO "Odd ""T" VALUES (1, 1)`,
      'INSERT INTO part SELECT i, 0 FROM generate_series(1, 10) i',
    );
  });

  /** Both run all they have, each on its node, and commit, together or one after the other: the SQLSTATEs of those that failed. */
  async function race(one: Session, two: Session, inTurn = true): Promise<string[]> {
    const clients = [c.client(1), c.client(2)];
    for (const [i, statements] of [one, two].entries()) {
      await clients[i].query('BEGIN');
      for (const sql of [...statements, NOTES[i]]) await clients[i].query(sql);
    }
    const codes: string[] = [];
    const commit = (client: pg.Client) =>
      client.query('COMMIT').catch((error: unknown) => {
        codes.push((error as pg.DatabaseError).code!);
      });
    const first = commit(clients[0]);
    if (inTurn) await first;
    await Promise.all([first, commit(clients[1])]);
    return codes;
  }

  // The first test, as the node looks for locks over a connection that it opens for the first one.
  it('commits nothing whose locks it can not find out, and looks again for the next', async () => {
    const direct = new pg.Client({ connectionString: c.cluster.node(1).postgresUri });
    await direct.connect();
    await direct.query('SET session_replication_role = replica');
    const lock = [row('SHARE'), NOTES[0]];
    // One is needed when the connection is opened, the other for every look.
    for (const [name, types] of [
      ['pg_walfile_name', 'pg_lsn'],
      ['currtid2', 'text, tid'],
    ]) {
      await direct.query(`ALTER FUNCTION pg_catalog.${name} (${types}) RENAME TO hidden`);
      for (const sql of [lock, lock]) await expect(c.on(1, ...sql)).rejects.toMatchObject({ code: '58030' });
      await direct.query(`ALTER FUNCTION pg_catalog.hidden (${types}) RENAME TO ${name}`);
      expect(await c.rows('SELECT text FROM note')).toEqual([]);
    }
    await direct.end();
    expect(await race([row('SHARE')], [VALUED])).toEqual(['40001']);
  });

  it.each(EXCLUDING)('excludes: %s', async (_what, one, two) => {
    expect(await race(one, two)).toEqual(['40001']);
    expect(await c.rows('SELECT text FROM note')).toEqual([['one']]);
  });

  // What depends on the version is how locks are found, which test/postgres/lock-survey.test.ts shows for each.
  if (postgresBin === undefined) {
    it.each(EXCLUDING)('excludes, committing at once: %s', async (_what, one, two) => {
      expect(await race(one, two, false)).toEqual(['40001']);
      expect(await c.rows('SELECT count(*) FROM note')).toEqual([['1']]);
    });
  }

  it.each(AGREEING)('lets both commit: %s', async (_what, one, two) => {
    expect(await race(one, two)).toEqual([]);
    expect(await c.rows('SELECT count(*) FROM note')).toEqual([['2']]);
  });

  it('lets both commit: LOCK TABLE of a table that it drops', async () => {
    await c.run('CREATE TABLE gone (id int PRIMARY KEY)');
    expect(await race(['LOCK TABLE gone', 'DROP TABLE gone'], [VALUED])).toEqual([]);
    expect(await c.rows('SELECT count(*) FROM note')).toEqual([['2']]);
  });

  it('sees a lock in a savepoint that is kept and had written long before', async () => {
    const [a, b, other] = [await c.connect(1), await c.connect(2), await c.connect(1)];
    for (const sql of ['BEGIN', 'SAVEPOINT s', 'INSERT INTO bare VALUES (3)']) await a.query(sql);
    await other.query(`INSERT INTO note SELECT repeat('x', 100) FROM generate_series(1, 1000)`);
    for (const sql of [row('SHARE'), 'RELEASE s', 'COMMIT']) {
      if (sql === 'COMMIT') for (const first of ['BEGIN', VALUED]) await b.query(first);
      await a.query(sql);
    }
    await expect(b.query('COMMIT')).rejects.toMatchObject({ code: '40001' });
    await Promise.all([a, b, other].map((client) => client.end()));
  });

  it('sees the statements of a pipeline', async () => {
    const [a, b] = [await c.connect(1), await c.connect(2)];
    await a.query('BEGIN');
    await a.query({ name: 'lock', text: 'SELECT FROM t WHERE id = $1 FOR SHARE', values: [1] });
    await a.query(NOTES[0]);
    await b.query('BEGIN');
    await b.query({ name: 'write', text: 'UPDATE t SET v = $1 WHERE id = 1', values: [5] });
    const outcomes = await Promise.allSettled([a.query('COMMIT'), b.query('COMMIT')]);
    expect(outcomes.filter(({ status }) => status === 'rejected')).toHaveLength(1);
    await a.end();
    await b.end();
  });

  it('sees a lock in a function, a trigger and a view', async () => {
    await c.run(
      `CREATE FUNCTION touch(k int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM FROM t WHERE id = k FOR SHARE; END $$`,
      `CREATE FUNCTION on_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN LOCK TABLE bare IN SHARE MODE; RETURN NEW; END $$`,
      'CREATE VIEW locked AS SELECT * FROM t FOR UPDATE',
    );
    expect(await race(['SELECT touch(1)'], [VALUED])).toEqual(['40001']);
    expect(await race(['SELECT * FROM locked WHERE id = 2'], ['UPDATE t SET v = 9 WHERE id = 2'])).toEqual(['40001']);
    await c.run('CREATE TRIGGER on_note BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION on_note()');
    expect(await race(['SELECT 1'], ['INSERT INTO bare VALUES (3)'])).toEqual(['40001']);
    await c.run('DROP TRIGGER on_note ON note', 'DROP FUNCTION on_note, touch', 'DROP VIEW locked');
  });

  it('takes schema changes along where every transaction may have locked something', async () => {
    await c.run(
      `CREATE FUNCTION touch() RETURNS void LANGUAGE sql AS 'SELECT FROM t WHERE id = 1 FOR SHARE'`,
      'CREATE SCHEMA app CREATE TABLE inside (id int PRIMARY KEY, v int) CREATE TABLE other (id int PRIMARY KEY)',
      'INSERT INTO app.inside VALUES (1, 0)',
    );
    const lock = 'SELECT FROM app.inside FOR UPDATE';
    await c.run(lock, 'UPDATE app.inside SET v = 1', 'ALTER TABLE app.inside ADD w int', 'UPDATE app.inside SET w = v');
    await c.run(lock, 'ALTER TABLE app.inside RENAME TO renamed', 'UPDATE app.renamed SET v = 2');
    await c.run('DROP TABLE app.other', 'CREATE INDEX other ON app.renamed (v)', 'SELECT FROM app.renamed FOR SHARE');
    const rename = 'ALTER SCHEMA app RENAME TO later';
    expect(await race(['SELECT FROM app.renamed FOR SHARE', rename], ['UPDATE app.renamed SET v = 3'])).toEqual([
      '40001',
    ]);
    await c.run('ALTER SCHEMA later RENAME TO app');
    expect(await race(['LOCK TABLE app.renamed IN SHARE MODE', rename], ['UPDATE app.renamed SET v = 3'])).toEqual([
      '40001',
    ]);
    await c.run(
      'SELECT FROM later.renamed FOR UPDATE',
      'ALTER SCHEMA later RENAME TO app',
      'UPDATE app.renamed SET v = 4',
    );
    await c.run('SELECT FROM app.renamed FOR UPDATE', 'DROP SCHEMA app CASCADE', NOTES[0]);
    await c.expectSame();
    await c.run('DROP FUNCTION touch');
  });

  it('sees a lock in a function that was made a moment ago, and was not looked at yet', async () => {
    const direct = new pg.Client({ connectionString: c.cluster.node(1).postgresUri });
    await direct.connect();
    // Where a look at the schema has to wait, and nothing else.
    await direct.query('BEGIN; LOCK TABLE pg_catalog.pg_policy');
    try {
      await c.client(1).query(`CREATE FUNCTION late() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM FROM t WHERE id = 1 FOR SHARE; END $$`);
      expect(await race(['SELECT late()'], [VALUED])).toEqual(['40001']);
    } finally {
      await direct.end();
    }
    await c.client(1).query('DROP FUNCTION late');
  });

  it('prevents write skew', async () => {
    for (let round = 0; round < 5; round++) {
      await c.run('UPDATE t SET v = 1 WHERE id < 3');
      const both = 'SELECT v FROM t WHERE id < 3 ORDER BY id FOR UPDATE';
      const failed = await race([both, 'UPDATE t SET v = 0 WHERE id = 1'], [both, 'UPDATE t SET v = 0 WHERE id = 2']);
      expect(failed).toEqual(['40001']);
      expect(await c.rows('SELECT sum(v) FROM t WHERE id < 3')).toEqual([['1']]);
    }
  });

  it('takes ten thousand locked rows along', async () => {
    await c.run('INSERT INTO t SELECT i FROM generate_series(1000, 10999) i');
    expect(await race(['SELECT FROM t WHERE id >= 1000 FOR SHARE'], ['UPDATE t SET v = 1 WHERE id = 10999'])).toEqual([
      '40001',
    ]);
    await c.expectSame();
  });

  it('leaves all nodes alike', () => c.expectSame());
});
