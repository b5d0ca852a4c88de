import { ServerConnection, type ConnectionOptions } from '../wire/connection.ts';

/**
 * What makes values as text mean the same on every node, whatever its databases and roles have set: for the walsender that
 * writes them as for the session that reads them. PostgreSQL's own subscriptions do the same (libpqwalreceiver.c,
 * libpqrcv_connect), all but the last three.
 */
const TEXT_SETTINGS = {
  DateStyle: 'ISO',
  IntervalStyle: 'postgres',
  extra_float_digits: '3',
  bytea_output: 'hex',
  /** Names of tables, functions and types as values are then qualified. */
  search_path: '',
  lc_monetary: 'C',
  TimeZone: 'UTC',
} as const;

/**
 * Connects with these settings. Text travels as UTF-8, which every server converts to and from; one that doesn't know what
 * its text is (SQL_ASCII) has to take and give the bytes as they are.
 */
export async function connectForText(options: ConnectionOptions): Promise<ServerConnection> {
  const connection = await ServerConnection.connect({
    ...options,
    settings: { ...TEXT_SETTINGS, ...options.settings },
  });
  try {
    await connection.query(
      `SELECT pg_catalog.set_config('client_encoding', 'SQL_ASCII', false) WHERE pg_catalog.getdatabaseencoding() = 'SQL_ASCII'`,
    );
  } catch (error) {
    connection.destroy();
    throw error;
  }
  return connection;
}
