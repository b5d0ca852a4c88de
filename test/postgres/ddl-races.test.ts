import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import pg from 'pg';
import { ReplayCluster } from '../support/replay-cluster.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { waitFor } from '../support/wait-for.ts';

/** How often each pair runs at once on two nodes, other ones each time: who is first differs. */
const ROUNDS = Number(process.env['PGMM_DDL_ROUNDS'] ?? 2);

interface Pair {
  readonly name: string;
  readonly setup: readonly string[];
  readonly first: string;
  readonly second: string;
}

const TABLE = 'CREATE TABLE race_t (id int PRIMARY KEY, v int, w int)';
const ROW = 'INSERT INTO race_t VALUES (1, 1, 1)';

const PAIRS: readonly Pair[] = [
  {
    name: 'the same column twice',
    setup: [TABLE, ROW],
    first: 'ALTER TABLE race_t ADD COLUMN same int',
    second: 'ALTER TABLE race_t ADD COLUMN same text',
  },
  {
    name: 'two columns',
    setup: [TABLE, ROW],
    first: 'ALTER TABLE race_t ADD COLUMN a int',
    second: 'ALTER TABLE race_t ADD COLUMN b text',
  },
  {
    name: 'the same table twice',
    setup: [],
    first: 'CREATE TABLE race_new (a int PRIMARY KEY)',
    second: 'CREATE TABLE race_new (b text PRIMARY KEY)',
  },
  {
    name: 'the same table twice, IF NOT EXISTS',
    setup: [],
    first: 'CREATE TABLE IF NOT EXISTS race_new (a int PRIMARY KEY)',
    second: 'CREATE TABLE IF NOT EXISTS race_new (a int PRIMARY KEY)',
  },
  {
    name: 'the same schema twice',
    setup: [],
    first: 'CREATE SCHEMA race_schema',
    second: 'CREATE SCHEMA race_schema',
  },
  { name: 'DROP and ALTER', setup: [TABLE, ROW], first: 'DROP TABLE race_t', second: 'ALTER TABLE race_t ADD a int' },
  { name: 'DROP twice', setup: [TABLE, ROW], first: 'DROP TABLE race_t', second: 'DROP TABLE race_t' },
  {
    name: 'CREATE INDEX and DROP TABLE',
    setup: [TABLE, ROW],
    first: 'CREATE INDEX race_v ON race_t (v)',
    second: 'DROP TABLE race_t',
  },
  {
    name: 'two indexes',
    setup: [TABLE, ROW],
    first: 'CREATE INDEX race_v ON race_t (v)',
    second: 'CREATE INDEX race_w ON race_t (w)',
  },
  {
    name: 'the same index twice',
    setup: [TABLE, ROW],
    first: 'CREATE INDEX race_v ON race_t (v)',
    second: 'CREATE INDEX race_v ON race_t (w)',
  },
  {
    name: 'rename twice',
    setup: [TABLE, ROW],
    first: 'ALTER TABLE race_t RENAME TO race_a',
    second: 'ALTER TABLE race_t RENAME TO race_b',
  },
  {
    name: 'TRUNCATE and ALTER',
    setup: [TABLE, ROW],
    first: 'TRUNCATE race_t',
    second: 'ALTER TABLE race_t ALTER v TYPE bigint',
  },
  { name: 'TRUNCATE twice', setup: [TABLE, ROW], first: 'TRUNCATE race_t', second: 'TRUNCATE race_t' },
  {
    name: 'the same function replaced twice',
    setup: [`CREATE FUNCTION race_f() RETURNS int LANGUAGE sql AS 'SELECT 0'`],
    first: `CREATE OR REPLACE FUNCTION race_f() RETURNS int LANGUAGE sql AS 'SELECT 1'`,
    second: `CREATE OR REPLACE FUNCTION race_f() RETURNS int LANGUAGE sql AS 'SELECT 2'`,
  },
  {
    name: 'foreign key and DROP of its parent',
    setup: [TABLE, 'CREATE TABLE race_p (id int PRIMARY KEY)', 'INSERT INTO race_p VALUES (1)'],
    first: 'ALTER TABLE race_t ADD CONSTRAINT race_fk FOREIGN KEY (v) REFERENCES race_p',
    second: 'DROP TABLE race_p',
  },
  {
    name: 'two tables that each refer to the other',
    setup: [TABLE, 'CREATE TABLE race_p (id int PRIMARY KEY, v int)'],
    first: 'ALTER TABLE race_t ADD CONSTRAINT race_fk FOREIGN KEY (v) REFERENCES race_p',
    second: 'ALTER TABLE race_p ADD CONSTRAINT race_fk FOREIGN KEY (v) REFERENCES race_t',
  },
];

const CLEAN = [
  'DROP TABLE IF EXISTS race_t, race_new, race_a, race_b, race_p CASCADE',
  'DROP SCHEMA IF EXISTS race_schema',
  'DROP FUNCTION IF EXISTS race_f',
];

