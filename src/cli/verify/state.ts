import type { Difference } from './report.ts';
import { agree, describeCommitted } from './snapshot.ts';
import type { Snapshot } from './snapshot.ts';
import { byNode } from './tables.ts';

/** What a cluster at rest has none of: prepared transactions, slots that lag, nodes that have committed less than others. */
export async function checkState(snapshots: readonly Snapshot[], maxSlotLag: number): Promise<Difference[]> {
  const differences: Difference[] = [];
  if (!agree(snapshots)) {
    const nodes = byNode(snapshots, ({ committed }) => describeCommitted(committed));
    differences.push({ kind: 'commit index', object: 'how far each node has committed', nodes });
  }
  for (const { name, client } of snapshots) {
    const prepared = await client.query<{ gid: string; database: string; age: string }>(
      `SELECT gid, database, date_trunc('second', clock_timestamp() - prepared)::text AS age
       FROM pg_prepared_xacts WHERE gid LIKE 'pgmm:%' ORDER BY prepared`,
    );
    for (const { gid, database, age } of prepared.rows) {
      differences.push({ kind: 'prepared', database, object: gid, nodes: { [name]: `prepared for ${age}` } });
    }
    const slots = await client.query<{ slot: string; lag: string; active: boolean }>(
      `SELECT slot_name AS slot, active, pg_current_wal_lsn() - confirmed_flush_lsn AS lag FROM pg_replication_slots
       WHERE slot_name LIKE 'pgmm%' AND slot_name NOT LIKE 'pgmm_history%' AND slot_type = 'logical' AND pg_current_wal_lsn() - confirmed_flush_lsn > $1`,
      [maxSlotLag],
    );
    for (const { slot, lag, active } of slots.rows) {
      const value = `${lag} bytes behind, ${active ? 'in use' : 'not in use'}`;
      differences.push({ kind: 'slot', object: `slot ${slot}`, nodes: { [name]: value } });
    }
  }
  return differences;
}
