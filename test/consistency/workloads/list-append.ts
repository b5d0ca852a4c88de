import { check, type AnomalyKind } from '../checker/check.ts';
import type { Step, Transaction } from '../checker/history.ts';
import { isForbidden } from '../levels.ts';
import type { WorkloadKind } from './workload.ts';

const KEYS = 6;
interface Row {
  readonly key: string;
  readonly items: number[];
}

/**
 * When an append has to be seen: on the node where it was made; by all that begin after it was acknowledged, as writers
 * wait for every node (`remote_apply`); or by those transactions that ask for it (`strict`, which are two of three here).
 */
export type Recency = 'local' | 'remote_apply' | 'strict';

/** Elle's workload. */
export function listAppend(recency: Recency): WorkloadKind {
  const table = `list_append_${recency}`;
  const read = `SELECT items FROM ${table} WHERE key = $1`;
  const upsert = `INSERT INTO ${table} AS l VALUES ($1, ARRAY[$2::int])
    ON CONFLICT (key) DO UPDATE SET items = l.items || excluded.items`;
  const update = `UPDATE ${table} SET items = items || $2::int WHERE key = $1`;
  return {
    name: recency === 'local' ? 'list-append' : `list-append, ${recency}`,
    schema: [
      `CREATE TABLE ${table} (key text PRIMARY KEY, items int[] NOT NULL)`,
      // The other half of the keys is made by the first append.
      `INSERT INTO ${table} SELECT i, '{}' FROM generate_series(1, ${KEYS / 2}) i`,
    ],
    remoteApply: recency === 'remote_apply',
    forbids: (kind, level, order) => isForbidden(kind as AnomalyKind, level, order),
    create: () => {
      const transactions: Transaction[] = [];
      let values = 0;
      let reads = 0;
      return {
        step: async (session, rng) => {
          const steps: Step[] = [];
          const strict = recency === 'strict' && rng.chance(2 / 3);
          const begun = performance.now();
          let id = 0;
          const outcome = await session.transact(
            async (client) => {
              if (strict) await client.query('SET LOCAL multimaster.read_level = strict');
              for (let left = 1 + rng.below(4); left > 0; left--) {
                const key = String(1 + rng.below(KEYS));
                if (rng.chance(0.5)) {
                  const { rows } = await client.query<Row>(read, [key]);
                  steps.push({ kind: 'read', key, values: rows.length === 0 ? [] : rows[0].items });
                  reads += 1;
                } else {
                  const value = ++values;
                  // Before it is sent: an append whose answer was lost may be there all the same.
                  steps.push({ kind: 'append', key, value });
                  await client.query(Number(key) > KEYS / 2 || rng.chance(0.3) ? upsert : update, [key, value]);
                }
              }
            },
            (settled) => {
              transactions[id - 1] = { ...transactions[id - 1], outcome: settled, ended: Infinity };
            },
          );
          const { process } = session;
          id = transactions.length + 1;
          transactions.push({ id, process, steps, outcome, begun, ended: performance.now(), strict });
        },
        finish: async (nodes) => {
          const findings = [];
          for (const node of nodes) {
            const { rows } = await node.query<Row>(`SELECT key, items FROM ${table}`);
            const final = new Map(rows.map(({ key, items }) => [key, items]));
            findings.push(...check({ transactions, final }, { process: true, realtime: recency === 'remote_apply' }));
          }
          return { reads, findings };
        },
      };
    },
  };
}
