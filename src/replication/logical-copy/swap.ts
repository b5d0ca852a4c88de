import { parseGid } from '../../commit/gid.ts';
import { faultPoint } from '../../runtime/fault-points.ts';
import type { LogIndex } from '../../runtime/ids.ts';
import { literal, quote } from '../../runtime/sql-text.ts';
import { CommitProgress } from '../../commit/core/commit-progress.ts';
import { noteCommitted, readCommitPositions } from '../commit-origins.ts';
import { ControlClient } from '../control-client.ts';
import { APPLICATION_NAME } from '../origins.ts';
import { findRoles } from './found-roles.ts';
import type { CopyHeader } from './frames.ts';
import type { TargetServer } from './loader.ts';
import { copyName, oldName } from './names.ts';
import { alignRoles, surplusRoles, UNFINISHED } from './roles.ts';

/** Milliseconds for sessions of a database to end, and between looks. */
const END_TIMEOUT = 30_000;
const LOOK_EVERY = 100;
const DEPENDENT_OBJECTS = '2BP01';

async function within(server: TargetServer, database: string, work: (client: ControlClient) => Promise<void>) {
  const client = new ControlClient({ ...server.server, database, applicationName: `${APPLICATION_NAME} copy` });
  client.on('error', () => undefined);
  await client.connect();
  try {
    await client.ask('SET synchronous_commit = on');
    await work(client);
  } finally {
    await client.end();
  }
}

/** Removes what is left of a copy that is not complete: its databases, and the roles that were made for them. */
export async function dropCopies(server: TargetServer): Promise<void> {
  await within(server, server.maintenance, async (client) => {
    for (const name of server.databases)
      await client.ask(`DROP DATABASE IF EXISTS ${quote(copyName(name))} WITH (FORCE)`);
    const { rows } = await client.ask<{ name: string }>(
      `SELECT rolname AS name FROM pg_catalog.pg_roles WHERE pg_catalog.shobj_description(oid, 'pg_authid') = $1`,
      [UNFINISHED],
    );
    for (const { name } of rows) await client.ask(`DROP ROLE ${quote(name)}`);
  });
}

/**
 * Puts the databases of a complete copy in the place of the former ones, and makes the roles those of the donor. No proxy must run. May be called again after
 * it failed or was interrupted at any point, and goes on. The first database comes first: until all are in place its mark keeps a proxy from using them.
 */
export async function putInPlace(server: TargetServer, { index, ...header }: CopyHeader, time: string): Promise<void> {
  await within(server, server.maintenance, async (client) => {
    await refuseForeignPrepared(client, server.databases);
    for (const name of server.databases) await noteIndex(client, name, index);
    for (const name of server.databases) {
      await replace(server, client, name, time);
      faultPoint('copy.first-replaced');
    }
    await forgetFormer(client);
    const { roles, memberships, settings } = header;
    await client.ask('BEGIN');
    for (const statement of alignRoles(roles, memberships, settings, await findRoles(client)))
      await client.ask(statement);
    await client.ask('COMMIT');
  });
}

interface Database {
  readonly oid: string;
  readonly allowed: boolean;
}

async function find(client: ControlClient, name: string): Promise<Database | undefined> {
  const { rows } = await client.ask<Database>(
    'SELECT oid::pg_catalog.text AS oid, datallowconn AS allowed FROM pg_catalog.pg_database WHERE datname = $1',
    [name],
  );
  return rows.at(0);
}

/** Where its node goes on from. The origin belongs to the database's object id, which stays when it is renamed. */
async function noteIndex(client: ControlClient, name: string, index: LogIndex): Promise<void> {
  const database = (await find(client, copyName(name))) ?? (await find(client, name));
  if (database === undefined) throw new Error(`database "${name}" and the copy of it are gone`);
  const { highest } = new CommitProgress([...(await readCommitPositions(client, database.oid)).values()]);
  if (index > highest) await noteCommitted(client, database.oid, index);
}

async function replace(server: TargetServer, client: ControlClient, name: string, time: string): Promise<void> {
  const copy = copyName(name);
  if ((await find(client, copy)) === undefined) return;
  const former = await find(client, name);
  if (former !== undefined) {
    if (former.allowed) await within(server, name, rollBackPrepared);
    await client.ask(`ALTER DATABASE ${quote(name)} WITH ALLOW_CONNECTIONS false`);
    await endSessions(client, name);
    await dropSlots(client, name);
    await client.ask(`ALTER DATABASE ${quote(name)} RENAME TO ${quote(oldName(name, time))}`);
  }
  await endSessions(client, copy);
  await client.ask(`ALTER DATABASE ${quote(copy)} RENAME TO ${quote(name)}`);
}

