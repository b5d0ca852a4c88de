import type { Outcome } from '../checker/history.ts';
import { always, type Finding, type WorkloadKind } from './workload.ts';

const ACCOUNTS = 8;
const TOTAL = ACCOUNTS * 100;
const PAIRS = 3;

/** Transfers keep the sum that every snapshot shows. */
export const bank: WorkloadKind = {
  name: 'bank',
  schema: [
    'CREATE TABLE bank (id int PRIMARY KEY, balance int NOT NULL)',
    `INSERT INTO bank SELECT i, 100 FROM generate_series(1, ${ACCOUNTS}) i`,
  ],
  forbids: always,
  create: () => {
    const findings: Finding[] = [];
    let reads = 0;
    return {
      step: async (session, rng) => {
        await session.transact(async (client) => {
          if (rng.chance(0.5)) {
            const { rows } = await client.query<{ sum: string }>('SELECT sum(balance) FROM bank');
            reads += 1;
            if (Number(rows[0].sum) !== TOTAL)
              findings.push({ kind: 'wrong-sum', detail: `${rows[0].sum} on node ${session.node}` });
            return;
          }
          const move = 'UPDATE bank SET balance = balance + $1 WHERE id = $2';
          await client.query(move, [-5, 1 + rng.below(ACCOUNTS)]);
          await client.query(move, [5, 1 + rng.below(ACCOUNTS)]);
        });
      },
      finish: async (nodes) => {
        for (const [i, node] of nodes.entries()) {
          const { rows } = await node.query<{ sum: string }>('SELECT sum(balance) FROM bank');
          if (Number(rows[0].sum) !== TOTAL)
            findings.push({ kind: 'wrong-sum', detail: `at the end on node ${i + 1}` });
        }
        return { reads, findings };
      },
    };
  },
};

/** Of each pair one at least must be on: each session looks at both and turns one off. */
export function writeSkew(lock: boolean): WorkloadKind {
  return {
    name: lock ? 'write skew, FOR UPDATE' : 'write skew',
    schema: [
      'CREATE TABLE duty (pair int, side int, busy bool NOT NULL, PRIMARY KEY (pair, side))',
      `INSERT INTO duty SELECT p, s, true FROM generate_series(1, ${PAIRS}) p, generate_series(1, 2) s`,
    ],
    forbids: (_, level) => lock || level === 'SERIALIZABLE',
    create: () => {
      const findings: Finding[] = [];
      let reads = 0;
      return {
        step: async (session, rng) => {
          const pair = 1 + rng.below(PAIRS);
          const seen: number[] = [];
          const outcome = await session.transact(async (client) => {
            const read = `SELECT busy FROM duty WHERE pair = $1 ORDER BY side ${lock ? 'FOR UPDATE' : ''}`;
            const { rows } = await client.query<{ busy: boolean }>(read, [pair]);
            reads += 1;
            const busy = rows.filter((row) => row.busy).length;
            seen.push(busy);
            if (busy === 2)
              await client.query('UPDATE duty SET busy = false WHERE pair = $1 AND side = $2', [
                pair,
                1 + rng.below(2),
              ]);
            else await client.query('UPDATE duty SET busy = true WHERE pair = $1', [pair]);
          });
          if (outcome === 'committed' && seen[0] === 0) findings.push({ kind: 'write-skew', detail: `pair ${pair}` });
        },
        finish: () => Promise.resolve({ reads, findings }),
      };
    },
  };
}

/** Two counters with a writer each; all that is read is points on one line that nobody walks back. */
export const counters: WorkloadKind = {
  name: 'long fork',
  schema: ['CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL)', 'INSERT INTO counter VALUES (1, 0), (2, 0)'],
  forbids: (kind, _, order) => kind !== 'long-fork' || order === 'strict',
  create: () => {
    const points: { x: number; y: number }[] = [];
    const last = new Map<number, { x: number; y: number }>();
    const writers: number[] = [];
    const findings: Finding[] = [];
    return {
      step: async (session) => {
        if (!writers.includes(session.node) && writers.length < 2) writers.push(session.node);
        const row = writers.indexOf(session.node) + 1;
        if (row > 0)
          await session.transact((client) => client.query('UPDATE counter SET n = n + 1 WHERE id = $1', [row]));
        await session.transact(async (client) => {
          const { rows } = await client.query<{ n: number }>('SELECT n FROM counter ORDER BY id');
          const point = { x: rows[0].n, y: rows[1].n };
          points.push(point);
          const before = last.get(session.process);
          if (before && (point.x < before.x || point.y < before.y))
            findings.push({ kind: 'went-back', detail: `${JSON.stringify(before)} to ${JSON.stringify(point)}` });
          last.set(session.process, point);
        });
      },
      finish: () => {
        const sorted = [...points].sort((a, b) => a.x - b.x || a.y - b.y);
        for (let i = 1; i < sorted.length; i++)
          if (sorted[i].y < sorted[i - 1].y)
            findings.push({
              kind: 'long-fork',
              detail: `${JSON.stringify(sorted[i - 1])}, ${JSON.stringify(sorted[i])}`,
            });
        return Promise.resolve({ reads: points.length, findings });
      },
    };
  },
};

/** Each new key is inserted by several sessions at about the same time: one may have it. */
export const uniqueRace: WorkloadKind = {
  name: 'unique race',
  schema: ['CREATE TABLE unique_race (key int UNIQUE, by int PRIMARY KEY)'],
  forbids: always,
  create: () => {
    const taken = new Map<number, number>();
    const failed = new Set<number>();
    const findings: Finding[] = [];
    let ids = 0;
    const note = (outcome: Outcome, key: number, by: number): void => {
      if (outcome === 'aborted') failed.add(by);
      if (outcome !== 'committed') return;
      if (taken.has(key)) findings.push({ kind: 'key-twice', detail: `${key} by ${taken.get(key)} and ${by}` });
      taken.set(key, by);
    };
    return {
      step: async (session) => {
        const by = ++ids;
        const key = Math.floor(by / 4);
        const outcome = await session.transact(
          (client) => client.query('INSERT INTO unique_race VALUES ($1, $2)', [key, by]),
          (settled) => note(settled, key, by),
        );
        note(outcome, key, by);
      },
      finish: async (nodes) => {
        for (const node of nodes) {
          const { rows } = await node.query<{ key: number; by: number }>('SELECT key, by FROM unique_race');
          const there = new Map(rows.map(({ key, by }) => [key, by]));
          if (there.size < rows.length) findings.push({ kind: 'key-twice', detail: 'in one table' });
          for (const [key, by] of taken)
            if (there.get(key) !== by) findings.push({ kind: 'lost-insert', detail: `${key}` });
          for (const { key, by } of rows)
            if (failed.has(by)) findings.push({ kind: 'failed-insert', detail: `${key} by ${by}` });
        }
        return { reads: ids, findings };
      },
    };
  },
};
