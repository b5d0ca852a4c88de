import { always, errors, never, type Scenario, type Section } from './scenario.ts';

const TABLE = ['CREATE TABLE t (id int PRIMARY KEY, k int UNIQUE, v int NOT NULL)'];
const EMPTY = 'DELETE FROM t';
const ALL = 'SELECT * FROM t ORDER BY id';
const AT_COMMIT = 'nobody waits; the replay of the second finds the key, or the row, taken';

export const keys: Section = {
  title: 'Keys',
  scenarios: [
    {
      conflict: 'INSERT of one primary key',
      tables: TABLE,
      rows: EMPTY,
      sessions: [['INSERT INTO t VALUES (1, 1, 0)'], ['INSERT INTO t VALUES (1, 2, 0)']],
      state: ALL,
      server: { text: 'the second waits, then fails', errors: always('23505') },
      cluster: { text: AT_COMMIT, errors: always('23505', '40001') },
    },
    {
      conflict: 'INSERT of one unique value',
      tables: TABLE,
      rows: EMPTY,
      sessions: [['INSERT INTO t VALUES (1, 7, 0)'], ['INSERT INTO t VALUES (2, 7, 0)']],
      state: ALL,
      server: { text: 'the second waits, then fails', errors: always('23505') },
      cluster: { text: AT_COMMIT, errors: always('23505', '40001') },
    },
    {
      conflict: 'UPDATE to one unique value',
      tables: TABLE,
      rows: 'DELETE FROM t; INSERT INTO t VALUES (1, 1, 0), (2, 2, 0)',
      sessions: [['UPDATE t SET k = 7 WHERE id = 1'], ['UPDATE t SET k = 7 WHERE id = 2']],
      state: ALL,
      server: { text: 'the second waits, then fails', errors: always('23505') },
      cluster: { text: AT_COMMIT, errors: always('23505', '40001') },
    },
    {
      conflict: 'A key freed by DELETE, and INSERT of it',
      tables: TABLE,
      rows: 'DELETE FROM t; INSERT INTO t VALUES (1, 1, 0)',
      sessions: [['DELETE FROM t WHERE id = 1'], ['INSERT INTO t VALUES (1, 1, 9)']],
      state: ALL,
      server: { text: 'the INSERT waits, or fails if it was first', errors: always('23505') },
      cluster: {
        text: 'nobody waits; the INSERT fails unless its node has the DELETE',
        errors: always('23505', '40001'),
      },
    },
    {
      conflict: 'ON CONFLICT DO NOTHING, one key',
      tables: TABLE,
      rows: EMPTY,
      sessions: [
        ['INSERT INTO t VALUES (1, 1, 1) ON CONFLICT DO NOTHING'],
        ['INSERT INTO t VALUES (1, 1, 2) ON CONFLICT DO NOTHING'],
      ],
      state: ALL,
      server: { text: 'the second waits, then does nothing, or fails', errors: errors([], ['40001']) },
      cluster: { text: AT_COMMIT, errors: always('23505', '40001') },
    },
    {
      conflict: 'ON CONFLICT DO UPDATE, one key',
      tables: TABLE,
      rows: EMPTY,
      sessions: [
        ['INSERT INTO t VALUES (1, 1, 1) ON CONFLICT (id) DO UPDATE SET v = t.v + 1'],
        ['INSERT INTO t VALUES (1, 1, 1) ON CONFLICT (id) DO UPDATE SET v = t.v + 1'],
      ],
      state: ALL,
      server: { text: 'the second waits, then updates, or fails', errors: errors([], ['40001']) },
      cluster: { text: AT_COMMIT, errors: always('23505', '40001') },
    },
    {
      conflict: 'Exclusion constraint: ranges that overlap',
      tables: ['CREATE TABLE t (id int PRIMARY KEY, span int4range, EXCLUDE USING gist (span WITH &&))'],
      rows: EMPTY,
      sessions: [["INSERT INTO t VALUES (1, '[1,5)')"], ["INSERT INTO t VALUES (2, '[4,9)')"]],
      state: ALL,
      server: { text: 'the second waits, then fails', errors: always('23P01') },
      cluster: { text: AT_COMMIT, errors: always('23P01', '40001') },
    },
    {
      conflict: 'Values from one sequence',
      tables: ['CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int NOT NULL)'],
      rows: EMPTY,
      sessions: [
        ['INSERT INTO t (v) VALUES (1)', 'INSERT INTO t (v) VALUES (2)'],
        ['INSERT INTO t (v) VALUES (3)', 'INSERT INTO t (v) VALUES (4)'],
      ],
      state: 'SELECT v FROM t ORDER BY v',
      server: { text: 'no conflict', errors: never },
      cluster: { text: 'no conflict: each node hands out values of its own', errors: never },
    },
  ],
};