/** Rejects when somebody else has prepared a transaction in one of the databases: it could not be renamed, and what becomes of it is not this program's affair. */
export async function refuseForeignPrepared(client: ControlClient, databases: readonly string[]): Promise<void> {
  const { rows } = await client.ask<{ gid: string; database: string }>(
    'SELECT gid, database FROM pg_catalog.pg_prepared_xacts WHERE database = ANY ($1)',
    [databases],
  );
  const foreign = rows.find(({ gid }) => parseGid(gid) === undefined);
  if (foreign !== undefined)
    throw new Error(
      `somebody has prepared transaction "${foreign.gid}" in database "${foreign.database}": end it first`,
    );
}

/** Of this program's own the log knows what is committed; this database is not asked any more. */
async function rollBackPrepared(client: ControlClient): Promise<void> {
  const { rows } = await client.ask<{ gid: string }>(
    'SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()',
  );
  for (const { gid } of rows) await client.ask(`ROLLBACK PREPARED ${literal(gid)}`);
}

/** Nobody reads them any more, and they would keep WAL for ever. */
async function dropSlots(client: ControlClient, database: string): Promise<void> {
  await client.ask(
    `SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots
     WHERE database = $1 AND slot_name LIKE 'pgmm\\_%'`,
    [database],
  );
}

async function endSessions(client: ControlClient, database: string): Promise<void> {
  const end = `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE datname = $1`;
  for (let waited = 0; ; waited += LOOK_EVERY) {
    const { rowCount } = await client.ask(end, [database]);
    if (rowCount === 0) return;
    if (waited >= END_TIMEOUT) throw new Error(`sessions of database "${database}" do not end`);
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY));
  }
}

/** Origins of databases that are not the cluster's any more: they would say that more is committed than is. */
async function forgetFormer(client: ControlClient): Promise<void> {
  await client.ask(
    `SELECT pg_catalog.pg_replication_origin_drop(o.roname) FROM pg_catalog.pg_replication_origin o
     LEFT JOIN pg_catalog.pg_database d ON d.oid::pg_catalog.text = pg_catalog.substring(o.roname, '^pgmm_[a-z]+_([0-9]+)')
     WHERE o.roname ~ '^pgmm_(commit|apply|lanes)_[0-9]+' AND (d.oid IS NULL OR NOT d.datallowconn)`,
  );
}

/** Drops what the copy has replaced, as far as it is not to be kept. Gives what is left, in lines for the log. */
export async function dropFormer(
  server: TargetServer,
  { roles }: CopyHeader,
  time: string,
  keepOld: boolean,
): Promise<string[]> {
  const left: string[] = [];
  await within(server, server.maintenance, async (client) => {
    for (const name of server.databases) {
      const former = oldName(name, time);
      if ((await find(client, former)) === undefined) continue;
      if (keepOld)
        left.push(`the former contents of database "${name}" are in "${former}", which takes no connections`);
      else await client.ask(`DROP DATABASE ${quote(former)}`);
    }
    for (const role of surplusRoles(roles, await findRoles(client)))
      left.push(...(await dropRole(client, role, `_pgmm_old_${time}`)));
  });
  return left;
}

/** A role that something on this server still belongs to gives up its name and its login: the cluster may make another one. */
async function dropRole(client: ControlClient, role: string, suffix: string): Promise<string[]> {
  if (role.includes('_pgmm_old_')) return [];
  try {
    await client.ask(`DROP ROLE ${quote(role)}`);
    return [];
  } catch (error) {
    if ((error as { code?: string }).code !== DEPENDENT_OBJECTS) throw error;
  }
  const name = `${role.slice(0, 63 - suffix.length)}${suffix}`;
  await client.ask(`ALTER ROLE ${quote(role)} NOLOGIN`);
  await client.ask(`ALTER ROLE ${quote(role)} RENAME TO ${quote(name)}`);
  return [`role "${role}" is not the cluster's, and something here belongs to it: it is named "${name}" now`];
}
