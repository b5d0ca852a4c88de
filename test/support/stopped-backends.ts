import pg from 'pg';
import type { TestCluster } from './cluster.ts';

/** Stops the backends of a node's PostgreSQL that this query gives as `pid`, and has them go on after `work`. PostgreSQL answers everybody else as ever. */
async function withStopped(
  cluster: TestCluster,
  node: number,
  query: string,
  work: () => Promise<unknown>,
): Promise<void> {
  const direct = new pg.Client({ connectionString: cluster.node(node).postgresUri });
  await direct.connect();
  const { rows } = await direct.query<{ pid: number }>(query);
  await direct.end();
  if (rows.length === 0) throw new Error(`no backend is to be stopped by ${query}`);
  for (const { pid } of rows) process.kill(pid, 'SIGSTOP');
  try {
    await work();
  } finally {
    for (const { pid } of rows) process.kill(pid, 'SIGCONT');
  }
}

/** Runs `work` while a node's PostgreSQL commits nothing of what is decided. */
export const withoutCommits = (cluster: TestCluster, node: number, work: () => Promise<unknown>): Promise<void> =>
  withStopped(cluster, node, `SELECT pid FROM pg_stat_activity WHERE application_name = 'pgmm committer'`, work);

/** Runs `work` while a node's PostgreSQL gives out nothing of its WAL. */
export const withoutDecoding = (cluster: TestCluster, node: number, work: () => Promise<unknown>): Promise<void> =>
  withStopped(cluster, node, 'SELECT pid FROM pg_stat_replication', work);
