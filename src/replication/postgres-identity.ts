import type { FoundPostgres } from '../cluster/identity.ts';
import { logIndex, parseLsn } from '../runtime/ids.ts';
import type { ControlClient } from './control-client.ts';

interface Row {
  readonly in_recovery: boolean;
  readonly system_identifier: string;
  readonly committed: string | null;
}

const SERVER = `
SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
  (SELECT system_identifier FROM pg_catalog.pg_control_system())::pg_catalog.text AS system_identifier,
  (SELECT pg_catalog.max(pg_catalog.pg_replication_origin_progress(roname, true)) FROM pg_catalog.pg_replication_origin
   WHERE roname LIKE 'pgmm\\_commit\\_%')::pg_catalog.text AS committed`;

/** The timeline that is being written now; pg_control has the last checkpoint's. What is written and not flushed may be lost yet. */
const WAL = `
SELECT pg_catalog.substr(pg_catalog.pg_walfile_name(flushed), 1, 8) AS timeline, flushed::pg_catalog.text
FROM pg_catalog.pg_current_wal_flush_lsn() flushed`;

/** What this server says of itself. Reads only, and nothing that the proxy would have to install first. */
export async function readPostgresIdentity(client: ControlClient): Promise<FoundPostgres> {
  const server = (await client.ask<Row>(SERVER)).rows[0];
  const common = {
    systemIdentifier: server.system_identifier,
    committed: logIndex(server.committed === null ? 0 : Number(parseLsn(server.committed))),
    inRecovery: server.in_recovery,
    mark: await readMark(client),
  };
  if (server.in_recovery) return { ...common, timeline: 0, flushed: parseLsn('0/0') };
  const wal = (await client.ask<{ timeline: string; flushed: string }>(WAL)).rows[0];
  return { ...common, timeline: parseInt(wal.timeline, 16), flushed: parseLsn(wal.flushed) };
}

async function readMark(client: ControlClient): Promise<FoundPostgres['mark']> {
  const { rows } = await client.ask<{ found: boolean }>(
    `SELECT pg_catalog.to_regclass('multimaster.membership') IS NOT NULL AS found`,
  );
  if (!rows[0].found) return undefined;
  const marks = await client.ask<NonNullable<FoundPostgres['mark']>>(
    'SELECT cluster, node, log FROM multimaster.membership',
  );
  return marks.rows.at(0);
}

/** Marks the server as this node's, for good. The table must be there (catalog/sql/schema.ts). */
export async function markPostgres(
  client: ControlClient,
  { cluster, node, log }: NonNullable<FoundPostgres['mark']>,
): Promise<void> {
  await client.ask(
    `INSERT INTO multimaster.membership AS m (cluster, node, log) VALUES ($1, $2, $3)
     ON CONFLICT (only_row) DO UPDATE SET (cluster, node, log) = (excluded.cluster, excluded.node, excluded.log)
     WHERE (m.cluster, m.node, m.log) IS DISTINCT FROM (excluded.cluster, excluded.node, excluded.log)`,
    [cluster, node, log],
  );
}
