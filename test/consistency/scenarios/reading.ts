import { errors, never, type Section } from './scenario.ts';

const TABLE = ['CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL)'];
const TWO = 'DELETE FROM t; INSERT INTO t VALUES (1, 0), (2, 0)';
const ALL = 'SELECT * FROM t ORDER BY id';
const BOTH = 'SELECT v FROM t ORDER BY id';

/** What snapshots allow and forbid: the values that were read count here as much as the rows in the end. */
export const reading: Section = {
  title: 'Reads',
  scenarios: [
    {
      conflict: 'A reader between two updates of one transaction',
      tables: TABLE,
      rows: TWO,
      sessions: [
        ['UPDATE t SET v = 1 WHERE id = 1', 'UPDATE t SET v = 1 WHERE id = 2'],
        ['SELECT v FROM t WHERE id = 1', 'SELECT v FROM t WHERE id = 2'],
      ],
      state: ALL,
      server: {
        text: 'each statement, or each transaction above READ COMMITTED, sees all of it or nothing',
        errors: never,
      },
      cluster: { text: 'the same', errors: never },
    },
    {
      conflict: 'Write skew: both read two rows, each updates another one',
      tables: TABLE,
      rows: TWO,
      sessions: [
        ['SELECT sum(v) FROM t', 'UPDATE t SET v = v + 1 WHERE id = 1'],
        ['SELECT sum(v) FROM t', 'UPDATE t SET v = v + 1 WHERE id = 2'],
      ],
      state: ALL,
      server: { text: 'both commit (SERIALIZABLE would not let them)', errors: never },
      cluster: { text: 'both commit; SERIALIZABLE is refused with 0A000', errors: never },
    },
    {
      conflict: 'Write skew by INSERT: both look for a row and insert another',
      tables: TABLE,
      rows: 'DELETE FROM t',
      sessions: [
        ['SELECT count(*)::int FROM t', 'INSERT INTO t VALUES (1, 1)'],
        ['SELECT count(*)::int FROM t', 'INSERT INTO t VALUES (2, 1)'],
      ],
      state: ALL,
      server: { text: 'both commit', errors: never },
      cluster: { text: 'both commit', errors: never },
    },
    {
      conflict: 'Read-only anomaly (Fekete, O’Neil, O’Neil): a report between two that skew',
      tables: TABLE,
      rows: TWO,
      sessions: [[BOTH, 'UPDATE t SET v = -11 WHERE id = 1'], ['UPDATE t SET v = 20 WHERE id = 2'], BOTH],
      state: ALL,
      server: { text: 'all commit', errors: never },
      cluster: { text: 'all commit', errors: never },
    },
    {
      conflict: 'Long fork: two writers of different rows, two readers of both',
      tables: TABLE,
      rows: TWO,
      sessions: ['UPDATE t SET v = 1 WHERE id = 1', 'UPDATE t SET v = 1 WHERE id = 2', BOTH, BOTH],
      state: ALL,
      server: { text: 'readers agree on who was first', errors: never },
      cluster: { text: 'the same: every node commits in one order', errors: never },
    },
    {
      conflict: 'A reader of a row that another has read and deletes',
      tables: TABLE,
      rows: TWO,
      sessions: [
        ['DELETE FROM t WHERE id = 1'],
        ['SELECT count(*)::int FROM t', 'UPDATE t SET v = v + 1', 'SELECT count(*)::int FROM t'],
      ],
      state: ALL,
      server: { text: 'the second writer waits', errors: errors([], ['40001']) },
      cluster: {
        text: 'nobody waits; at the commit of the first, the other fails',
        errors: errors(['40001'], ['40001']),
      },
    },
  ],
};
