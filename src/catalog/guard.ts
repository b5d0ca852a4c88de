import type pg from 'pg';

/** One statement in a transaction of its own; rows as node-postgres gives them. */
type Query = <Row extends pg.QueryResultRow>(sql: string, values?: unknown[]) => Promise<pg.QueryResult<Row>>;

/**
 * Switches the guard of the database on, with the address that refused clients are sent to, or off. In force at once where
 * triggers are; `fixGuard` brings and takes those.
 */
export async function switchGuard(query: Query, proxy: string | undefined): Promise<void> {
  if (proxy === undefined) {
    await query('DELETE FROM multimaster.guard');
    return;
  }
  await query(
    `INSERT INTO multimaster.guard AS g (proxy) VALUES ($1)
     ON CONFLICT (only_row) DO UPDATE SET proxy = excluded.proxy WHERE g.proxy <> excluded.proxy`,
    [proxy],
  );
}

/**
 * Gives every table its trigger, or takes it away, one table at a time. Answers how many are in use and have to be tried
 * again; a transaction in doubt may hold one for as long as it is.
 */
export async function fixGuard(query: Query): Promise<number> {
  const { rows } = await query<{ oid: number }>('SELECT u::pg_catalog.oid AS oid FROM multimaster.unguarded() u');
  let left = 0;
  for (const { oid } of rows) {
    // It may have been dropped since: then it is looked for in vain, and is done.
    const done = await query<{ done: boolean }>('SELECT multimaster.fix_guard($1::pg_catalog.oid) AS done', [oid]);
    if (!done.rows[0].done) left += 1;
  }
  return left;
}
