import type { LanePositions } from '../commit/core/commit-progress.ts';
import { formatLsn, logIndex, lsn, parseLsn, type LogIndex } from '../runtime/ids.ts';
import type { ControlClient } from './control-client.ts';
import { takeOver } from './origins.ts';

const PREFIX = 'pgmm_commit_';

/** The origin of a committer of the database with this oid. One lane is the order "strict". */
export function commitOrigin(oid: string, lane: number, lanes: number): string {
  return `${PREFIX}${oid}_${lane}${lanes === 1 ? '' : `of${lanes}`}`;
}

/** Which lane of how many an origin belongs to; undefined for an origin that is not a committer's. */
export function parseCommitOrigin(name: string): { readonly lane: number; readonly lanes: number } | undefined {
  const found = /^pgmm_commit_\d+_(?<lane>\d+)(?:of(?<lanes>\d+))?$/.exec(name)?.groups;
  return found === undefined ? undefined : { lane: Number(found['lane']), lanes: Number(found['lanes'] ?? 1) };
}

/** Positions by the number of lanes, from the names of origins and what they say. Those that are missing stand at 0. */
export function positionsByLanes(
  origins: readonly (readonly [name: string, position: LogIndex])[],
): Map<number, LogIndex[]> {
  const sets = new Map<number, LogIndex[]>();
  for (const [name, position] of origins) {
    const { lane, lanes } = parseCommitOrigin(name) ?? {};
    if (lane === undefined || lanes === undefined) continue;
    const positions = sets.get(lanes) ?? Array.from({ length: lanes }, () => logIndex(0));
    positions[lane] = Math.max(position, positions[lane]) as LogIndex;
    sets.set(lanes, positions);
  }
  return sets;
}

/** What the origins of a database say is committed. */
export async function readCommitPositions(
  control: ControlClient,
  oid: string,
): Promise<ReadonlyMap<number, LanePositions>> {
  const { rows } = await control.ask<{ name: string; position: string | null }>(
    `SELECT roname AS name, pg_catalog.pg_replication_origin_progress(roname, true)::pg_catalog.text AS position
     FROM pg_catalog.pg_replication_origin WHERE pg_catalog.starts_with(roname, $1)`,
    [`${PREFIX}${oid}_`],
  );
  return positionsByLanes(rows.map(({ name, position }) => [name, toIndex(position ?? '0/0')]));
}

/** An origin's position stands for a log index. */
export const toIndex = (position: string): LogIndex => logIndex(Number(parseLsn(position)));

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
 * Creates the origins of several lanes, if they are missing. Whether they can be used: a transaction is decoded by the catalog as it was when the
 * transaction began, and one that began before its origin was there would come out of the history without its index. So not before all that
 * is in progress began later, prepared transactions included; which is asked at the next start if it is not so now.
 */
export async function prepareLanes(control: ControlClient, oid: string, lanes: number): Promise<boolean> {
  const marker = (what: string) => `pgmm_lanes_${oid}_${lanes}${what}`;
  await create(
    control,
    Array.from({ length: lanes }, (_, lane) => commitOrigin(oid, lane, lanes)),
  );
  // In a later transaction: what began behind this one began behind the others' end.
  await create(control, [marker('')]);
  const { rows } = await control.ask<{ isOver: boolean; isOlder: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = $2) AS "isOver",
       pg_catalog.age(m.xmin) > pg_catalog.age(
         (pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot())::pg_catalog.text::pg_catalog.int8 % 4294967296)
           ::pg_catalog.text::pg_catalog.xid) AS "isOlder"
     FROM pg_catalog.pg_replication_origin m WHERE m.roname = $1`,
    [marker(''), marker('_used')],
  );
  const [{ isOver, isOlder }] = rows;
  if (!isOver && !isOlder) return false;
  // Ages are not to be trusted for ever.
  await create(control, [marker('_used')]);
  return true;
}

async function create(control: ControlClient, origins: readonly string[]): Promise<void> {
  await control.ask(
    `SELECT pg_catalog.pg_replication_origin_create(name) FROM pg_catalog.unnest($1::pg_catalog.text[]) name
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_origin WHERE roname = name)`,
    [origins],
  );
}

/**
 * Notes down durably that everything up to an index is committed, which the origins of several lanes may not prove by themselves: a
 * lane that has had nothing to commit for long stays behind. On the origin of the order "strict", which nobody holds then.
 */
export async function noteCommitted(control: ControlClient, oid: string, index: LogIndex): Promise<void> {
  const origin = commitOrigin(oid, 0, 1);
  await create(control, [origin]);
  // With a transaction id, so that the end of the transaction flushes what was written.
  const advance = `SELECT pg_catalog.set_config('synchronous_commit', 'on', true), pg_catalog.pg_current_xact_id(),
    pg_catalog.pg_replication_origin_advance($1, $2::pg_catalog.pg_lsn)`;
  await takeOver(control, () => control.ask(advance, [origin, formatLsn(lsn(BigInt(index)))]));
}
