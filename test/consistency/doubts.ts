import type pg from 'pg';
import { waitFor } from '../support/wait-for.ts';
import type { Finding } from './workloads/workload.ts';

/** A transaction whose client was not told what became of it, and that can be asked for. */
export interface Doubt {
  /** What multimaster.current_gid() said before COMMIT. */
  readonly gid: string;
  /** Told what the cluster says. */
  readonly settle: (outcome: 'committed' | 'aborted') => void;
}

export interface Settled {
  readonly committed: number;
  readonly aborted: number;
  /** Nodes that answer differently, or something that is not final. */
  readonly findings: readonly Finding[];
}

/** Asks every node what became of each transaction, until none is in progress, and tells those who wait for it. */
export async function settleDoubts(nodes: readonly pg.Client[], doubts: readonly Doubt[]): Promise<Settled> {
  const counts = { committed: 0, aborted: 0 };
  const findings: Finding[] = [];
  for (const { gid, settle } of doubts) {
    const answers = await waitFor(
      `${gid} is decided`,
      async () => {
        const all = await Promise.all(nodes.map((node) => outcomeOf(node, gid)));
        return all.includes('in progress') ? undefined : [...new Set(all)];
      },
      { timeoutMs: 60_000 },
    );
    const [answer] = answers;
    if (answers.length === 1 && (answer === 'committed' || answer === 'aborted')) {
      counts[answer] += 1;
      settle(answer);
    } else findings.push({ kind: 'outcome', detail: `${gid}: ${answers.join(', ')}` });
  }
  return { ...counts, findings };
}

async function outcomeOf(node: pg.Client, gid: string): Promise<string> {
  const { rows } = await node.query<{ outcome: string }>('SELECT multimaster.outcome($1) AS outcome', [gid]);
  return rows[0].outcome;
}
