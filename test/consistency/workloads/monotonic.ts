import type { Outcome } from '../checker/history.ts';
import { always, type Finding, type WorkloadKind } from './workload.ts';

/**
 * A counter that only grows, raised and read everywhere. What a node has shown it never takes back, whoever reads and
 * whatever was restarted meanwhile; and a strict read shows all that anybody was shown before it began.
 */
export const monotonic: WorkloadKind = {
  name: 'monotonic',
  schema: ['CREATE TABLE monotonic (id int PRIMARY KEY, n int NOT NULL)', 'INSERT INTO monotonic VALUES (1, 0)'],
  forbids: always,
  create: () => {
    const findings: Finding[] = [];
    /** The highest number that each node has shown so far, and that any has. */
    const shown = new Map<number, number>();
    let highest = 0;
    let reads = 0;
    const raisers = new Map<number, string>();
    const raised: Record<Outcome, number> = { committed: 0, aborted: 0, unknown: 0 };

    const show = (node: number, n: number): void => {
      shown.set(node, Math.max(shown.get(node) ?? 0, n));
      highest = Math.max(highest, n);
    };
    const raise = (outcome: Outcome, node: number, n: number): void => {
      raised[outcome] += 1;
      if (outcome !== 'committed') return;
      const other = raisers.get(n);
      if (other !== undefined) findings.push({ kind: 'lost-update', detail: `to ${n} on ${other} and node ${node}` });
      raisers.set(n, `node ${node}`);
      show(node, n);
    };

    return {
      step: async (session, rng) => {
        const { node } = session;
        let n = 0;
        if (rng.chance(0.3)) {
          const outcome = await session.transact(
            async (client) => {
              const { rows } = await client.query<{ n: number }>('UPDATE monotonic SET n = n + 1 RETURNING n');
              n = rows[0].n;
            },
            (settled) => {
              raised.unknown -= 1;
              raise(settled, node, n);
            },
          );
          raise(outcome, node, n);
          return;
        }
        const strict = rng.chance(0.5);
        const floor = strict ? highest : (shown.get(node) ?? 0);
        const outcome = await session.transact(async (client) => {
          if (strict) await client.query('SET LOCAL multimaster.read_level = strict');
          n = (await client.query<{ n: number }>('SELECT n FROM monotonic')).rows[0].n;
        });
        if (outcome === 'aborted') return;
        reads += 1;
        if (n < floor)
          findings.push({ kind: strict ? 'stale-read' : 'went-back', detail: `node ${node}: ${floor} to ${n}` });
        show(node, n);
      },
      finish: async (nodes) => {
        const most = raised.committed + raised.unknown;
        for (const [i, node] of nodes.entries()) {
          const { n } = (await node.query<{ n: number }>('SELECT n FROM monotonic')).rows[0];
          if (n < raised.committed || n < highest || n > most)
            findings.push({
              kind: 'wrong-count',
              detail: `node ${i + 1}: ${n}, of ${raised.committed} to ${most}, and ${highest} was shown`,
            });
        }
        return { reads, findings };
      },
    };
  },
};
