import { check, type AnomalyKind } from '../checker/check.ts';
import type { Step, Transaction } from '../checker/history.ts';
import { isForbidden } from '../levels.ts';
import type { WorkloadKind } from './workload.ts';

const KEYS = 6;
const READ = 'SELECT items FROM list_append WHERE key = $1';
const UPSERT = `INSERT INTO list_append AS l VALUES ($1, ARRAY[$2::int])
  ON CONFLICT (key) DO UPDATE SET items = l.items || excluded.items`;
const UPDATE = 'UPDATE list_append SET items = items || $2::int WHERE key = $1';

interface Row {
  readonly key: string;
  readonly items: number[];
}

/** Elle's workload. With `realtime`, what was acknowledged before a transaction began must have come before it. */
export function listAppend(realtime: boolean): WorkloadKind {
  return {
    name: realtime ? 'list-append, remote_apply' : 'list-append',
    schema: [
      'CREATE TABLE list_append (key text PRIMARY KEY, items int[] NOT NULL)',
      // The other half of the keys is made by the first append.
      `INSERT INTO list_append SELECT i, '{}' FROM generate_series(1, ${KEYS / 2}) i`,
    ],
    remoteApply: realtime,
    forbids: (kind, level) => isForbidden(kind as AnomalyKind, level),
    create: () => {
      const transactions: Transaction[] = [];
      let values = 0;
      let reads = 0;
      return {
        step: async (session, rng) => {
          const steps: Step[] = [];
          const begun = performance.now();
          const outcome = await session.transact(async (client) => {
            for (let left = 1 + rng.below(4); left > 0; left--) {
              const key = String(1 + rng.below(KEYS));
              if (rng.chance(0.5)) {
                const { rows } = await client.query<Row>(READ, [key]);
                steps.push({ kind: 'read', key, values: rows.length === 0 ? [] : rows[0].items });
                reads += 1;
              } else {
                const value = ++values;
                // Before it is sent: an append whose answer was lost may be there all the same.
                steps.push({ kind: 'append', key, value });
                await client.query(Number(key) > KEYS / 2 || rng.chance(0.3) ? UPSERT : UPDATE, [key, value]);
              }
            }
          });
          const { process } = session;
          const id = transactions.length + 1;
          transactions.push({ id, process, steps, outcome, begun, ended: performance.now() });
        },
        finish: async (nodes) => {
          const { rows } = await nodes[0].query<Row>('SELECT key, items FROM list_append');
          const final = new Map(rows.map(({ key, items }) => [key, items]));
          return { reads, findings: check({ transactions, final }, { process: true, realtime }) };
        },
      };
    },
  };
}