/** All that the pairs make, as one text. */
const DESCRIPTION = `SELECT string_agg(what, E'\\n' ORDER BY what) AS text FROM (
  SELECT c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) AS what
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relname LIKE 'race%' AND c.relkind IN ('r', 'i') AND a.attnum > 0 AND NOT a.attisdropped
  UNION ALL SELECT nspname FROM pg_namespace WHERE nspname LIKE 'race%'
  UNION ALL SELECT proname || prosrc FROM pg_proc WHERE proname LIKE 'race%'
  UNION ALL SELECT conrelid::regclass || conname FROM pg_constraint WHERE conname LIKE 'race_fk%') x`;

/** An SQLSTATE, or that it was carried out. */
type End = string;
const DONE = 'done';

async function endOf(running: Promise<unknown>): Promise<End> {
  try {
    await running;
    return DONE;
  } catch (error) {
    if (error instanceof pg.DatabaseError && error.code !== undefined) return error.code;
    throw error;
  }
}

async function runAll(client: pg.Client, statements: readonly string[]): Promise<void> {
  for (const sql of statements) await client.query(sql);
}

async function describeSchema(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ text: string | null }>(DESCRIPTION);
  return rows[0].text ?? '';
}

/** What two sessions of one server can come to. */
interface OneServer {
  /** Both ends, of `first` and of `second`. */
  readonly ends: ReadonlySet<string>;
  /** What the database holds then, by who was carried out. */
  readonly states: ReadonlyMap<string, ReadonlySet<string>>;
}

describe('two schema changes at once', () => {
  let cluster: ReplayCluster;
  let server: TestPostgres;
  let sessions: pg.Client[];

  beforeAll(async () => {
    cluster = await ReplayCluster.start();
    server = await startPostgres();
    sessions = await Promise.all([server.connect(), server.connect()]);
  });

  afterAll(async () => {
    await cluster.stop();
    await server.stop();
  });

  async function isWaiting(pid: number): Promise<boolean> {
    const client = await server.connect();
    const { rows } = await client.query<{ waits: boolean }>(
      `SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity WHERE pid = $1`,
      [pid],
    );
    await client.end();
    return rows[0].waits;
  }

  /** The one that is given first commits after the other has run or waits. */
  async function overlapped(pair: Pair, firstLeads: boolean): Promise<[End, End]> {
    const [leader, follower] = sessions;
    await runAll(leader, [...CLEAN, ...pair.setup]);
    const { rows } = await follower.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    await leader.query('BEGIN');
    await leader.query(firstLeads ? pair.first : pair.second);
    let followed: End | undefined;
    const following = endOf(follower.query(firstLeads ? pair.second : pair.first)).then((end) => (followed = end));
    await waitFor('the other one ends or waits', async () => followed !== undefined || (await isWaiting(rows[0].pid)));
    const led = await endOf(leader.query('COMMIT'));
    const ends: [End, End] = [led, await following];
    return firstLeads ? ends : [ends[1], ends[0]];
  }

  async function onOneServer(pair: Pair): Promise<OneServer> {
    const ends = new Set<string>();
    const states = new Map<string, Set<string>>();
    const note = async (pairOfEnds: [End, End]): Promise<void> => {
      ends.add(pairOfEnds.join());
      const who = pairOfEnds.map((end) => end === DONE).join();
      states.set(who, (states.get(who) ?? new Set()).add(await describeSchema(sessions[0])));
    };
    for (const firstLeads of [true, false]) await note(await overlapped(pair, firstLeads));
    // One of them alone, as when the other lost a conflict.
    await runAll(sessions[0], [...CLEAN, ...pair.setup]);
    await note([await endOf(sessions[0].query(pair.first)), '40001']);
    await runAll(sessions[0], [...CLEAN, ...pair.setup]);
    await note(['40001', await endOf(sessions[0].query(pair.second))]);
    // One after the other.
    for (const firstLeads of [true, false]) {
      await runAll(sessions[0], [...CLEAN, ...pair.setup]);
      const leading = await endOf(sessions[0].query(firstLeads ? pair.first : pair.second));
      const following = await endOf(sessions[0].query(firstLeads ? pair.second : pair.first));
      await note(firstLeads ? [leading, following] : [following, leading]);
    }
    return { ends, states };
  }

  it.each(PAIRS)('$name', async (pair) => {
    const possible = await onOneServer(pair);
    for (let round = 0; round < ROUNDS; round++) {
      await runAll(cluster.client(1), [...CLEAN, ...pair.setup]);
      const [a, b] = round % 2 === 0 ? [1, 2] : [3, 1];
      const ends = await Promise.all([
        endOf(cluster.client(a).query(pair.first)),
        endOf(cluster.client(b).query(pair.second)),
      ]);
      const seen = `round ${round}: ${ends.join()}`;
      expect([...possible.ends].map((one) => `round ${round}: ${one}`)).toContain(seen);
      const who = ends.map((end) => end === DONE).join();
      const state = (await cluster.rows(DESCRIPTION))[0][0] ?? '';
      expect([...(possible.states.get(who) ?? [])]).toContain(state);
    }
    await cluster.expectSame();
  });
});
