import { always, never, type Scenario, type Section, type SessionSteps } from './scenario.ts';

const TABLE = ['CREATE TABLE t (id int PRIMARY KEY, v int, w int)', 'CREATE TABLE p (id int PRIMARY KEY)'];
const ROWS = 'INSERT INTO p VALUES (1), (2); INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)';
/** As one text, since the columns differ. */
const STATE = `SELECT coalesce((SELECT string_agg(a.attname || ' ' || a.atttypid::regtype, ',' ORDER BY a.attnum) FROM pg_attribute a
  WHERE a.attrelid = to_regclass('t') AND a.attnum > 0 AND NOT a.attisdropped), 'no table'),
  CASE WHEN to_regclass('t') IS NULL THEN '' ELSE query_to_xml('SELECT * FROM t ORDER BY id', true, true, '')::text END,
  (SELECT string_agg(id::text, ',' ORDER BY id) FROM p),
  (SELECT string_agg(indexrelid::regclass::text, ',' ORDER BY indexrelid::regclass::text) FROM pg_index WHERE indrelid = to_regclass('t')),
  (SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE conrelid = to_regclass('t') AND contype IN ('c', 'f'))`;

type Texts = Pick<Scenario, 'server' | 'cluster'>;

const meeting = (conflict: string, ddl: SessionSteps, dml: SessionSteps, texts: Texts): Scenario => ({
  conflict,
  tables: TABLE,
  changesSchema: true,
  rows: ROWS,
  sessions: [ddl, dml],
  state: STATE,
  ...texts,
});

const WAITS = 'the second waits';
const STANDS = 'waits for writers of its own node only; at its commit, writers of other nodes fail';
const none = { text: WAITS, errors: never };
const lost = { text: STANDS, errors: always('40001') };

export const schema: Section = {
  title: 'Schema changes',
  scenarios: [
    meeting(
      'ADD COLUMN and UPDATE',
      'ALTER TABLE t ADD COLUMN x int DEFAULT 7',
      ['UPDATE t SET v = v + 1 WHERE id = 1'],
      {
        server: none,
        cluster: lost,
      },
    ),
    meeting(
      'DROP COLUMN and an UPDATE that uses it',
      'ALTER TABLE t DROP COLUMN w',
      ['UPDATE t SET w = w + 1 WHERE id = 1'],
      {
        server: { text: `${WAITS}; a column that is gone is an error`, errors: always('42703') },
        cluster: { text: STANDS, errors: always('40001', '42703') },
      },
    ),
    meeting('ALTER TYPE and INSERT', 'ALTER TABLE t ALTER COLUMN v TYPE bigint', ['INSERT INTO t VALUES (3, 3, 3)'], {
      server: none,
      cluster: lost,
    }),
    meeting('RENAME and INSERT', 'ALTER TABLE t RENAME COLUMN w TO w2', ['INSERT INTO t (id, w) VALUES (3, 3)'], {
      server: { text: `${WAITS}; a name that is gone is an error`, errors: always('42703') },
      cluster: { text: STANDS, errors: always('40001', '42703') },
    }),
    meeting('DROP TABLE and INSERT', 'DROP TABLE t', ['INSERT INTO t VALUES (3, 3, 3)'], {
      server: { text: `${WAITS}; a table that is gone is an error`, errors: always('42P01') },
      cluster: { text: STANDS, errors: always('40001', '42P01') },
    }),
    meeting(
      'CREATE UNIQUE INDEX and INSERT of a duplicate',
      'CREATE UNIQUE INDEX t_v ON t (v)',
      ['INSERT INTO t VALUES (3, 2, 3)'],
      {
        server: { text: `${WAITS}; then it fails`, errors: always('23505') },
        cluster: { text: STANDS, errors: always('23505', '40001') },
      },
    ),
    meeting(
      'ADD CHECK and INSERT against it',
      'ALTER TABLE t ADD CONSTRAINT t_check CHECK (v < 10)',
      ['INSERT INTO t VALUES (3, 30, 3)'],
      {
        server: { text: `${WAITS}; then it fails`, errors: always('23514') },
        cluster: { text: STANDS, errors: always('23514', '40001') },
      },
    ),
    meeting(
      'ADD FOREIGN KEY and DELETE of a parent',
      'ALTER TABLE t ADD CONSTRAINT t_fk FOREIGN KEY (v) REFERENCES p',
      ['DELETE FROM p WHERE id = 1'],
      {
        server: { text: `${WAITS}; then it fails`, errors: always('23503') },
        cluster: { text: STANDS, errors: always('23503', '40001') },
      },
    ),
    meeting(
      'CREATE INDEX in a block, and UPDATE',
      ['CREATE INDEX t_v ON t (v)', 'UPDATE t SET w = 5 WHERE id = 2'],
      ['UPDATE t SET v = v + 1 WHERE id = 1'],
      {
        server: none,
        cluster: lost,
      },
    ),
    meeting('TRUNCATE and INSERT', 'TRUNCATE t', ['INSERT INTO t VALUES (3, 3, 3)'], { server: none, cluster: lost }),
    meeting('TRUNCATE and an UPDATE of rows that it removes', 'TRUNCATE t', ['UPDATE t SET v = v + 1'], {
      server: none,
      cluster: lost,
    }),
    meeting('Two schema changes of one table', ['ALTER TABLE t ADD COLUMN x int'], 'ALTER TABLE t ADD COLUMN x text', {
      server: { text: `${WAITS}; then it fails`, errors: always('42701') },
      cluster: {
        text: 'nobody waits; the younger is tried again by its proxy, then fails',
        errors: always('40001', '42701'),
      },
    }),
    meeting('Schema changes of two tables', 'ALTER TABLE t ADD COLUMN x int', 'ALTER TABLE p ADD COLUMN x int', {
      server: { text: 'no conflict', errors: never },
      cluster: { text: 'no conflict', errors: never },
    }),
  ],
};
