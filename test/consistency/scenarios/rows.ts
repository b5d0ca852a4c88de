import { always, errors, never, type Section } from './scenario.ts';

const TABLE = ['CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL)'];
const TWO = 'DELETE FROM t; INSERT INTO t VALUES (1, 0), (2, 0)';
const ALL = 'SELECT * FROM t ORDER BY id';
const LATE = errors(['40001'], ['40001']);
const WAITS = 'the second waits; then it goes on from the new row, or fails above READ COMMITTED';
const YOUNGER = 'nobody waits; at the commit of the first, the other fails';

export const rows: Section = {
  title: 'Rows',
  scenarios: [
    {
      conflict: 'Lost update: both read a row and overwrite it',
      tables: TABLE,
      rows: TWO,
      sessions: [
        ['SELECT v FROM t WHERE id = 1', 'UPDATE t SET v = 1 WHERE id = 1'],
        ['SELECT v FROM t WHERE id = 1', 'UPDATE t SET v = 2 WHERE id = 1'],
      ],
      state: ALL,
      server: { text: WAITS, errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'Increments of one row',
      tables: TABLE,
      rows: TWO,
      sessions: [['UPDATE t SET v = v + 1 WHERE id = 1'], ['UPDATE t SET v = v + 1 WHERE id = 1']],
      state: ALL,
      server: { text: WAITS, errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'Increments of one row by prepared statements',
      tables: TABLE,
      rows: TWO,
      sessions: [
        [{ name: 'increment', text: 'UPDATE t SET v = v + $1 WHERE id = $2', values: [1, 1] }],
        [{ name: 'increment', text: 'UPDATE t SET v = v + $1 WHERE id = $2', values: [2, 1] }],
      ],
      state: ALL,
      server: { text: WAITS, errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'Two rows in opposite order',
      tables: TABLE,
      rows: TWO,
      sessions: [
        ['UPDATE t SET v = v + 1 WHERE id = 1', 'UPDATE t SET v = v + 1 WHERE id = 2'],
        ['UPDATE t SET v = v + 10 WHERE id = 2', 'UPDATE t SET v = v + 10 WHERE id = 1'],
      ],
      state: ALL,
      server: { text: 'a deadlock, which ends one of them', errors: errors(['40P01'], ['40001', '40P01']) },
      cluster: { text: `${YOUNGER}; no deadlock between nodes`, errors: LATE },
    },
    {
      conflict: 'DELETE and UPDATE of one row',
      tables: TABLE,
      rows: TWO,
      sessions: [['DELETE FROM t WHERE id = 1'], ['UPDATE t SET v = v + 1 WHERE id = 1']],
      state: ALL,
      server: { text: 'the second waits; the UPDATE then finds no row, or fails', errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'DELETE of one row, twice',
      tables: TABLE,
      rows: TWO,
      sessions: [['DELETE FROM t WHERE id = 1'], ['DELETE FROM t WHERE id = 1']],
      state: ALL,
      server: { text: 'the second waits, then finds no row, or fails', errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'A row deleted and made anew, and an UPDATE of it',
      tables: TABLE,
      rows: TWO,
      sessions: [
        ['DELETE FROM t WHERE id = 1', 'INSERT INTO t VALUES (1, 100)'],
        ['UPDATE t SET v = v + 1 WHERE id = 1'],
      ],
      state: ALL,
      server: { text: 'the second waits', errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'A row without a key, UPDATE and DELETE',
      tables: ['CREATE TABLE t (id int, v int)'],
      rows: 'DELETE FROM t; INSERT INTO t VALUES (1, 0), (1, 0)',
      sessions: [['UPDATE t SET v = v + 1'], ['DELETE FROM t WHERE v = 0']],
      state: 'SELECT * FROM t ORDER BY id, v',
      server: { text: 'the second waits', errors: errors([], ['40001']) },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'A row moves to another partition, and is updated',
      tables: [
        'CREATE TABLE t (id int, k int, v int NOT NULL, PRIMARY KEY (id, k)) PARTITION BY RANGE (k)',
        'CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10)',
        'CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20)',
      ],
      rows: 'DELETE FROM t; INSERT INTO t VALUES (1, 5, 0)',
      sessions: [['UPDATE t SET k = 15 WHERE id = 1'], ['UPDATE t SET v = v + 1 WHERE id = 1']],
      state: 'SELECT tableoid::regclass::text, id, k, v FROM t ORDER BY id',
      server: { text: 'the second waits; an UPDATE of a row that has moved fails', errors: always('40001') },
      cluster: { text: YOUNGER, errors: LATE },
    },
    {
      conflict: 'Different rows',
      tables: TABLE,
      rows: TWO,
      sessions: [['UPDATE t SET v = v + 1 WHERE id = 1'], ['UPDATE t SET v = v + 1 WHERE id = 2']],
      state: ALL,
      server: { text: 'no conflict', errors: never },
      cluster: { text: 'no conflict', errors: never },
    },
  ],
};
