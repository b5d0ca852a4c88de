import type { Difference, RowDifference } from './report.ts';
import type { Snapshot } from './snapshot.ts';

interface Table {
  readonly name: string;
  /** `ROW(a, b)` with the columns by name, so that their order doesn't matter. */
  readonly row: string;
  readonly unlogged: boolean;
}

export interface TableReport {
  readonly tables: number;
  readonly rows: number;
  readonly differences: readonly Difference[];
  readonly notes: readonly string[];
}

/** Rows per bucket to aim at when looking for the ones that differ, and how many buckets there are at most. */
const BUCKET_ROWS = 1000;
const MAX_BUCKETS = 65_536;
/** Buckets read for one table until enough differing rows are found. */
const BUCKETS_READ = 16;

/** Ordinary tables (so also each leaf of a partitioned one), materialized views, and large objects as one table. */
const TABLES = `
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relpersistence = 'u' AS unlogged,
  'ROW(' || coalesce((
    SELECT string_agg(format('%I', a.attname), ', ' ORDER BY a.attname) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  ), '') || ')' AS row
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't' AND (c.relkind = 'r' OR c.relispopulated)
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'multimaster')
UNION ALL SELECT 'pg_catalog.pg_largeobject', false, 'ROW(data, loid, pageno)'
ORDER BY 1`;

/** Compares the rows of all tables, wherever they are in a table and however often they are there. */
export async function compareTables(snapshots: readonly Snapshot[], rowLimit: number): Promise<TableReport> {
  const lists = await Promise.all(
    snapshots.map(
      async ({ client }) => new Map((await client.query<Table>(TABLES)).rows.map((table) => [table.name, table])),
    ),
  );
  const names = [...new Set(lists.flatMap((list) => [...list.keys()]))].sort();
  const differences: Difference[] = [];
  const notes: string[] = [];
  let [tables, rows] = [0, 0];
  for (const name of names) {
    const found = lists.map((list) => list.get(name));
    // A table that is missing somewhere is a difference of the schema, and found there.
    if (found.some((table) => table === undefined)) continue;
    const versions = found as Table[];
    if (versions.some(({ unlogged }) => unlogged)) {
      notes.push(`${name} is unlogged: its rows are not replicated and not compared`);
      continue;
    }
    const digests = await Promise.all(snapshots.map((snapshot, index) => digest(snapshot, versions[index])));
    tables++;
    rows += digests[0].rows;
    if (new Set(digests.map(({ text }) => text)).size === 1) continue;
    differences.push({
      kind: 'data',
      object: `table ${name}`,
      nodes: byNode(snapshots, (_, index) => digests[index].text),
      rows: await differingRows(snapshots, versions, Math.max(...digests.map((one) => one.rows)), rowLimit),
    });
  }
  return { tables, rows, differences, notes };
}

/**
 * A sum doesn't depend on the order of rows, and unlike an exclusive-or it tells one row from three of the same. Two
 * sums of independent 64-bit hashes: equal by chance once in 2^128. The collation makes it the same on every server.
 */
async function digest({ client }: Snapshot, { name, row }: Table): Promise<{ rows: number; text: string }> {
  const { rows } = await client.query<{ rows: string; a: string; b: string }>(
    `SELECT count(*) AS rows, coalesce(sum(hashtextextended(h.t, 0)::numeric), 0)::text AS a,
       coalesce(sum(hashtextextended(h.t, 1)::numeric), 0)::text AS b
     FROM (SELECT (${row})::text COLLATE "C" AS t FROM ONLY ${name}) h`,
  );
  const [{ rows: count, a, b }] = rows;
  return { rows: Number(count), text: `${count} rows, digest ${a}/${b}` };
}

/** Narrows down to buckets of rows by their hash, so that only few rows have to be read from any node. */
async function differingRows(
  snapshots: readonly Snapshot[],
  tables: readonly Table[],
  rowCount: number,
  limit: number,
): Promise<RowDifference[]> {
  const buckets = Math.min(MAX_BUCKETS, 2 ** Math.ceil(Math.log2(Math.max(1, rowCount / BUCKET_ROWS))));
  const bucket = `(hashtextextended(t, 0) & ${buckets - 1})`;
  const rowsOf = ({ name, row }: Table): string => `(SELECT (${row})::text COLLATE "C" AS t FROM ONLY ${name}) h`;
  const sums = await Promise.all(
    snapshots.map(async ({ client }, index) => {
      const { rows } = await client.query<{ bucket: string; sum: string }>(
        `SELECT ${bucket}::text AS bucket, count(*) || '/' || sum(hashtextextended(t, 1)::numeric) AS sum
         FROM ${rowsOf(tables[index])} GROUP BY 1`,
      );
      return new Map(rows.map((row) => [row.bucket, row.sum]));
    }),
  );
  const all = [...new Set(sums.flatMap((sum) => [...sum.keys()]))];
  const differing = all.filter((key) => new Set(sums.map((sum) => sum.get(key))).size > 1);
  const found: RowDifference[] = [];
  for (const key of differing.slice(0, BUCKETS_READ)) {
    const counts = await Promise.all(
      snapshots.map(async ({ client }, index) => {
        const { rows } = await client.query<{ t: string; count: string }>(
          `SELECT t, count(*) AS count FROM ${rowsOf(tables[index])} WHERE ${bucket} = $1::bigint GROUP BY t`,
          [key],
        );
        return new Map(rows.map(({ t, count }) => [t, Number(count)]));
      }),
    );
    for (const row of new Set(counts.flatMap((count) => [...count.keys()]))) {
      if (new Set(counts.map((count) => count.get(row))).size === 1) continue;
      found.push({ row, counts: byNode(snapshots, (_, index) => counts[index].get(row) ?? 0) });
      if (found.length >= limit) return found;
    }
  }
  return found;
}

/** A value of every node, by its name. */
export function byNode<Value>(
  snapshots: readonly Snapshot[],
  value: (snapshot: Snapshot, index: number) => Value,
): Record<string, Value> {
  return Object.fromEntries(snapshots.map((snapshot, index) => [snapshot.name, value(snapshot, index)]));
}
