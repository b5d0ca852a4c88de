import type pg from 'pg';
import type { Config } from '../../config/schema.ts';
import { findTools, toolPlaces } from '../../replication/logical-copy/tools.ts';
import { ok, warning, type CheckResult } from './result.ts';

/** Another node may ask this one for a logical copy of its data, which takes a pg_dump of this server's version. */
export async function checkDumpTools(client: pg.Client, { reclone }: Config): Promise<CheckResult[]> {
  if (reclone.method === 'physical') return [];
  const { rows } = await client.query<{ major: number; may_look: boolean }>(
    `SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 AS major,
       pg_catalog.has_table_privilege('pg_catalog.pg_config', 'SELECT') AS may_look`,
  );
  const [{ major, may_look: mayLook }] = rows;
  const places = toolPlaces(reclone.toolsDirectory, mayLook ? await readPrograms(client) : null);
  try {
    const { dump } = await findTools(places, major, major);
    return [ok('pg_dump', dump)];
  } catch (error) {
    const { message } = error as Error;
    if (reclone.method === 'auto') return [ok('pg_dump', `other nodes can take physical copies only: ${message}`)];
    const cure = `Install the client programs of PostgreSQL ${major} here, or name their directory in reclone.tools_directory.`;
    return [warning('pg_dump', message, cure)];
  }
}

/** Where the server's own programs are. */
async function readPrograms(client: pg.Client): Promise<string> {
  const sql = `SELECT setting FROM pg_catalog.pg_config WHERE name = 'BINDIR'`;
  return (await client.query<{ setting: string }>(sql)).rows[0].setting;
}
