import { always, errors, never, type Scenario, type Section } from './scenario.ts';

const TABLE = ['CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL)', 'CREATE TABLE log (n int)'];
const ROWS = 'DELETE FROM t; DELETE FROM log; INSERT INTO t VALUES (1, 0), (2, 0)';
const STATE = `SELECT 't', id, v FROM t UNION ALL SELECT 'log', n, NULL FROM log ORDER BY 1, 2`;
const NEXT = 'INSERT INTO log SELECT coalesce(max(n), 0) + 1 FROM log';

const LATE = 'nobody waits; at the commit of the first, the other fails';

const guard = (lock: string, scenario: Pick<Scenario, 'server' | 'cluster'>): Scenario => ({
  conflict: `SELECT … ${lock} of one row as a guard, then INSERT elsewhere`,
  tables: TABLE,
  rows: ROWS,
  sessions: [
    [`SELECT id FROM t WHERE id = 1 ${lock}`, NEXT],
    [`SELECT id FROM t WHERE id = 1 ${lock}`, NEXT],
  ],
  state: STATE,
  ...scenario,
});

export const locks: Section = {
  title: 'Locks',
  scenarios: [
    {
      conflict: 'Write skew with FOR UPDATE of both rows',
      tables: TABLE,
      rows: ROWS,
      sessions: [
        ['SELECT v FROM t ORDER BY id FOR UPDATE', 'UPDATE t SET v = 1 WHERE id = 1'],
        ['SELECT v FROM t ORDER BY id FOR UPDATE', 'UPDATE t SET v = 1 WHERE id = 2'],
      ],
      state: STATE,
      server: { text: 'the second waits; then it reads the new row, or fails', errors: errors([], ['40001']) },
      cluster: { text: LATE, errors: always('40001') },
    },
    {
      conflict: 'FOR SHARE of a row that another updates',
      tables: TABLE,
      rows: ROWS,
      sessions: [['SELECT v FROM t WHERE id = 1 FOR SHARE', NEXT], ['UPDATE t SET v = v + 1 WHERE id = 1']],
      state: STATE,
      server: { text: 'the second waits', errors: errors([], ['40001']) },
      cluster: { text: 'nobody waits; at the commit of the UPDATE, the other fails', errors: always('40001') },
    },
    {
      conflict: 'FOR KEY SHARE of a row that another deletes',
      tables: TABLE,
      rows: ROWS,
      sessions: [['SELECT v FROM t WHERE id = 1 FOR KEY SHARE', NEXT], ['DELETE FROM t WHERE id = 1']],
      state: STATE,
      server: { text: 'the second waits', errors: errors([], ['40001']) },
      cluster: { text: 'nobody waits; at the commit of the DELETE, the other fails', errors: always('40001') },
    },
    guard('FOR UPDATE', {
      server: { text: 'the second waits', errors: never },
      cluster: { text: LATE, errors: always('40001') },
    }),
    guard('FOR NO KEY UPDATE', {
      server: { text: 'the second waits', errors: never },
      cluster: { text: LATE, errors: always('40001') },
    }),
    guard('FOR UPDATE NOWAIT', {
      server: { text: 'the second fails', errors: always('55P03') },
      // The second where the first is prepared on both nodes by then, and committed a moment later.
      cluster: { text: LATE, errors: always('40001', '55P03') },
    }),
    {
      conflict: 'A queue: FOR UPDATE SKIP LOCKED, then DELETE',
      tables: TABLE,
      rows: ROWS,
      sessions: [
        ['DELETE FROM t WHERE id = (SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id'],
        ['DELETE FROM t WHERE id = (SELECT id FROM t ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING id'],
      ],
      state: STATE,
      server: { text: 'each takes another row', errors: never },
      cluster: { text: 'both take the same row; at the commit of the first, the other fails', errors: always('40001') },
    },
    {
      conflict: 'LOCK TABLE … IN EXCLUSIVE MODE, then INSERT',
      tables: TABLE,
      rows: ROWS,
      sessions: [
        ['LOCK TABLE log IN EXCLUSIVE MODE', NEXT],
        ['LOCK TABLE log IN EXCLUSIVE MODE', NEXT],
      ],
      state: STATE,
      server: { text: 'the second waits', errors: never },
      cluster: { text: LATE, errors: always('40001') },
    },
    {
      conflict: 'LOCK TABLE … IN SHARE ROW EXCLUSIVE MODE, and INSERT into another table',
      tables: TABLE,
      rows: ROWS,
      sessions: [
        ['LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE', NEXT],
        ['LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE', NEXT],
      ],
      state: STATE,
      server: { text: 'the second waits', errors: never },
      cluster: { text: LATE, errors: always('40001') },
    },
  ],
};
