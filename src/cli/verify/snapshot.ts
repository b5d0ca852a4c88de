import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { CommitProgress } from '../../commit/core/commit-progress.ts';
import { positionsByLanes, toIndex } from '../../replication/commit-origins.ts';
import type { Target } from './targets.ts';

/** One node, held in a transaction whose snapshot doesn't change. */
export interface Snapshot {
  readonly name: string;
  readonly client: pg.Client;
  /** What the origins of its committers say, of all databases. */
  readonly committed: CommitProgress;
}

/** Text forms must not depend on how a server or a role is configured. */
const SETTINGS = `
SET LOCAL search_path = pg_catalog; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, YMD';
SET LOCAL IntervalStyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex';
SET LOCAL lc_monetary = 'C'; SET LOCAL xmlbinary = 'base64'; SET LOCAL row_security = off;
SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '30s'; SET LOCAL quote_all_identifiers = off`;

const COMMITTED = `
SELECT external_id AS name, remote_lsn::text AS lsn FROM pg_catalog.pg_replication_origin_status
WHERE external_id LIKE 'pgmm\\_commit\\_%'`;

/**
 * A snapshot of every node, all at the same place of the commit order if they come to one within `waitMs`. Where nodes are
 * being written to, that takes a pause in the writing.
 */
export async function openSnapshots(targets: readonly Target[], database: string, waitMs: number): Promise<Snapshot[]> {
  const clients: pg.Client[] = [];
  try {
    for (const target of targets) {
      const client = new pg.Client({ ...target.connection(database), application_name: 'pgmm verify' });
      client.on('error', () => undefined);
      clients.push(client);
      await connect(client, target, database);
    }
    const deadline = Date.now() + waitMs;
    for (;;) {
      const snapshots = await Promise.all(clients.map((client, index) => open(client, targets[index].name)));
      if (agree(snapshots) || Date.now() >= deadline) return snapshots;
      await Promise.all(clients.map((client) => client.query('ROLLBACK')));
      await sleep(100);
    }
  } catch (error) {
    await Promise.all(clients.map((client) => client.end().catch(() => undefined)));
    throw error;
  }
}

export async function closeSnapshots(snapshots: readonly Snapshot[]): Promise<void> {
  await Promise.all(snapshots.map(({ client }) => client.end().catch(() => undefined)));
}

/** Whether all nodes have committed up to the same place. */
export function agree(snapshots: readonly Snapshot[]): boolean {
  return new Set(snapshots.map(({ committed }) => describeCommitted(committed))).size <= 1;
}

export function describeCommitted({ contiguous, highest }: CommitProgress): string {
  if (highest === 0) return 'nothing';
  return highest === contiguous
    ? `up to ${contiguous}`
    : `up to ${contiguous}, and of what comes later up to ${highest}`;
}

async function connect(client: pg.Client, target: Target, database: string): Promise<void> {
  try {
    await client.connect();
  } catch (error) {
    throw new Error(`${target.name}, database ${database}: ${(error as Error).message}`, { cause: error });
  }
}

async function open(client: pg.Client, name: string): Promise<Snapshot> {
  await client.query(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; ${SETTINGS}`);
  // The first query takes the snapshot.
  const { rows } = await client.query<{ name: string; lsn: string }>(COMMITTED);
  const positions = positionsByLanes(rows.map((row) => [row.name, toIndex(row.lsn)]));
  return { name, client, committed: new CommitProgress([...positions.values()]) };
}
