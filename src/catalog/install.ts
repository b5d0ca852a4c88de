import { createHash } from 'node:crypto';
import type { ClientBase } from 'pg';
import type { NodeId } from '../runtime/ids.ts';
import { findFiringOnReplay } from './firing.ts';
import { DDL_SQL } from './sql/ddl.ts';
import { FIRING_SQL } from './sql/firing.ts';
import { GUARD_SQL } from './sql/guard.ts';
import { IDENTITY_SQL } from './sql/identity.ts';
import { LARGE_OBJECTS_SQL } from './sql/large-objects.ts';
import { OUTCOME_PRIVILEGES_SQL, OUTCOME_SQL } from './sql/outcome.ts';
import { REWRITE_SQL } from './sql/rewrite.ts';
import { PRIVILEGES_SQL, SCHEMA_SQL } from './sql/schema.ts';
import { SEQUENCES_SQL } from './sql/sequences.ts';
import { EVENT_TRIGGERS } from './sql/triggers.ts';
import { UNINSTALL_SQL } from './sql/uninstall.ts';
import { UNSEEN_CHANGES_PRIVILEGES_SQL, UNSEEN_CHANGES_SQL } from './sql/unseen-changes.ts';

/** Raised when the database is not fit for a cluster, or its objects were installed by something that this program can't replace. */
export class CatalogError extends Error {
  override readonly name = 'CatalogError';
}

/** Goes up when the tables of schema `multimaster` change; functions are replaced whenever their text differs. */
export const CATALOG_VERSION = 1;
/** The publication that every slot of the proxy reads. */
export const PUBLICATION = 'pgmm';
/** Set, local to the transaction, to anything but '' just before every top-level DDL statement of a client. */
export const ANNOUNCE_SETTING = 'multimaster.ddl';

const SQL = [
  ...[SCHEMA_SQL, IDENTITY_SQL, SEQUENCES_SQL, GUARD_SQL, FIRING_SQL, DDL_SQL, REWRITE_SQL, OUTCOME_SQL],
  ...[LARGE_OBJECTS_SQL, UNSEEN_CHANGES_SQL],
  ...[PRIVILEGES_SQL, OUTCOME_PRIVILEGES_SQL, UNSEEN_CHANGES_PRIVILEGES_SQL],
].join('\n');
const FINGERPRINT = createHash('sha256').update(SQL).update(JSON.stringify(EVENT_TRIGGERS)).digest('hex').slice(0, 16);

/** How long an installation waits for a table that somebody else is using. */
const LOCK_TIMEOUT = '30s';

export interface CatalogOptions {
  readonly nodeId: NodeId | number;
  /** The most nodes there can be; see `sequences.stride`. */
  readonly stride: number;
}

interface Installed {
  readonly version: number;
  readonly fingerprint: string;
  readonly node_id: number;
  readonly stride: number;
  readonly same_system: boolean;
}

/**
 * Brings the objects of schema `multimaster` into the database that `client`, a superuser outside a transaction, is
 * connected to. Does nothing where all is as it should be, so it can be run at every start. What it does is local: every
 * node runs it for itself. Its rows are written under schema `multimaster`, which no node replays.
 */
export async function installCatalog(client: ClientBase, options: CatalogOptions): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query('SET LOCAL session_replication_role = replica');
    await client.query(`SET LOCAL lock_timeout = '${LOCK_TIMEOUT}'`);
    await client.query('SET LOCAL search_path = pg_catalog');
    const installed = await readInstalled(client);
    checkInstalled(installed, options);
    await refuseFiringOnReplay(client);
    if (installed?.fingerprint !== FINGERPRINT) await client.query(SQL);
    await noteInstallation(client, options);
    for (const trigger of EVENT_TRIGGERS) await ensureTrigger(client, trigger);
    await ensurePublication(client);
    const moved = installed?.node_id !== options.nodeId || !installed.same_system;
    await fixExisting(client, moved);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

/**
 * Only the schema with its tables and functions, into a database that has none, for what is restored there to find. Nothing of it does anything before
 * `installCatalog`.
 */
export async function createCatalog(client: ClientBase): Promise<void> {
  await client.query(
    `BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL search_path = pg_catalog; ${SQL}; COMMIT`,
  );
}

/** Removes everything again, and gives tables and sequences back the definitions that their owners gave them. */
export async function uninstallCatalog(client: ClientBase): Promise<void> {
  await client.query('BEGIN');
  try {
    await client.query('SET LOCAL session_replication_role = replica');
    await client.query(`SET LOCAL lock_timeout = '${LOCK_TIMEOUT}'`);
    await client.query('SET LOCAL search_path = pg_catalog');
    const { rows } = await client.query<{ found: boolean }>(
      `SELECT to_regclass('multimaster.installation') IS NOT NULL AS found`,
    );
    for (const { name } of EVENT_TRIGGERS) await client.query(`DROP EVENT TRIGGER IF EXISTS ${name}`);
    if (rows[0]?.found) await client.query(UNINSTALL_SQL);
    await client.query(`DROP PUBLICATION IF EXISTS ${PUBLICATION}`);
    await client.query('DROP SCHEMA IF EXISTS multimaster CASCADE');
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined);
    throw error;
  }
}

