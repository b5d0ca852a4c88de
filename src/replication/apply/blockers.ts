import type { ControlClient } from '../control-client.ts';
import { waitsOf, type Wait } from './wait-graph.ts';

/** A lock that a replay waits for, and who stands between. */
export interface Blocked {
  /** The apply session that waits. */
  readonly pid: number;
  /** Whoever stands at the end of the chain of waiting. */
  readonly holder:
    { readonly type: 'backend'; readonly pid: number } | { readonly type: 'prepared'; readonly gid: string };
  /** Backends that wait for the same holder and are served before the replay. */
  readonly between: readonly number[];
  /** The table whose row it wants, where that can be told. */
  readonly table: string | undefined;
}

/**
 * Whom these backends wait for, if they do; 0 stands for a prepared transaction. Locks that are held for one step only, such as
 * the one to extend a table by a page, go by themselves: whoever holds one is in nobody's way.
 */
const BLOCKERS = `
SELECT pid, pg_catalog.pg_blocking_pids(pid) AS blockers
FROM pg_catalog.unnest($1::pg_catalog.int4[]) pid
WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(pid)
  WHERE wait_event_type = 'Lock' AND wait_event NOT IN ('extend', 'page', 'frozenid', 'spectoken'))`;

const ALL_WAITS = `
SELECT w.pid, pg_catalog.pg_blocking_pids(w.pid) AS blockers
FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted) w`;

/** The gids of the prepared transactions that backends wait for: what holds the lock has no process, but a transaction. */
const PREPARED_HOLDERS = `
SELECT DISTINCT w.pid, p.gid
FROM pg_catalog.pg_locks w
JOIN pg_catalog.pg_locks h ON h.granted AND h.pid IS NULL AND h.locktype = w.locktype
  AND h.database IS NOT DISTINCT FROM w.database AND h.relation IS NOT DISTINCT FROM w.relation
  AND h.page IS NOT DISTINCT FROM w.page AND h.tuple IS NOT DISTINCT FROM w.tuple
  AND h.virtualxid IS NOT DISTINCT FROM w.virtualxid AND h.transactionid IS NOT DISTINCT FROM w.transactionid
  AND h.classid IS NOT DISTINCT FROM w.classid AND h.objid IS NOT DISTINCT FROM w.objid
  AND h.objsubid IS NOT DISTINCT FROM w.objsubid
JOIN pg_catalog.pg_locks x ON x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid' AND x.granted
JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE w.pid = ANY ($1::pg_catalog.int4[]) AND NOT w.granted`;

/** The table whose row a backend waits for: it has a place in the row's queue, or waits for the table itself. */
const TABLES = `
SELECT DISTINCT ON (pid) pid, relation::pg_catalog.regclass::pg_catalog.text AS "table"
FROM pg_catalog.pg_locks WHERE pid = ANY ($1::pg_catalog.int4[]) AND locktype IN ('tuple', 'relation')
ORDER BY pid, locktype = 'tuple' DESC, granted`;

/**
 * Looks up what these apply sessions wait for. One short question when none of them waits; otherwise one for each link of the
 * longest chain, in which every backend is asked about once, however many wait for it, and two more.
 */
export async function findBlockers(client: ControlClient, pids: readonly number[]): Promise<Blocked[]> {
  const blockers = await readWaits(client, pids);
  const waits = pids.flatMap((pid) => waitsOf(pid, blockers));
  if (waits.length === 0) return [];
  const prepared = await readPreparedHolders(
    client,
    waits.flatMap(({ end }) => (end.type === 'prepared' ? [end.waiter] : [])),
  );
  const tables = await readTables(client, [...new Set(waits.map(({ root }) => root))]);
  return waits.flatMap((wait) => describe(wait, prepared, tables.get(wait.root)));
}

/** Every backend that waits for a lock, and for whom, as pg_blocking_pids tells it; 0 stands for a prepared transaction. */
export async function readAllWaits(client: ControlClient): Promise<Map<number, readonly number[]>> {
  const { rows } = await client.ask<{ pid: number; blockers: number[] }>({ name: 'pgmm_waits', text: ALL_WAITS });
  return new Map(rows.map(({ pid, blockers }) => [pid, blockers]));
}

async function readWaits(client: ControlClient, roots: readonly number[]): Promise<Map<number, readonly number[]>> {
  const blockers = new Map<number, readonly number[]>();
  const asked = new Set<number>([0]);
  let next = [...roots];
  while (next.length > 0) {
    for (const pid of next) asked.add(pid);
    const { rows } = await client.ask<{ pid: number; blockers: number[] }>({
      ...{ name: 'pgmm_blockers', text: BLOCKERS, values: [next] },
    });
    for (const row of rows) if (row.blockers.length > 0) blockers.set(row.pid, [...new Set(row.blockers)]);
    next = [...new Set(rows.flatMap((row) => row.blockers))].filter((pid) => !asked.has(pid));
  }
  return blockers;
}

async function readPreparedHolders(client: ControlClient, waiters: readonly number[]): Promise<Map<number, string[]>> {
  const holders = new Map<number, string[]>();
  if (waiters.length === 0) return holders;
  const { rows } = await client.ask<{ pid: number; gid: string }>({
    ...{ name: 'pgmm_holders', text: PREPARED_HOLDERS, values: [[...new Set(waiters)]] },
  });
  for (const { pid, gid } of rows) holders.set(pid, [...(holders.get(pid) ?? []), gid]);
  return holders;
}

async function readTables(client: ControlClient, pids: readonly number[]): Promise<Map<number, string>> {
  const { rows } = await client.ask<{ pid: number; table: string }>({
    ...{ name: 'pgmm_tables', text: TABLES, values: [pids] },
  });
  return new Map(rows.map(({ pid, table }) => [pid, table]));
}

function describe(
  { root, end, between }: Wait,
  prepared: ReadonlyMap<number, readonly string[]>,
  table: string | undefined,
): Blocked[] {
  const common = { pid: root, between, table };
  if (end.type === 'backend') return [{ ...common, holder: end }];
  return (prepared.get(end.waiter) ?? []).map((gid) => ({ ...common, holder: { type: 'prepared', gid } }));
}
