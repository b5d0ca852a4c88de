/** PostgreSQL's NAMEDATALEN less one: bytes of a name. */
const MAX_NAME = 63;

/** Under which name a database is loaded until it is complete. Throws when there is no room for it. */
export function copyName(database: string): string {
  return named(database, '_pgmm_copy');
}

/** Under which name the former database is kept. `time`: from `timeOf`. */
export function oldName(database: string, time: string): string {
  return named(database, `_pgmm_old_${time}`);
}

/** As names of former databases and directories have it: 20260102T030405Z. */
export function timeOf(now: Date): string {
  return now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
}

function named(database: string, suffix: string): string {
  const name = `${database}${suffix}`;
  if (Buffer.byteLength(name) > MAX_NAME)
    throw new Error(`the name of database "${database}" leaves no room for "${suffix}"`);
  return name;
}

/** A database to connect to for what can't be done from within those that are replaced. Throws when they are all there is. */
export function maintenanceDatabase(databases: readonly string[], preferred: string): string {
  const found = [preferred, 'postgres', 'template1'].find((name) => !databases.includes(name));
  if (found === undefined)
    throw new Error('a logical copy needs a database that is not among databases: to connect to, such as "postgres"');
  return found;
}