async function readInstalled(client: ClientBase): Promise<Installed | undefined> {
  const { rows } = await client.query<{ found: boolean }>(
    `SELECT to_regclass('multimaster.installation') IS NOT NULL AS found`,
  );
  if (!rows[0]?.found) return undefined;
  const installed = await client.query<Installed>(
    `SELECT version, fingerprint, node_id, stride, i.system_identifier = c.system_identifier AS same_system
     FROM multimaster.installation i, pg_control_system() c`,
  );
  return installed.rows[0];
}

function checkInstalled(installed: Installed | undefined, { stride }: CatalogOptions): void {
  if (installed === undefined) return;
  if (installed.version !== CATALOG_VERSION) {
    throw new CatalogError(
      `the objects of schema multimaster are of version ${installed.version}, this program needs ${CATALOG_VERSION}`,
    );
  }
  if (installed.stride !== stride) {
    throw new CatalogError(
      `sequences are divided among ${installed.stride} nodes already: sequences.stride can't be changed to ${stride}`,
    );
  }
}

async function refuseFiringOnReplay(client: ClientBase): Promise<void> {
  const found = await findFiringOnReplay(client);
  if (found.length === 0) return;
  const [{ what, cure }] = found;
  const others = found.length === 1 ? '' : `, and ${found.length - 1} more (see "pgmm check")`;
  throw new CatalogError(
    `${what} fires on replay, so what it does would be done again on every node${others}: ${cure}`,
  );
}

async function noteInstallation(client: ClientBase, { nodeId, stride }: CatalogOptions): Promise<void> {
  await client.query(
    `INSERT INTO multimaster.installation AS i (version, fingerprint, node_id, stride, system_identifier)
     SELECT $1, $2, $3, $4, c.system_identifier FROM pg_control_system() c
     ON CONFLICT (only_row) DO UPDATE
       SET (version, fingerprint, node_id, stride, system_identifier)
         = (excluded.version, excluded.fingerprint, excluded.node_id, excluded.stride, excluded.system_identifier)
       WHERE (i.*) IS DISTINCT FROM (excluded.*)`,
    [CATALOG_VERSION, FINGERPRINT, nodeId, stride],
  );
}

async function ensureTrigger(client: ClientBase, trigger: (typeof EVENT_TRIGGERS)[number]): Promise<void> {
  const wanted = trigger.always ? 'A' : 'O';
  const { rows } = await client.query<{ evtenabled: string; right: boolean }>(
    `SELECT e.evtenabled, e.evtevent = $2 AND e.evtfoid = $3::regprocedure AS right FROM pg_event_trigger e WHERE e.evtname = $1`,
    [trigger.name, trigger.event, `multimaster.${trigger.calls}()`],
  );
  if (rows[0]?.right && rows[0].evtenabled === wanted) return;
  await client.query(`DROP EVENT TRIGGER IF EXISTS ${trigger.name}`);
  await client.query(
    `CREATE EVENT TRIGGER ${trigger.name} ON ${trigger.event} EXECUTE FUNCTION multimaster.${trigger.calls}()`,
  );
  if (trigger.always) await client.query(`ALTER EVENT TRIGGER ${trigger.name} ENABLE ALWAYS`);
}

/**
 * All tables, each partition leaf for itself: with publish_via_partition_root TRUNCATE of a leaf is lost. On 18 generated
 * columns are published, or a table with REPLICA IDENTITY FULL and such a column can't be updated; replay ignores them.
 */
async function ensurePublication(client: ClientBase): Promise<void> {
  const { rows } = await client.query<{ version: number; as_wanted: boolean | null }>(
    `SELECT current_setting('server_version_num')::int AS version,
       (SELECT p.puballtables AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND NOT p.pubviaroot
          AND coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's'
        FROM pg_publication p WHERE p.pubname = $1) AS as_wanted`,
    [PUBLICATION],
  );
  const found = rows[0];
  if (found.as_wanted === true) return;
  const generated = found.version >= 180_000 ? ', publish_generated_columns = stored' : '';
  await client.query(`DROP PUBLICATION IF EXISTS ${PUBLICATION}`);
  await client.query(
    `CREATE PUBLICATION ${PUBLICATION} FOR ALL TABLES
     WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false${generated})`,
  );
}

/**
 * Tables and sequences that were there before the triggers. On a node that is new here, a sequence also goes beyond what
 * its table holds: the node's own rows may have come back as a copy, without its sequences' positions.
 *
 * Otherwise only catalogs are read: a transaction in doubt may hold a lock on any table or sequence, and its end may have
 * to wait for the very start that this is a part of.
 */
async function fixExisting(client: ClientBase, moved: boolean): Promise<void> {
  await client.query(
    `SELECT multimaster.fix_identity(c.oid::regclass), multimaster.fix_deferrable(c.oid::regclass) FROM pg_class c
     WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND c.oid >= 16384
       AND c.relnamespace NOT IN ('multimaster'::regnamespace, 'pg_catalog'::regnamespace, 'information_schema'::regnamespace)`,
  );
  await client.query(
    `SELECT multimaster.align_sequence(c.oid::regclass, $1) FROM pg_class c JOIN pg_sequence s ON s.seqrelid = c.oid
     WHERE c.relpersistence <> 't' AND c.oid >= 16384 AND c.relnamespace <> 'multimaster'::regnamespace
       AND ($1 OR NOT EXISTS (
         SELECT FROM multimaster.sequence k WHERE k.sequence = c.oid
           AND (k.increment, k.start, k.min, k.max) = (s.seqincrement, s.seqstart, s.seqmin, s.seqmax)
       ))`,
    [moved],
  );
}
