import pg from 'pg';
import type { TestCluster } from './cluster.ts';

/** Runs `work` while a node's PostgreSQL commits nothing of what is decided, and answers clients as ever: its committer's backend is stopped. */
export async function withoutCommits(cluster: TestCluster, node: number, work: () => Promise<void>): Promise<void> {
  const direct = new pg.Client({ connectionString: cluster.node(node).postgresUri });
  await direct.connect();
  const { rows } = await direct.query<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE application_name = 'pgmm committer'`,
  );
  await direct.end();
  for (const { pid } of rows) process.kill(pid, 'SIGSTOP');
  try {
    await work();
  } finally {
    for (const { pid } of rows) process.kill(pid, 'SIGCONT');
  }
}