const PARENT = 'CREATE TABLE p (id int PRIMARY KEY, v int NOT NULL)';
const child = (action: string) => `CREATE TABLE c (id int PRIMARY KEY, p int DEFAULT 9 REFERENCES p ${action})`;
const ROWS = 'DELETE FROM c; DELETE FROM p; INSERT INTO p VALUES (1, 0), (9, 0)';
const FAMILY = `SELECT 'p', id, NULL FROM p UNION ALL SELECT 'c', id, p FROM c ORDER BY 1, 2`;
const ORPHAN = 'nobody waits; the replay that comes second finds the parent gone, or its lock';

const deletion = (
  name: string,
  action: string,
  server: Scenario['server'],
  codes: readonly string[] = ['23503', '40001'],
): Scenario => ({
  conflict: `DELETE of a parent and INSERT of a child: ${name}`,
  tables: [PARENT, child(action)],
  rows: ROWS,
  sessions: [['DELETE FROM p WHERE id = 1'], ['INSERT INTO c VALUES (1, 1)']],
  state: FAMILY,
  server,
  cluster: { text: ORPHAN, errors: always(...codes) },
});

export const foreignKeys: Section = {
  title: 'Foreign keys',
  scenarios: [
    deletion('NO ACTION', '', { text: 'the second waits, then fails', errors: errors(['23503'], ['23503', '40001']) }),
    deletion(
      'RESTRICT',
      'ON DELETE RESTRICT',
      { text: 'the second waits, then fails', errors: errors(['23001', '23503'], ['23001', '23503', '40001']) },
      ['23001', '23503', '40001'],
    ),
    deletion('CASCADE', 'ON DELETE CASCADE', {
      text: 'the second waits; then the child goes too, or it fails',
      errors: errors(['23503'], ['23503', '40001']),
    }),
    deletion('SET NULL', 'ON DELETE SET NULL', {
      text: 'the second waits; then the child is changed, or it fails',
      errors: errors(['23503'], ['23503', '40001']),
    }),
    deletion('SET DEFAULT', 'ON DELETE SET DEFAULT', {
      text: 'the second waits; then the child is changed, or it fails',
      errors: errors(['23503'], ['23503', '40001']),
    }),
    deletion('DEFERRABLE INITIALLY DEFERRED', 'DEFERRABLE INITIALLY DEFERRED', {
      text: 'the second waits at COMMIT, then fails',
      errors: errors(['23503'], ['23503', '40001']),
    }),
    {
      conflict: 'A parent changes its key, INSERT of a child: ON UPDATE CASCADE',
      tables: [PARENT, child('ON UPDATE CASCADE')],
      rows: ROWS,
      sessions: [['UPDATE p SET id = 2 WHERE id = 1'], ['INSERT INTO c VALUES (1, 1)']],
      state: FAMILY,
      server: {
        text: 'the second waits; then the child follows, or it fails',
        errors: errors(['23503'], ['23503', '40001']),
      },
      cluster: { text: ORPHAN, errors: always('23503', '40001') },
    },
    {
      conflict: 'DELETE of a parent and UPDATE of a child to it',
      tables: [PARENT, child('')],
      rows: `${ROWS}; INSERT INTO c VALUES (1, 9)`,
      sessions: [['DELETE FROM p WHERE id = 1'], ['UPDATE c SET p = 1 WHERE id = 1']],
      state: FAMILY,
      server: { text: 'the second waits, then fails', errors: errors(['23503'], ['23503', '40001']) },
      cluster: { text: ORPHAN, errors: always('23503', '40001') },
    },
    {
      conflict: 'Another column of a parent is updated, INSERT of a child',
      tables: [PARENT, child('')],
      rows: ROWS,
      sessions: [['UPDATE p SET v = v + 1 WHERE id = 1'], ['INSERT INTO c VALUES (1, 1)']],
      state: FAMILY,
      server: { text: 'no conflict', errors: never },
      cluster: { text: 'no conflict', errors: never },
    },
    {
      conflict: 'Two children of one parent',
      tables: [PARENT, child('')],
      rows: ROWS,
      sessions: [['INSERT INTO c VALUES (1, 1)'], ['INSERT INTO c VALUES (2, 1)']],
      state: FAMILY,
      server: { text: 'no conflict', errors: never },
      cluster: { text: 'no conflict', errors: never },
    },
  ],
};
