import type { LanePositions } from '../commit/core/commit-progress.ts';
import { formatLsn, logIndex, lsn, parseLsn, type LogIndex } from '../runtime/ids.ts';
import type { ControlClient } from './control-client.ts';
import { takeOver } from './origins.ts';

const PREFIX = 'pgmm_commit_';

/** The origin of a committer of the database with this oid. One lane is the order "strict". */
export function commitOrigin(oid: string, lane: number, lanes: number): string {
  return `${PREFIX}${oid}_${lane}${lanes === 1 ? '' : `of${lanes}`}`;
}

/** How many lanes there were where a commit with this origin was made; undefined for an origin that is not a committer's. */
export function lanesOf(origin: string): number | undefined {
  if (!origin.startsWith(PREFIX)) return undefined;
  const lanes = /of(\d+)$/.exec(origin)?.[1];
  return lanes === undefined ? 1 : Number(lanes);
}

/** What the origins of a database say is committed, by the number of lanes. Those that never committed stand at 0. */
export async function readCommitPositions(control: ControlClient, oid: string): Promise<Map<number, LogIndex[]>> {
  const { rows } = await control.ask<{ name: string; position: string | null }>(
    `SELECT roname AS name, pg_catalog.pg_replication_origin_progress(roname, true)::pg_catalog.text AS position
     FROM pg_catalog.pg_replication_origin WHERE pg_catalog.starts_with(roname, $1)`,
    [`${PREFIX}${oid}_`],
  );
  const sets = new Map<number, LogIndex[]>();
  for (const { name, position } of rows) {
    const lanes = lanesOf(name) ?? 1;
    const lane = Number(name.slice(`${PREFIX}${oid}_`.length).split('of')[0]);
    const positions = sets.get(lanes) ?? Array.from({ length: lanes }, () => logIndex(0));
    positions[lane] = logIndex(position === null ? 0 : Number(parseLsn(position)));
    sets.set(lanes, positions);
  }
  return sets;
}

/** The furthest of several databases: their entries went through the same lanes. */
export function furthest(databases: readonly ReadonlyMap<number, LanePositions>[]): LanePositions[] {
  const sets = new Map<number, LogIndex[]>();
  for (const [lanes, positions] of databases.flatMap((one) => [...one])) {
    const before = sets.get(lanes) ?? [];
    sets.set(
      lanes,
      positions.map((position, lane) => Math.max(position, before[lane] ?? 0) as LogIndex),
    );
  }
  return [...sets.values()];
}

/**
 * Notes down durably that everything up to an index is committed, which the origins of several lanes may not prove by themselves: a
 * lane that has had nothing to commit for long stays behind. On the origin of the order "strict", which nobody holds then.
 */
export async function noteCommitted(control: ControlClient, oid: string, index: LogIndex): Promise<void> {
  const origin = commitOrigin(oid, 0, 1);
  await control.ask(
    `SELECT pg_catalog.pg_replication_origin_create($1)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = $1)`,
    [origin],
  );
  // With a transaction id, so that the end of the transaction flushes what was written.
  const advance = `SELECT pg_catalog.set_config('synchronous_commit', 'on', true), pg_catalog.pg_current_xact_id(),
    pg_catalog.pg_replication_origin_advance($1, $2::pg_catalog.pg_lsn)`;
  await takeOver(control, () => control.ask(advance, [origin, formatLsn(lsn(BigInt(index)))]));
}
