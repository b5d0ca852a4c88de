import type { ControlClient } from '../control-client.ts';

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
 * Each replay with the ends of its waiting chains, and what lies between: clients that queue for the same row stand before the
 * replay as well. Process 0 stands for a prepared transaction.
 */
const CHAINS = `
WITH RECURSIVE chain(root, waiter, blocker, between) AS (
  SELECT root, root, blocker, ARRAY[]::pg_catalog.int4[]
  FROM pg_catalog.unnest($1::pg_catalog.int4[]) root, pg_catalog.unnest(pg_catalog.pg_blocking_pids(root)) blocker
  UNION
  SELECT chain.root, chain.blocker, next, chain.between || chain.blocker
  FROM chain, pg_catalog.unnest(pg_catalog.pg_blocking_pids(chain.blocker)) next
  WHERE chain.blocker <> 0 AND pg_catalog.cardinality(chain.between) < 8 AND next <> ALL (chain.between)
)
SELECT root, waiter, blocker, between,
  (SELECT l.relation::pg_catalog.regclass::pg_catalog.text FROM pg_catalog.pg_locks l
   WHERE l.pid = root AND l.locktype IN ('tuple', 'relation') ORDER BY l.locktype = 'tuple' DESC, l.granted LIMIT 1) AS "table"
FROM chain
WHERE blocker = 0 OR pg_catalog.cardinality(pg_catalog.pg_blocking_pids(blocker)) = 0`;

/** The gids of the prepared transactions that a backend waits for: what holds its lock has no process, but a transaction. */
const PREPARED_HOLDERS = `
SELECT DISTINCT p.gid
FROM pg_catalog.pg_locks w
JOIN pg_catalog.pg_locks h ON h.granted AND h.pid IS NULL AND h.locktype = w.locktype
  AND h.database IS NOT DISTINCT FROM w.database AND h.relation IS NOT DISTINCT FROM w.relation
  AND h.page IS NOT DISTINCT FROM w.page AND h.tuple IS NOT DISTINCT FROM w.tuple
  AND h.virtualxid IS NOT DISTINCT FROM w.virtualxid AND h.transactionid IS NOT DISTINCT FROM w.transactionid
  AND h.classid IS NOT DISTINCT FROM w.classid AND h.objid IS NOT DISTINCT FROM w.objid
  AND h.objsubid IS NOT DISTINCT FROM w.objsubid
JOIN pg_catalog.pg_locks x ON x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid' AND x.granted
JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = x.transactionid
WHERE w.pid = $1 AND NOT w.granted`;

interface ChainRow {
  readonly root: number;
  readonly waiter: number;
  readonly blocker: number;
  readonly between: readonly number[];
  readonly table: string | null;
}

/** Looks up what these apply sessions wait for; costs a fraction of a millisecond when none of them waits. */
export async function findBlockers(client: ControlClient, pids: readonly number[]): Promise<Blocked[]> {
  const { rows } = await client.ask<ChainRow>({ name: 'pgmm_chains', text: CHAINS, values: [pids] });
  const found: Blocked[] = [];
  for (const { root, waiter, blocker, between, table } of rows) {
    const common = { pid: root, between, table: table ?? undefined };
    if (blocker !== 0) {
      found.push({ ...common, holder: { type: 'backend', pid: blocker } });
      continue;
    }
    const holders = await client.ask<{ gid: string }>({
      name: 'pgmm_holders',
      text: PREPARED_HOLDERS,
      values: [waiter],
    });
    for (const { gid } of holders.rows) found.push({ ...common, holder: { type: 'prepared', gid } });
  }
  return found;
}
